"""Answers: certificates add up, fronts are not dominated, rivals lose, intervals hold what they are about."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from planning import setting

from perfmodel.insight.planner import answer
from perfmodel.solver.evaluate import evaluate_plan
from perfmodel.solver.result import Answer
from perfmodel.techniques.settled import Plan

QUESTIONS: dict[str, dict[str, Any]] = {
    "train on frontier": {"model_name": "llama-2-70b", "machine": "frontier", "workload": "pretrain"},
    "train experts": {"model_name": "mixtral-8x7b", "machine": "dgx-h100", "workload": "pretrain", "devices": 64},
    "chat": {"model_name": "llama-3.1-70b", "machine": "h200-8x", "workload": "chat"},
    "chat beside memory": {"model_name": "llama-2-13b", "machine": "npu-pim", "workload": "chat"},
    "too small": {"model_name": "llama-3.1-405b", "machine": "rtx-4090", "workload": "chat"},
}


@cache
def answered(question: str) -> tuple[Any, Answer]:
    found = setting(**QUESTIONS[question])
    return found, answer(found)


POSSIBLE = [q for q in QUESTIONS if q != "too small"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_certificates_add_up(question: str) -> None:
    found, given = answered(question)
    certificate = given.certificate
    assert certificate.candidates == found.space.cells
    assert certificate.left_out == found.space.left_out
    assert 0 <= certificate.legal <= certificate.candidates
    assert max(certificate.rejected.values(), default=0) + certificate.legal <= certificate.candidates
    assert sum(certificate.rejected.values()) + certificate.legal >= certificate.candidates
    for name, count in certificate.rejected_alone.items():
        assert count <= certificate.rejected[name]
    product = 1
    for _, size in certificate.axes:
        product *= size
    assert product == certificate.candidates
    assert certificate.exhaustive


@pytest.mark.parametrize("question", POSSIBLE)
def test_the_best_plan_is_what_its_columns_say(question: str) -> None:
    found, given = answered(question)
    best = given.best
    assert best is not None
    assert best.legal
    again = evaluate_plan(found.problem, Plan(**best.columns))
    assert again.seconds == best.seconds
    assert sum(row.seconds for row in best.terms) == pytest.approx(best.timed_seconds, rel=1e-9)
    assert sum(row.share for row in best.terms) == pytest.approx(1.0)
    assert 0.0 < best.bound_seconds <= best.timed_seconds
    product = 1
    for degree in best.degrees:
        product *= degree.degree
    replicas = best.metrics.get("replicas", 1.0)
    assert product * replicas == best.devices
    for ledger in best.ledgers:
        for tier, total in ledger.totals.items():
            assert total == pytest.approx(sum(line.bytes for line in ledger.lines if line.tier == tier))
            assert total <= ledger.capacities[tier] * (1 + 1e-9)


@pytest.mark.parametrize("question", POSSIBLE)
def test_rivals_lose_and_intervals_hold(question: str) -> None:
    _, given = answered(question)
    best = given.best
    assert all(rival.score_ratio >= 1.0 - 1e-12 for rival in given.runners_up)
    ratios = [rival.score_ratio for rival in given.runners_up]
    assert ratios == sorted(ratios)
    assert best.interval.low < best.seconds < best.interval.high
    certificate = given.certificate
    if certificate.win_probability is not None:
        assert 0.0 <= certificate.win_probability <= 1.0
        assert certificate.regret >= 0.0
        assert certificate.runner_up_gap >= 0.0


@pytest.mark.parametrize("question", POSSIBLE)
def test_the_front_is_not_dominated(question: str) -> None:
    _, given = answered(question)
    points = [(p.x, p.y) for p in given.pareto]
    assert points
    for a in points:
        assert not [b for b in points if b != a and b[0] >= a[0] and b[1] >= a[1]]


@pytest.mark.parametrize("question", QUESTIONS)
def test_rejected_plans_break_the_constraint_they_are_shown_for(question: str) -> None:
    _, given = answered(question)
    for rejected in given.rejected:
        assert rejected.ratio > 1.0


def test_what_cannot_be_says_what_binds() -> None:
    _, given = answered("too small")
    assert given.best is None
    assert given.rejected
    assert "memory" in given.rejected[0].constraint


def test_scaling_chooses_the_largest_efficient_count() -> None:
    _, given = answered("train on frontier")
    chosen = [row for row in given.scaling if row[3]]
    assert len(chosen) == 1
    efficient = [row for row in given.scaling if row[2] >= 0.9]
    assert chosen[0] == max(efficient, key=lambda row: row[0])
    assert max(row[2] for row in given.scaling) == pytest.approx(1.0)


def test_the_same_question_has_the_same_answer() -> None:
    found, given = answered("chat")
    again = answer(found)
    assert again.best == given.best
    assert again.certificate.win_probability == given.certificate.win_probability


BETTER = ["accelerator.peak.matrix.bf16", "accelerator.memory.hbm.bandwidth", "accelerator.memory.hbm.capacity"]


@pytest.mark.parametrize("fact", BETTER)
@pytest.mark.parametrize("question", ["train experts", "chat"])
def test_a_better_machine_has_no_worse_plan(question: str, fact: str) -> None:
    """Twice the rate, bandwidth or capacity: the best score, over all plans, does not get worse."""
    asked = QUESTIONS[question]
    before = answered(question)[1].best
    after = answer(setting(**asked, machine_changes={fact: "x2"})).best
    key = "step_seconds" if asked["workload"] == "pretrain" else "output_tokens_per_second_per_device"
    ratio = after.metrics[key] / before.metrics[key]
    assert ratio <= 1.0 + 1e-9 if key == "step_seconds" else ratio >= 1.0 - 1e-6


@pytest.mark.parametrize(("name", "warned"), [("llama-2-70b", True), ("llama-2-7b", False)])
def test_a_nearly_full_device_is_said(name: str, warned: bool) -> None:
    """Above seven eighths of its memory a step may stall; a plan with room to spare says nothing of it."""
    pin = {"tp": 4, "recompute": 0} if warned else {"tp": 2, "micro_batch": 1}
    found = answer(setting(name, "dgx-h100", "pretrain", devices=64, pin=pin))
    assert found.best is not None
    share = max(ledger.totals["hbm"] / ledger.capacities["hbm"] for ledger in found.best.ledgers)
    assert (share > 0.875) == warned == any("allocator" in text for text, _ in found.assumptions)
