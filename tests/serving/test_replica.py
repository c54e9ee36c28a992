"""A replica under load: what must hold whatever the tables say, and queues with closed forms."""

from __future__ import annotations

import itertools
import math
import random
from array import array

import numpy as np
import pytest

from perfmodel.errors import PerfmodelError
from perfmodel.serving.arrivals import Synthetic
from perfmodel.serving.pool import Pool
from perfmodel.serving.prefix import LruCache
from perfmodel.serving.replica import Replica
from perfmodel.serving.schedulers import SCHEDULERS, Scheduler, choose_scheduler
from perfmodel.serving.simulation import ROUTERS, Run, drive
from perfmodel.serving.stability import stability
from perfmodel.serving.statistics import Totals
from perfmodel.serving.tables import IterationTables, constant_tables
from perfmodel.specs.trace import Arrival

TABLES = constant_tables(0.01, 1e-5, 1e-4, sequences=32, tokens=2048, context=4096)


def requests(seed: int, count: int = 250, rate: float = 20.0, prefixes: bool = True) -> list[Arrival]:
    """Random requests, in groups that share up to six blocks of 64 tokens."""
    rng, now, found = random.Random(seed), 0.0, []
    for _ in range(count):
        now += rng.expovariate(rate)
        group, prompt = rng.randrange(5), rng.randrange(1, 900)
        ids = tuple(group * 100 + j for j in range(min(prompt // 64, 6))) if prefixes else ()
        found.append(Arrival(now, prompt, rng.randrange(1, 300), ids))
    return found


def new_run(
    rules: Scheduler, *, tokens: int = 6000, replicas: int = 1, router: str = "round-robin", stepping: bool = False,
    tables=TABLES, cache: bool = True,
) -> Run:  # fmt: skip
    totals = Totals()
    pools = [
        Pool(tokens // rules.block, rules.block, fixed=rules.reserve == "whole", hashed=64,
             cache=LruCache() if cache else None)
        for _ in range(replicas)
    ]  # fmt: skip
    return Run([Replica(tables, rules, pool, totals, stepping=stepping) for pool in pools], totals, router)  # type: ignore[arg-type]


def small(name: str) -> Scheduler:
    return choose_scheduler(name, max_sequences=32, token_budget=512)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("seed", [1, 2])
def test_skipping_equals_stepping(name: str, seed: int) -> None:
    load = requests(seed)
    a, b = (drive(new_run(small(name), stepping=s), iter(load)).totals for s in (False, True))
    for series in ("ttft", "tpot", "e2e", "ended"):
        np.testing.assert_allclose(getattr(a, series), getattr(b, series), rtol=1e-8)
    assert a.gaps.counts == b.gaps.counts
    assert (a.iterations, a.preemptions, a.hit_tokens) == (b.iterations, b.preemptions, b.hit_tokens)


GAIN, VERIFY = 2.3, 6
DRAFTING = constant_tables(0.01, 1e-5, 1e-4, sequences=32, tokens=2048, context=4096, gain=GAIN, verify=VERIFY)


def drafting_run(name: str, *, stepping: bool = False, tables: IterationTables = DRAFTING) -> Run:
    rules, totals = small(name), Totals()
    pool = Pool(6000 // rules.block, rules.block, fixed=rules.reserve == "whole", hashed=64, cache=LruCache(),
                ahead=tables.verify - 1)  # fmt: skip
    return Run([Replica(tables, rules, pool, totals, stepping=stepping)], totals, "round-robin")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_drafts_skip_as_they_step_and_serve_every_token_once(name: str) -> None:
    load = requests(7)
    runs = [drive(drafting_run(name, stepping=s), iter(load)) for s in (False, True)]
    a, b = (r.totals for r in runs)
    for series in ("ttft", "tpot", "e2e", "ended"):
        np.testing.assert_allclose(getattr(a, series), getattr(b, series), rtol=1e-8)
    assert (a.iterations, a.preemptions, a.hit_tokens) == (b.iterations, b.preemptions, b.hit_tokens)
    for run in runs:
        totals, replica = run.totals, run.replicas[0]
        assert totals.output_tokens == sum(r.output for r in load)
        assert totals.gaps.number == sum(r.output - 1 for r in load)
        assert replica.pool.available == replica.pool.blocks
        assert replica.owed == 0
        assert not any(replica.pool.phases)


def test_a_lone_request_ends_after_as_many_iterations_as_its_tokens_need() -> None:
    for output in (2, 10, 301):
        run = drive(drafting_run("vllm"), iter([Arrival(0.0, 100, output, ())]))
        decoded = math.ceil((output - 1) / GAIN - 1e-9)
        prompt = 0.01 + 1e-5 * 100
        assert run.totals.ended[0] == pytest.approx(prompt + decoded * (0.01 + 1e-4), rel=1e-6)


def test_drafts_that_gain_nothing_change_nothing_but_the_place_they_hold() -> None:
    load = requests(8, count=120, rate=4.0)
    plain = drive(new_run(small("vllm")), iter(load)).totals
    idle = constant_tables(0.01, 1e-5, 1e-4, sequences=32, tokens=2048, context=4096, gain=1.0, verify=1)
    same = drive(drafting_run("vllm", tables=idle), iter(load)).totals
    np.testing.assert_array_equal(plain.ended, same.ended)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("router", ROUTERS)
def test_every_token_of_every_request_is_served_once(name: str, router: str) -> None:
    load = requests(3)
    run = drive(new_run(small(name), replicas=3, router=router), iter(load))
    totals = run.totals
    assert len(totals.ended) == len(load)
    assert totals.output_tokens == sum(r.output for r in load)
    assert totals.gaps.number == sum(r.output - 1 for r in load)
    for replica in run.replicas:
        assert replica.pool.available == replica.pool.blocks
        assert replica.outstanding == 0
        assert not any(replica.pool.phases)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_memory_never_exceeds_its_blocks(name: str) -> None:
    run = new_run(small(name), tokens=2400)
    pool = run.replicas[0].pool
    record, seen = run.totals.iteration, []

    def watch(*args, **kwargs) -> None:
        seen.append((pool.free, pool.used))
        record(*args, **kwargs)

    run.totals.iteration = watch  # type: ignore[method-assign]
    drive(run, iter(requests(4)))
    assert min(free for free, _ in seen) >= 0
    assert max(used for _, used in seen) <= pool.blocks
    assert max(used for _, used in seen) > 0.8 * pool.blocks


def test_preemption_happens_only_where_blocks_are_not_reserved() -> None:
    counts = {n: drive(new_run(small(n), tokens=2400), iter(requests(4))).totals.preemptions for n in SCHEDULERS}
    assert counts["vllm"] > 0
    assert counts["trtllm-max-utilization"] > 0
    assert counts["trtllm-no-evict"] == counts["static"] == 0
    assert counts["sglang"] < counts["vllm"]


def test_no_request_starves_under_preemption() -> None:
    """First come, first served: the order of the first tokens follows the arrivals but for those in one iteration."""
    run = new_run(small("vllm"), tokens=2400, cache=False)
    load = requests(5, prefixes=False)
    drive(run, iter(load))
    bound = sum(0.01 + 1e-5 * (r.prompt + r.output) for r in load) * 3 + sum(r.output for r in load) * 0.0101
    assert max(run.totals.e2e) < bound


def test_the_same_seed_gives_the_same_result() -> None:
    load = Synthetic(20.0, 300, 80, 600, variation=2.0, length_variation=0.5, shared_prefix=128, groups=3, seed=7)
    a, b = (drive(new_run(small("vllm")), iter(load)).totals for _ in range(2))
    other = drive(new_run(small("vllm")), iter(Synthetic(20.0, 300, 80, 600, variation=2.0, seed=8))).totals
    assert a.ttft == b.ttft
    assert a.ended == b.ended
    assert a.ttft != other.ttft


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path) -> None:
    from perfmodel.serving.resume import Saver, load_run

    load, path = requests(6), tmp_path / "run"
    whole = drive(new_run(small("vllm"), replicas=2, router="cache-aware"), iter(load))
    half = drive(new_run(small("vllm"), replicas=2, router="cache-aware"), iter(load), most=120)
    Saver(path, "question")(half, now=True)
    again = load_run(path, "question", new_run(small("vllm"), replicas=2, router="cache-aware"))
    drive(again, iter(load))
    assert again.totals.ttft == whole.totals.ttft
    assert again.totals.ended == whole.totals.ended
    assert again.totals.gaps.counts == whole.totals.gaps.counts
    with pytest.raises(PerfmodelError, match="another question"):
        load_run(path, "another", new_run(small("vllm")))
    path.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(PerfmodelError, match="not a saved simulation"):
        load_run(path, "question", new_run(small("vllm")))


def test_latency_grows_with_the_rate() -> None:
    means = []
    for rate in (2.0, 4.0, 6.0, 8.0):
        load = Synthetic(rate, 200, 60, 3000, seed=1)
        totals = drive(new_run(small("vllm"), tokens=10**6), iter(load)).totals
        means.append((np.mean(totals.ttft), np.mean(totals.tpot)))
    for lower, higher in itertools.pairwise(means):
        assert lower[0] < higher[0]
        assert lower[1] < higher[1]


# --- queues with closed forms: one request at a time, one iteration each ------------------------------------------


def alone() -> Scheduler:
    return Scheduler("alone", "M/G/1", max_sequences=1, token_budget=1 << 20)


def wait(arrivals: list[Arrival], seconds_per_token: float) -> array:
    tables = constant_tables(0.0, seconds_per_token, sequences=1, tokens=40000, context=1 << 16)
    run = new_run(alone(), tokens=1 << 20, tables=tables, cache=False)
    drive(run, iter(arrivals))
    return run.totals.e2e


def poisson(rate: float, count: int, seed: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, count))


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_fixed_service_is_m_d_1(load: float) -> None:
    """Mean wait of M/D/1: ρ s / (2 (1 − ρ))."""
    service = 1.0
    times = poisson(load / service, 60_000, 11)
    e2e = np.array(wait([Arrival(float(t), 1000, 1) for t in times], service / 1000))
    expected = service + load * service / (2.0 * (1.0 - load))
    assert e2e.mean() == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_exponential_service_is_m_m_1(load: float) -> None:
    """Sojourn of M/M/1 is exponential with mean s / (1 − ρ)."""
    times = poisson(load, 60_000, 12)
    tokens = np.random.default_rng(13).geometric(1.0 / 2000.0, times.size)
    rows = [Arrival(float(t), int(n), 1) for t, n in zip(times, tokens, strict=True)]
    e2e = np.array(wait(rows, 1.0 / 2000.0))
    assert e2e.mean() == pytest.approx(1.0 / (1.0 - load), rel=0.05)
    assert np.percentile(e2e, 99) == pytest.approx(math.log(100.0) / (1.0 - load), rel=0.1)


# --- whether a load is carried ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "stable"), [(0.5, True), (0.9, True), (1.2, False), (3.0, False)])
def test_a_load_beyond_capacity_is_called_unstable(rate: float, stable: bool) -> None:
    tables = constant_tables(0.0, 1e-3, sequences=1, tokens=40000, context=1 << 16)
    run = new_run(alone(), tokens=1 << 20, tables=tables, cache=False)
    drive(run, iter([Arrival(float(t), 1000, 1) for t in poisson(rate, 4000, 14)]))
    verdict = stability(run.arrivals, run.outstanding, run.totals.ended)
    assert verdict.stable is stable
    if not stable:
        assert verdict.sustained == pytest.approx(1.0, rel=0.03)


# --- the prefix cache ---------------------------------------------------------------------------------------------


def test_the_block_unused_for_longest_goes_first() -> None:
    cache = LruCache()
    for ids in ((1, 2), (3,), (4,)):
        cache.insert(ids, 0, 0)
        cache.release(ids)
    cache.take((1, 2))
    cache.release((1, 2))
    assert cache.evict(2) == 2
    assert [cache.match((i,)) for i in (3, 4)] == [0, 0]
    assert cache.match((1, 2)) == 2
    cache.evict(1)
    assert cache.match((1, 2)) == 1, "the tail goes before the head"


def test_blocks_in_use_are_not_evicted_and_counted_once() -> None:
    cache = LruCache()
    assert cache.insert((1, 2), 0, 0) == ([1, 2], 0)
    cache.take((1, 2))
    cache.release((1, 2))
    assert (cache.held, cache.idle, cache.evict(5)) == (2, 0, 0)
    cache.release((1, 2))
    assert (cache.held, cache.idle) == (0, 2)


def test_a_shared_prefix_is_computed_once() -> None:
    ids = tuple(range(8))
    load = [Arrival(float(i), 8 * 64 + 10, 5, ids) for i in range(20)]
    totals = drive(new_run(small("vllm"), tokens=20_000), iter(load)).totals
    assert totals.hit_tokens == 19 * 8 * 64
    assert totals.ttft[0] > totals.ttft[1]
