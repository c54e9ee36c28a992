"""Pools request by request: every token once, skipping as stepping, links with known answers, and the closed form."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from perfmodel.insight.replicas import Options
from perfmodel.insight.simulation import simulate
from perfmodel.serving.arrivals import Synthetic
from perfmodel.serving.open_pools import hand_over, prompt_bytes, together
from perfmodel.serving.pool import Pool
from perfmodel.serving.pooled_simulation import Decoder, PooledRun, PrefillReplica, Transfer
from perfmodel.serving.prefix import LruCache
from perfmodel.serving.replica import Replica
from perfmodel.serving.resume import Saver, load_run
from perfmodel.serving.schedulers import SCHEDULERS, Scheduler, choose_scheduler
from perfmodel.serving.simulation import drive
from perfmodel.serving.statistics import Totals
from perfmodel.serving.tables import constant_tables
from perfmodel.solver.pooled import pool_problems
from perfmodel.specs.trace import Arrival
from perfmodel.techniques.settled import Plan
from tests.planning import neutral, setting
from tests.serving.test_replica import requests

PLAIN = constant_tables(0.01, 1e-5, 1e-4, sequences=32, tokens=2048, context=4096)
DRAFTING = constant_tables(0.01, 1e-5, 1e-4, sequences=32, tokens=2048, context=4096, gain=2.3, verify=6)


def new_run(
    rules: Scheduler, *, tokens: int = 6000, pools: tuple[int, int] = (2, 2), router: str = "round-robin",
    stepping: bool = False, tables=PLAIN, seconds: float = 1e-5, between: float = 0.0, prefill_tokens: int = 4000,
    answers: bool = False,
) -> PooledRun:  # fmt: skip
    """Pools of replicas whose link takes ``seconds`` per token of a prompt."""
    before, after = Totals(), Totals()
    transfer = Transfer.of(lambda n: seconds * n, 4096.0, between)
    whole = rules.reserve == "whole"
    first: list[Replica] = [
        PrefillReplica(
            tables, rules, Pool(prefill_tokens // rules.block, rules.block, fixed=whole, hashed=64, cache=LruCache()),
            before, stepping=stepping, transfer=transfer,
        )
        for _ in range(pools[0])
    ]  # fmt: skip
    then = [
        Decoder(
            Replica(
                tables, rules, Pool(tokens // rules.block, rules.block, fixed=whole, ahead=tables.verify - 1), after,
                stepping=stepping,
            )
        )
        for _ in range(pools[1])
    ]  # fmt: skip
    return PooledRun(first, after, router, decoders=then, answers=answers)  # type: ignore[arg-type]


def small(name: str) -> Scheduler:
    return choose_scheduler(name, max_sequences=32, token_budget=512)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("tables", [PLAIN, DRAFTING], ids=["plain", "drafting"])
@pytest.mark.parametrize("answers", [False, True])
def test_every_token_is_served_once_and_skipping_equals_stepping(name: str, tables, answers: bool) -> None:
    load = requests(5)
    runs = [drive(new_run(small(name), tables=tables, stepping=s, answers=answers), iter(load)) for s in (False, True)]
    a, b = (run.totals for run in runs)
    for series in ("ttft", "tpot", "e2e", "ended"):
        np.testing.assert_allclose(getattr(a, series), getattr(b, series), rtol=1e-8)
    assert (a.iterations, a.preemptions) == (b.iterations, b.preemptions)
    for run in runs:
        assert len(run.totals.ended) == len(load)
        assert run.totals.output_tokens == sum(r.output for r in load)
        assert run.totals.gaps.number == sum(r.output - 1 for r in load)
        for replica in run.prefill:
            held = sum(-(-tokens // replica.pool.block) for *_, tokens in replica.sending)
            assert (replica.outstanding, replica.pool.used) == (0, held)
        for decoder in run.decoders:
            assert decoder.outstanding == 0
            assert decoder.replica.pool.available == decoder.replica.pool.blocks
            assert not any(decoder.replica.pool.phases)


@pytest.mark.parametrize("router", ["round-robin", "least-loaded", "cache-aware"])
def test_little_room_to_decode_preempts_and_still_serves_all(router: str) -> None:
    load = requests(6)
    run = drive(new_run(small("vllm"), tokens=2000, router=router), iter(load))
    assert run.totals.preemptions > 0
    assert len(run.totals.ended) == len(load)
    assert run.totals.gaps.number == sum(r.output - 1 for r in load)


def test_a_lone_request_takes_the_sum_along_its_way() -> None:
    run = drive(new_run(small("vllm"), pools=(1, 1), seconds=1e-4, between=0.05), iter([Arrival(1.0, 400, 11)]))
    decode = 0.01 + 1e-4
    assert run.totals.ttft[0] == pytest.approx(0.01 + 1e-5 * 400 + 0.04 + 0.05 + decode, rel=1e-6)
    assert run.totals.e2e[0] == pytest.approx(run.totals.ttft[0] + 10 * decode, rel=1e-6)
    first = new_run(small("vllm"), pools=(1, 1), seconds=1e-4, between=0.05, answers=True)
    drive(first, iter([Arrival(1.0, 400, 11)]))
    assert first.totals.ttft[0] == pytest.approx(0.01 + 1e-5 * 400, rel=1e-6)
    assert first.totals.e2e[0] == pytest.approx(first.totals.ttft[0] + 0.09 + 10 * decode, rel=1e-6)


def test_a_narrow_link_is_a_queue_of_its_own_and_holds_the_blocks_of_its_sender() -> None:
    load = [Arrival(0.001 * i, 400, 2) for i in range(20)]
    run = drive(new_run(small("vllm"), pools=(1, 1), seconds=1e-3, prefill_tokens=800), iter(load))
    ended = sorted(run.totals.ended)
    assert np.diff(ended) == pytest.approx([0.4] * 19, abs=0.03), "one cache every 0.4 s"
    wide = drive(new_run(small("vllm"), pools=(1, 1), seconds=1e-3, prefill_tokens=80_000), iter(load))
    kept = (run.replicas[0].totals.iterations, wide.replicas[0].totals.iterations)
    assert kept[0] > kept[1], "prompts wait for blocks that are being sent, not in one iteration together"
    two = drive(new_run(small("vllm"), pools=(2, 1), seconds=1e-3), iter(load))
    assert max(two.totals.ended) == pytest.approx(max(ended), rel=0.02), "two senders, but one receiver"


def test_a_saved_run_goes_on_as_if_it_had_not_stopped(tmp_path) -> None:
    load = requests(9)
    whole = drive(new_run(small("vllm"), router="least-loaded"), iter(load))
    run = drive(new_run(small("vllm"), router="least-loaded"), iter(load), most=120)
    Saver(tmp_path / "run", "question")(run, now=True)
    again = load_run(tmp_path / "run", "question", new_run(small("vllm"), router="least-loaded"))
    np.testing.assert_array_equal(drive(again, iter(load)).totals.e2e, whole.totals.e2e)


@pytest.mark.parametrize(
    ("name", "rate", "tp", "variation"),
    [("llama8b", 10.0, 1, 0.0), ("llama8b", 24.0, 1, 0.0), ("llama8b", 24.0, 1, 0.5), ("llama70b", 8.0, 4, 0.0)],
)
def test_the_closed_form_of_pools_agrees(name: str, rate: float, tp: int, variation: float) -> None:
    """One replica each: the mean within 5 %, the percentiles within 10 %."""
    found = setting(name, "dgx-h100", "chat", changes={"slo.percentile": 90, "length_variation": variation})
    work, (first, second) = found.problem.situation.workload, pool_problems(found.problem)
    alone = Plan(**{**vars(neutral(found, tp=tp, batch=1)), "load": 1.0})
    x = Plan(**{**vars(alone), "load": rate / float(first.evaluate(alone).rate)})
    prefill = first.evaluate(x)
    batches = np.geomspace(1.0, 200.0, 400)
    rates = np.asarray(second.evaluate(neutral(found, tp=tp, batch=batches)).rate)
    decode = second.evaluate(neutral(found, tp=tp, batch=float(np.interp(rate, rates, batches))))
    moved = hand_over(second.network, prompt_bytes(decode), tp, 2 * tp) + second.framework["pool_hand_over"]
    form = together(
        prefill.tails.ttft, decode.tails.tpot, decode.tails.tbt(99.0), output=1.0 * work.output, moved=moved,
        turn=decode.pass_seconds, variation=variation,
    )  # fmt: skip
    load = Synthetic(rate, work.prompt, work.output, 6000, length_variation=variation)
    options = Options(choose_scheduler("vllm"), 1, 1, prefix_cache=False)
    run = simulate(found, neutral(found, tp=tp), load, options, prefill=neutral(found, tp=tp))
    assert run.metrics["prefill_utilisation"] == pytest.approx(x.load, rel=0.06)
    assert run.metrics["hand_over_seconds"] == pytest.approx(moved, rel=0.01)
    assert run.metrics["mean_batch"] == pytest.approx(decode.settled.batch, rel=0.05)
    for latency in ("ttft", "tpot", "e2e"):
        moments, seen = getattr(form, latency), run.latencies[latency]
        assert moments.mean == pytest.approx(seen.mean, rel=0.05 if latency == "ttft" else 0.03)
        for share in (50, 90):
            assert moments.percentile(share) == pytest.approx(getattr(seen, f"p{share}"), rel=0.10)
    assert form.gap == pytest.approx(run.gaps["p99"], rel=0.10)


def test_a_transfer_is_linear_between_its_knots() -> None:
    moved = Transfer.of(lambda n: 1e-3 + 1e-6 * n, 5000.0)
    assert [moved(n) for n in (1, 777, 5000)] == pytest.approx([1.001e-3, 1.777e-3, 6e-3])
    assert Transfer((1.0,), (0.5,))(inf) == 0.5
