"""The search against a loop over single plans, block sizes against each other, the mesh against plain numbers."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from planning import setting

from perfmodel.errors import SpecError, UnknownName
from perfmodel.insight.setting import Setting
from perfmodel.solver import search as solver
from perfmodel.solver.problems import TrainingProblem
from perfmodel.solver.search import KEEP, NEAR, Outcome, search
from perfmodel.techniques.settled import Plan

ALL = 2.0**40


def training(name: str, machine: str, devices: int, pin: dict[str, Any], **options: Any) -> Setting:
    changes = {"sequence": 2048, "global_batch": 2048 * 256, **options.pop("changes", {})}
    return setting(name, machine, "pretrain", devices=devices, pin=pin, changes=changes, **options)


CASES: dict[str, Any] = {
    "dense on frontier": lambda: training(
        "llama-2-13b", "frontier", 64, {"tp": [1, 8], "pp": [1, 2, 4], "virtual": [1, 2], "cp": [1, 2],
                                        "micro_batch": [1, 2], "weights_group": [1, 2, ALL], "optimizer_host": [0, 1]},
    ),
    "dense with little memory": lambda: training(
        "llama-2-70b", "dgx-a100", 64, {"tp": [4, 8], "pp": [1, 2, 3, 8], "cp": 1, "micro_batch": [1, 3],
                                        "optimizer_group": [1, ALL], "optimizer_host": 0},
    ),
    "experts": lambda: training(
        "mixtral-8x7b", "dgx-h100", 64, {"tp": [1, 2], "pp": [1, 2], "cp": 1, "ep": [1, 8, 16],
                                         "micro_batch": [1, 2], "recompute": [0, 2], "optimizer_host": 0,
                                         "optimizer_group": ALL},
    ),
    "local steps": lambda: training(
        "llama-2-7b", "dgx-h100", 32, {"tp": [1, 2], "pp": 1, "cp": 1, "micro_batch": [1, 2], "optimizer_host": 0,
                                       "weights_group": 1, "recompute": 0},
        use=("local_steps", "compressed_collectives"), loss=0.02,
    ),
    "free device count": lambda: setting(
        "llama-2-7b", "h200-8x", "pretrain", objective="cost", changes={"sequence": 2048},
        pin={"devices": [2, 4, 8], "tp": [1, 2], "pp": [1, 2], "cp": 1, "micro_batch": [1, 4], "optimizer_host": 0},
    ),
    "chat": lambda: setting(
        "llama-3.1-70b", "h200-8x", "chat", pin={"pp": [1, 2, 3], "batch": [1, 6, 32, 64, 96, 128, 512]}
    ),
    "chat on two kinds of engine": lambda: setting(
        "llama-2-13b", "npu-pim", "chat", use=("packed_weights",),
        pin={"pp": [1, 2], "tp": [1, 4, 8], "batch": [1, 8, 40, 64, 128, 256]},
    ),
    "experts served": lambda: setting(
        "mixtral-8x22b", "dgx-h100", "chat", devices=16, pin={"pp": 1, "batch": [1, 8, 48, 256, 1024]},
        changes={"rate": "3 requests/s"},
    ),
}  # fmt: skip


def over_each(ratio: Any) -> Any:
    return ~(np.asarray(ratio) <= 1.0 + 1e-9)


def over(ratio: float) -> bool:
    return not ratio <= 1.0 + 1e-9


class Loop:
    """The slow, obvious search."""

    def __init__(self, found: Setting) -> None:
        self.legal = self.cells = 0
        self.rejected: Counter[str] = Counter()
        self.alone: Counter[str] = Counter()
        self.near: dict[tuple[str, int], list[float]] = {}
        self.best: dict[int, float] = {}
        self.scores: list[float] = []
        self.points: list[tuple[float, float]] = []
        for x in found.space.plans():
            self.cells += 1
            form = [n for n, r in found.problem.form(x).items() if over(r)]
            self.rejected.update(form)
            if form:
                continue
            judged = found.problem.judge(x)
            budget = [n for n, r in judged.budget.items() if over(float(r))]
            assert not [n for n, r in judged.form.items() if over(float(r))]
            self.rejected.update(budget)
            if len(budget) == 1:
                self.alone.update(budget)
                ratio = float(judged.budget[budget[0]])
                if ratio <= NEAR:
                    self.near.setdefault((budget[0], int(judged.devices)), []).append(ratio * float(judged.score))
            if not budget:
                self.legal += 1
                score, number = float(judged.score), int(judged.devices)
                self.scores.append(score)
                self.best[number] = min(score, self.best.get(number, math.inf))
                self.points.append((float(judged.seconds), score))


@cache
def looped(case: str) -> tuple[Setting, Loop]:
    found = CASES[case]()
    return found, Loop(found)


@pytest.fixture(params=[0, solver.WORTH_BOUNDING], ids=["bounded", "timed"])
def bounding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "WORTH_BOUNDING", request.param)


@pytest.mark.usefixtures("bounding")
@pytest.mark.parametrize("case", CASES)
def test_the_search_is_the_loop(case: str) -> None:
    found, loop = looped(case)
    outcome = search(found.space, found.problem)
    assert outcome.cells == loop.cells == found.space.cells
    assert outcome.legal == loop.legal
    assert loop.legal > 0
    assert {n: c for n, c in outcome.rejected.items() if c} == dict(loop.rejected)
    assert {n: c for n, c in outcome.alone.items() if c} == dict(loop.alone)
    assert outcome.best[0].score == pytest.approx(min(loop.scores), rel=1e-12)
    assert [c.score for c in outcome.best] == pytest.approx(sorted(loop.scores)[: len(outcome.best)], rel=1e-12)
    assert len(outcome.best) == min(KEEP, loop.legal)
    assert {n: c[0].score for n, c in outcome.by_devices.items()} == pytest.approx(loop.best, rel=1e-12)


@pytest.mark.usefixtures("bounding")
@pytest.mark.parametrize("case", CASES)
def test_what_was_found_is_what_a_single_plan_says(case: str) -> None:
    found = CASES[case]()
    outcome = search(found.space, found.problem)
    for candidate in [*outcome.best, *(m.candidate for m in outcome.near.values())]:
        judged = found.problem.judge(candidate.plan)
        assert candidate.score == pytest.approx(float(judged.score), rel=1e-9)
        assert candidate.devices == pytest.approx(float(judged.devices))
        assert candidate.seconds == pytest.approx(float(judged.seconds), rel=1e-9)
        assert not [n for n, r in found.problem.form(candidate.plan).items() if over(r)]
    for (name, _), miss in outcome.near.items():
        judged = found.problem.judge(miss.candidate.plan)
        failed = {n: float(r) for n, r in judged.budget.items() if over(float(r))}
        assert failed == pytest.approx({name: miss.ratio}, rel=1e-9)
    near = looped(case)[1].near
    assert {key: miss.plans for key, miss in outcome.near.items()} == {key: len(w) for key, w in near.items()}
    least = {key: min(weights) for key, weights in near.items()}
    assert {key: miss.weight for key, miss in outcome.near.items()} == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if "chat" not in c and "served" not in c])
def test_no_plan_is_faster_than_its_bound(case: str) -> None:
    found = CASES[case]()
    assert isinstance(found.problem, TrainingProblem)
    for slab in found.space.slabs():
        x = slab.columns()
        least, judged = found.problem.spent(x).least, found.problem.judge(x)
        formed = [~over_each(r) for r in found.problem.form(x).values()]
        shape = np.broadcast_shapes(np.shape(least), np.shape(judged.score), *(np.shape(f) for f in formed))
        where = np.broadcast_to(np.logical_and.reduce(np.broadcast_arrays(*formed)), shape)
        ratio = np.broadcast_to(least / judged.score, shape)[where]
        assert ratio.size
        assert (ratio <= 1.0 + 1e-9).all()
        assert ratio.max() > 0.7  # a bound that bounds


def test_what_is_not_timed_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = CASES["dense on frontier"]()
    monkeypatch.setattr(solver, "WORTH_BOUNDING", 0)
    bounded = search(found.space, found.problem, limit=300)
    spent = type(found.problem).spent
    monkeypatch.setattr(type(found.problem), "spent", lambda self, x: spent(self, x)._replace(least=None))
    every = search(found.space, found.problem, limit=300)
    assert summary(bounded) == summary(every)
    assert bounded.timed < every.timed
    assert [c.plan for c in bounded.best] == [c.plan for c in every.best]


def summary(outcome: Outcome) -> dict[str, Any]:
    return {
        "counts": (outcome.cells, outcome.legal, outcome.left_out),
        "rejected": dict(outcome.rejected),
        "alone": dict(outcome.alone),
        "near": {k: (m.plans, round(m.ratio * m.candidate.score, 9)) for k, m in outcome.near.items()},
    }


@pytest.mark.parametrize("case", ["dense on frontier", "experts", "chat", "free device count"])
@pytest.mark.parametrize("limit", [17, 300])
def test_blocks_of_any_size_give_the_same_answer(case: str, limit: int) -> None:
    found = CASES[case]()
    whole, parts = (search(found.space, found.problem, limit=n) for n in (None, limit))
    assert summary(parts) == summary(whole)
    assert [c.score for c in parts.best] == pytest.approx([c.score for c in whole.best], rel=1e-12)
    for number, candidates in whole.by_devices.items():
        again = [c.score for c in parts.by_devices[number]]
        assert again == pytest.approx([c.score for c in candidates], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "machine", "workload", "use"),
    [
        ("llama-2-70b", "frontier", "pretrain", ("local_steps", "compressed_collectives")),
        ("deepseek-v3", "dgx-h100", "pretrain", ()),
        ("llama-3.1-70b", "npu-pim", "chat", ("packed_weights",)),
        ("deepseek-v3", "dgx-h100", "chat", ()),
    ],
)
def test_mesh_cells_equal_single_plans(name: str, machine: str, workload: str, use: tuple[str, ...]) -> None:
    found = setting(name, machine, workload, use=use, devices=512 if machine == "frontier" else None)
    rng = np.random.default_rng(41)
    compared = 0
    slabs = list(found.space.slabs())
    for slab in slabs:
        lanes = [lane._replace(table=lane.table[np.sort(rng.permutation(len(lane.table))[:6])]) for lane in slab.lanes]
        block = slab._replace(lanes=tuple(lanes))
        step = found.problem.judge(block.columns())
        form = found.problem.form(block.columns())
        for index in rng.choice(block.cells, size=min(block.cells, math.ceil(900 / len(slabs))), replace=False):
            x = block.plan(int(index))
            where = np.unravel_index(int(index), block.shape)
            single = found.problem.judge(x)
            arrays = {"score": (step.score, single.score), "seconds": (step.seconds, single.seconds)}
            arrays |= {n: (step.budget[n], r) for n, r in single.budget.items()}
            arrays |= {n: (form[n], r) for n, r in found.problem.form(x).items()}
            for what, (mesh, one) in arrays.items():
                cell = float(np.broadcast_to(mesh, block.shape)[where])
                assert cell == pytest.approx(float(one), rel=1e-9, nan_ok=True), (what, vars(x))
            compared += 1
    assert compared >= 500  # four cases: more than 2,000 together


# --- the space ----------------------------------------------------------------------------------------------------


def test_a_pinned_column_takes_its_value() -> None:
    found = training("llama-2-7b", "dgx-h100", 16, {"tp": 4, "micro_batch": [1, 2]})
    values = {(x.tp, x.micro_batch) for x in found.space.plans()}
    assert values == {(4.0, 1.0), (4.0, 2.0)}
    assert {x.devices for x in found.space.plans()} == {16.0}


def test_a_pinned_value_may_be_new_to_the_axis() -> None:
    found = training("llama-2-7b", "dgx-h100", 16, {"micro_batch": 3})
    assert {x.micro_batch for x in found.space.plans()} == {3.0}


def test_chunks_that_do_not_divide_the_layers_are_illegal() -> None:
    """Five stages of two chunks cannot hold 32 layers evenly, pinned or not."""
    pin = {"pp": 5, "virtual": 2, "tp": 1, "cp": 1}
    found = training("llama-2-7b", "dgx-h100", 40, pin, changes={"global_batch": 2048 * 80})
    outcome = search(found.space, found.problem)
    assert outcome.legal == 0
    assert outcome.rejected["layers"] == outcome.cells


@pytest.mark.parametrize(
    ("pin", "error"),
    [({"typo": 1}, UnknownName), ({"packed_weights": "awq-int4-g128"}, UnknownName), ({"tp": -1}, SpecError)],
)
def test_a_pin_that_makes_no_sense_says_so(pin: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        training("llama-2-7b", "dgx-h100", 16, pin)


def test_a_joint_axis_counts_what_it_leaves_out() -> None:
    found = training("llama-2-7b", "dgx-h100", 16, {})
    whole = math.prod(len(a.values) + a.left_out for a in (*found.space.structural, *found.space.numeric))
    assert found.space.left_out == whole - found.space.cells > 0


def test_nothing_legal_names_what_comes_nearest() -> None:
    found = training("llama-3.1-405b", "dgx-a100", 8, {"optimizer_host": 0})
    outcome = search(found.space, found.problem)
    assert outcome.legal == 0
    assert not outcome.best
    assert outcome.closest is not None
    ratio, name, candidate = outcome.closest
    assert name == "hbm memory"
    assert ratio > 1.0
    assert not [n for n, r in found.problem.form(candidate.plan).items() if over(r)]
    worst = [
        max(map(float, found.problem.judge(x).budget.values()))
        for x in found.space.plans()
        if not any(over(r) for r in found.problem.form(x).values())
    ]
    assert ratio == pytest.approx(min(worst))


def test_memory_stays_bounded() -> None:
    """Millions of plans in blocks: the peak follows the block, not the space."""
    found = setting("llama-2-70b", "frontier", "pretrain", use=("local_steps",))
    assert found.space.cells > 1_000_000
    tracemalloc.start()
    outcome = search(found.space, found.problem, limit=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome.legal > 0
    assert peak < 400e6


# --- the front ----------------------------------------------------------------------------------------------------


def test_the_front_holds_what_nobody_beats() -> None:
    found = CASES["chat"]()
    outcome, loop = search(found.space, found.problem), Loop(found)
    front = [(c.seconds, c.score) for c in outcome.front]
    assert front
    for a in front:
        assert not any(b[0] <= a[0] * (1 - 1e-9) and b[1] <= a[1] * (1 - 1e-9) for b in loop.points)
    for seconds, score in loop.points:
        assert any(f[0] <= seconds * (1 + 1e-9) and f[1] <= score * (1 + 1e-9) for f in front)


def test_quality_unknown_is_never_chosen_unasked() -> None:
    """A budget admits published losses only; the name of a technique admits it without."""
    unknown = setting("llama-2-13b", "h200-8x", "chat", loss=0.05, pin={"packed_weights": "awq-int4-g128", "pp": 1})
    asked = setting(
        "llama-2-13b", "h200-8x", "chat", use=("packed_weights",), pin={"packed_weights": "awq-int4-g128", "pp": 1}
    )
    loss = unknown.problem.evaluate(next(unknown.space.plans())).settled.layout.quality_loss
    if math.isnan(loss):
        outcome = search(unknown.space, unknown.problem)
        assert outcome.legal == 0
        assert outcome.rejected["quality"] > 0
    assert search(asked.space, asked.problem).legal > 0


def test_local_steps_of_unknown_loss_are_rejected() -> None:
    found = training("llama-3.1-405b", "frontier", 2048, {"tp": 8, "regions": 2}, loss=0.5)
    outcome = search(found.space, found.problem)
    assert outcome.legal == 0
    x = next(found.space.plans())
    assert math.isnan(float(found.problem.evaluate(Plan(**vars(x))).settled.layout.quality_loss))
