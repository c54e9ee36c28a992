"""Closed forms of pipeline schedules against a simulation of every pass."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from planning import neutral, setting

from perfmodel.phases.pipeline import Pass, interleaved_order, plain_order, simulate
from perfmodel.techniques.zero_bubble import SCHEDULES

SIZES = [(2, 4), (4, 8), (4, 24), (8, 16), (8, 15)]


def peak(passes: list[Pass], last: str) -> int:
    """Most micro-batches (chunks of them) between their forward pass and their last one."""
    return max(itertools.accumulate(1 if p.kind == "F" else -1 if p.kind == last else 0 for p in passes))


@pytest.mark.parametrize(("p", "m"), SIZES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_bubble_closed_forms_are_exact(name: str, p: int, m: int) -> None:
    """For passes of any length: over the busy time, idle time as by the formula; memory as by the formula."""
    rng = np.random.default_rng(7)
    schedule = SCHEDULES[name]
    for forward, inputs, weights in rng.uniform(0.1, 2.0, (60, 3)):
        times = {"F": forward, "B": inputs, "W": weights}
        orders = [[(k, j, 0) for k, j in schedule.order(p, m, i)] for i in range(p)]
        stages = simulate(orders, [times] * p)
        begun = [s[0].start if schedule.staggered else 0.0 for s in stages]
        elapsed = max(s[-1].end - start for s, start in zip(stages, begun, strict=True))
        idle = elapsed - m * (forward + inputs + weights)
        assert idle == pytest.approx((p - 1) * schedule.bubble(forward, inputs, weights), abs=1e-9)
        assert max(peak(s, "W") for s in stages) == schedule.held(p) <= m


def test_published_bubbles() -> None:
    """Table 2 of arXiv:2401.10241 for passes of one length: 3(p - 1), p - 1 and none."""
    assert SCHEDULES["zb-h1"].bubble(1.0, 1.0, 1.0) == 1.0
    assert SCHEDULES["zb-h2"].bubble(1.0, 1.0, 1.0) == 0.0


@pytest.mark.parametrize(("p", "m", "v"), [(4, 8, 1), (4, 8, 2), (8, 16, 4), (2, 6, 3)])
def test_interleaved_orders_have_the_bubble_of_their_formula(p: int, m: int, v: int) -> None:
    times = {"F": 1.0 / v, "B": 2.0 / v}
    order = [plain_order(p, m, i) if v == 1 else interleaved_order(p, m, v, i) for i in range(p)]
    end = max(s[-1].end for s in simulate(order, [times] * p, v))
    assert end == pytest.approx(3.0 * m + 3.0 * (p - 1) / v)


def test_orders_that_wait_for_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="wait"):
        simulate([[("B", 0, 0), ("F", 0, 0)]], [{"F": 1.0, "B": 1.0}])


def test_fewer_bubbles_cost_memory() -> None:
    """A 70B model on 16 stages: each schedule idles less than the one before, and the last keeps the most."""
    found = setting("llama-2-70b", "dgx-h100", "pretrain", devices=128, use=("zero_bubble",))
    steps = {name: found.problem.evaluate(neutral(found, tp=8, pp=8, schedule=name)) for name in ("1f1b", *SCHEDULES)}
    bubbles = [float(step.tree.children[1].elapsed()) for step in steps.values()]
    assert bubbles[0] > bubbles[1] > bubbles[2] >= 0.0
    assert len({float(step.micro_batches_seconds) for step in steps.values()}) == 1

    def kept(name: str, stage: str) -> float:
        return sum(float(line.bytes) for line in steps[name].ledgers[stage] if line.name == "activations")

    assert kept("zb-h1", "first") == kept("1f1b", "first")
    assert kept("zb-h1", "last") > kept("1f1b", "last")
    assert kept("zb-h2", "first") == pytest.approx(15 / 8 * kept("1f1b", "first"))


def test_one_stage_has_no_schedule() -> None:
    found = setting("llama-2-7b", "dgx-h100", "pretrain", devices=8, use=("zero_bubble",))
    assert found.problem.form(neutral(found, schedule="zb-h1"))["zero bubble"] > 1.0
