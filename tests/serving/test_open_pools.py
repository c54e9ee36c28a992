"""Prefill and decode on pools of their own: queues with known answers, bounds, and what the planner chooses."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import perfmodel
from perfmodel.network.build import build_network
from perfmodel.serving.moments import Moments, queue_moments
from perfmodel.serving.open_pools import hand_over, together
from perfmodel.solver.pooled import PoolProblem, best_pair, pool_problems, pool_space
from tests.planning import setting, system


def test_the_wait_is_that_of_known_queues() -> None:
    one = queue_moments(0.5, 1.0, 1.0, variation=1.0)
    assert one.mean == pytest.approx(2.0), "M/M/1: 1 / (mu - lambda)"
    assert one.variance == pytest.approx(4.0), "its time in the system is exponential"
    assert queue_moments(0.8, 1.0, 1.0).mean == pytest.approx(1.0 + 0.8 / 0.4), "M/D/1"
    assert queue_moments(1e-9, 1.0, 3.0).mean == pytest.approx(3.0), "alone, a prompt takes its own time"


def test_simulated_queues_wait_as_long() -> None:
    rng, rate = np.random.default_rng(1), 0.7
    arrivals = np.cumsum(rng.exponential(1.0 / rate, 200_000))
    ends = np.maximum.accumulate(arrivals - np.arange(arrivals.size)) + np.arange(arrivals.size) + 1.0
    waits = ends - arrivals
    form = queue_moments(rate, 1.0, 1.0)
    assert waits.mean() == pytest.approx(form.mean, rel=0.03)
    for share in (90, 99):
        assert np.percentile(waits, share) == pytest.approx(form.percentile(share), rel=0.1)


def test_a_request_takes_the_sum_along_its_way() -> None:
    found = together(Moments(0.3, 0.01, 0.2), Moments(0.02, 1e-6, 0.0), 0.03, output=101.0, moved=0.1)
    assert found.ttft.mean == pytest.approx(0.3 + 0.1 + 0.02)
    assert found.e2e.mean == pytest.approx(0.3 + 0.1 + 101 * 0.02)
    assert found.tpot.mean == pytest.approx(0.02)
    assert found.e2e.variance == pytest.approx(0.01 + 100.0**2 * 1e-6)


def test_caches_move_slower_between_nodes_than_within_one() -> None:
    network = build_network(system("dgx-h100").cluster)
    size = 320e6
    inside, across = hand_over(network, size, 4.0, 8.0), hand_over(network, size, 4.0, 16.0)
    assert size / 4.0 / 450e9 < inside < across
    assert hand_over(network, size, 8.0, 16.0) < across
    both = hand_over(network, size, np.array([4.0, 4.0]), np.array([8.0, 16.0]))
    assert both == pytest.approx([inside, across])


def pools(**changes: object) -> tuple[tuple[PoolProblem, PoolProblem], object]:
    found = setting("llama70b", "dgx-h100", "chat", changes={"slo.percentile": 90, **changes})
    problems = pool_problems(found.problem)
    return problems, best_pair(problems, [pool_space(found.space, p) for p in ("prefill", "decode")])


def test_a_pair_carries_no_more_than_either_pool_and_keeps_its_limits() -> None:
    problems, pair = pools()
    replicas = [p.evaluate(x) for p, x in zip(problems, pair.plans, strict=True)]
    able = [float(r.rate) * n for r, n in zip(replicas, pair.replicas, strict=True)]
    assert pair.rate == pytest.approx(min(able))
    assert pair.devices == sum(round(float(r.devices)) * n for r, n in zip(replicas, pair.replicas, strict=True))
    assert max(pair.ratios.values()) <= 1.0 + 1e-9
    assert pair.request.ttft.percentile(90) <= 1.0
    assert pair.request.tpot.percentile(90) <= 0.05


def test_the_best_pair_is_that_of_trying_all() -> None:
    found = setting("llama8b", "dgx-h100", "chat", pin={"pp": 1, "ep": 1, "batch": (8, 32, 64)},
                    changes={"slo.percentile": 90, "slo.e2e": "6 s", "rate": "60 requests/s"})  # fmt: skip
    problems = pool_problems(found.problem)
    spaces = [pool_space(found.space, pool) for pool in ("prefill", "decode")]
    pair = best_pair(problems, spaces)
    least = math.inf
    rows = []
    for problem, space in zip(problems, spaces, strict=True):
        kept = [x for x in space.plans() if all(r <= 1.0 + 1e-9 for r in problem.form(x).values())]
        replicas = [(x, problem.evaluate(x)) for x in kept]
        rows.append([r for _, r in replicas if all(v <= 1.0 + 1e-9 for v in r.ratios.values())])
    for first, second in itertools.product(*rows):
        counts = [math.ceil(60.0 / float(r.rate) - 1e-9) for r in (first, second)]
        devices = sum(n * float(r.devices) for n, r in zip(counts, (first, second), strict=True))
        request = together(first.tails.ttft, second.tails.tpot, 0.0, output=256.0, moved=0.223)
        if request.e2e.percentile(90) <= 6.0:
            least = min(least, devices)
    assert pair.devices == least


def test_both_arrangements_are_answered_and_the_cheaper_is_chosen() -> None:
    asked = {"slo.percentile": 90, "rate": "120 requests/s"}
    either = perfmodel.plan("llama70b", "dgx-h100", "chat", workload_changes=asked).serving
    joint = perfmodel.plan("llama70b", "dgx-h100", "chat", workload_changes=asked, pools="together").serving
    apart = perfmodel.plan("llama70b", "dgx-h100", "chat", workload_changes=asked, pools="apart").serving
    assert either.best.devices <= min(joint.best.devices, apart.best.devices) / 0.99
    assert joint.other_arrangement is None
    assert {bool(either.best.pools), bool(either.other_arrangement.plan.pools)} == {True, False}
    assert either.other_arrangement.score_ratio >= 0.99
    m = apart.best.metrics
    paid = 1024 * m["usd_per_million_input_tokens"] + 256 * m["usd_per_million_generated_tokens"]
    assert paid == pytest.approx(256 * m["usd_per_million_output_tokens"])
    assert m["requests_per_second"] == pytest.approx(120.0)
    assert sum(pool.devices for pool in apart.best.pools.values()) == apart.best.devices
    assert 0.5 < apart.certificate.win_probability <= 1.0
    assert apart.best.interval.low < apart.best.seconds < apart.best.interval.high
    assert apart.best.power is not None
    assert sum(apart.best.power.values()) == pytest.approx(m["average_power_kw"])


def test_columns_of_one_pool_can_be_held() -> None:
    found = perfmodel.plan("llama70b", "dgx-h100", "chat", pin={"prefill.tp": 8, "decode.tp": 4}, pools="apart").serving
    assert found.best.columns["prefill.tp"] == 8
    assert found.best.columns["decode.tp"] == 4
    with pytest.raises(perfmodel.PerfmodelError, match="prefill"):
        perfmodel.plan("llama70b", "dgx-h100", "chat", pin={"prefil.tp": 8})


@pytest.mark.parametrize(
    ("model", "devices", "changes", "constraint"),
    [
        ("llama8b", 1, {"rate": "5 requests/s"}, "machine size"),
        ("llama70b", 3, {"rate": "1 requests/s"}, "machine size"),
        ("llama70b", 8, {"slo.ttft": "10 ms"}, "TTFT"),
    ],
)
def test_pools_that_are_asked_for_but_not_possible_say_what_they_lack(model, devices, changes, constraint) -> None:
    """Not silently another arrangement, which is named beside it where it is possible."""
    found = perfmodel.plan(model, "dgx-h100", "chat", devices=devices, workload_changes=changes, pools="apart").serving
    assert found.best is None
    assert found.rejected[0].constraint == constraint
    assert found.rejected[0].ratio > 1.0
    together = perfmodel.plan(model, "dgx-h100", "chat", devices=devices, workload_changes=changes, pools="together")
    assert (found.other_arrangement is None) == (together.serving.best is None)


def test_each_pool_is_sized_for_its_own_busiest_time() -> None:
    asked = {"slo.percentile": 90, "rate": "60 requests/s"}
    even = perfmodel.plan("llama8b", "dgx-h100", "chat", workload_changes=asked, pools="apart").serving.best
    more = {**asked, "prompt_peak": 2.0}
    peaked = perfmodel.plan("llama8b", "dgx-h100", "chat", workload_changes=more, pools="apart").serving.best
    prefill, decode = (peaked.pools[n].metrics["requests_per_second_at_most"] for n in ("prefill", "decode"))
    assert prefill >= 120.0 * (1.0 - 1e-9)
    assert decode >= 60.0 * (1.0 - 1e-9)
    assert peaked.devices > even.devices
    assert peaked.metrics["requests_per_second"] == pytest.approx(60.0)
