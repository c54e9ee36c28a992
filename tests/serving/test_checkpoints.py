"""Prefixes of models with recurrent states: where they can be reused, and what is evicted first."""

from __future__ import annotations

import pytest

from perfmodel.serving.checkpoints import CheckpointCache
from tests.serving.test_replica import TABLES, Pool, Replica, Run, Totals, drive, requests, small


def cache(state: int = 2, weight: float = 1.0) -> CheckpointCache:
    return CheckpointCache(state, (1.0, 0.1), weight)


def keep(c: CheckpointCache, *path: int) -> None:
    """A request computes a path and leaves."""
    hit = c.match(path)
    c.take(path[:hit])
    fresh, _ = c.insert(path, hit, 100)
    c.release([*path[:hit], *fresh])


def test_a_prefix_is_reused_only_up_to_a_state() -> None:
    c = cache()
    keep(c, 1, 2, 3, 4)
    assert c.match((1, 2, 3, 4, 5)) == 4
    assert c.match((1, 2, 9)) == 0, "no state was kept after the second block"
    keep(c, 1, 2, 9)
    assert c.match((1, 2, 8)) == 2, "where prompts part a state is kept"
    assert c.idle == 5 + 3 * 2
    assert c.held == 0


def test_without_weight_the_longest_unused_end_goes_first() -> None:
    c = cache(weight=0.0)
    keep(c, 1, 2, 3)
    keep(c, 11)
    keep(c, 12)
    c.take((1, 2, 3))
    c.release((1, 2, 3))
    c.evict(1)
    assert c.match((11,)) == 0
    assert c.match((12,)) == 1
    assert c.match((1, 2, 3)) == 3


def test_with_weight_the_end_that_saves_least_per_byte_goes_first() -> None:
    """A short prompt used last saves less per byte, its state being as large as that of a long one."""
    c = cache(state=8, weight=5.0)
    keep(c, *range(1, 21))
    keep(c, 31)
    c.evict(1)
    assert c.match((31,)) == 0
    assert c.match(tuple(range(1, 21))) == 20


def test_what_is_held_stays() -> None:
    c = cache()
    c.insert((1, 2), 0, 100)
    assert c.evict(10) == 0
    c.release((1, 2))
    assert c.evict(10) == 4
    assert c.idle == 0


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm-no-evict"])
def test_every_block_comes_back(name: str, weight: float) -> None:
    load, rules, totals = requests(9), small(name), Totals()
    pool = Pool(6000 // rules.block, rules.block, fixed=rules.reserve == "whole", hashed=64, cache=cache(weight=weight))
    drive(Run([Replica(TABLES, rules, pool, totals)], totals), iter(load))
    assert totals.output_tokens == sum(r.output for r in load)
    assert totals.hit_tokens > 0
    assert pool.free >= 0
    assert pool.available == pool.blocks


def test_a_stopped_run_goes_on(tmp_path) -> None:
    from perfmodel.serving.resume import Saver, load_run

    def fresh() -> Run:
        totals = Totals()
        return Run([Replica(TABLES, small("vllm"), Pool(375, 16, hashed=64, cache=cache()), totals)], totals)

    load, path = requests(9), tmp_path / "run"
    whole = drive(fresh(), iter(load))
    Saver(path, "q")(drive(fresh(), iter(load), most=100), now=True)
    again = drive(load_run(path, "q", fresh()), iter(load))
    assert again.totals.ended == whole.totals.ended
