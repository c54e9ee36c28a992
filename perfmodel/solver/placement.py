"""Continuous shares solved exactly: a linear programme over the same tree of terms that plans are evaluated with.

A technique may say that its terms, ledger lines and legality are affine in some of its columns. For every choice of
the other columns the time of a pass is then a sum of maxima of affine functions, and the tiers' capacities are affine
limits: a linear programme, which HiGHS solves with a dual bound. What it finds is evaluated again like any plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.phases.compose import Longest, Node, Serial, Slot, Times
from perfmodel.serving.steady import Replica
from perfmodel.solver.problems import ServingProblem, TrainingProblem, is_budget
from perfmodel.solver.result import Placement
from perfmodel.solver.search import Candidate, Outcome
from perfmodel.solver.space import Space
from perfmodel.techniques.settled import Plan

__all__ = ["placed_exactly", "solve_shares"]

Vector = NDArray[np.float64]
INSIDE, STEP = 0.02, 0.04
"""Shares at which the affine forms are read off: all inside, then each a step further."""
MARGIN = 1e-5
"""Share of a capacity left to the tolerance of the solver, and to shares typed with six digits."""
TIE = 1e-7
"""What a share costs beside its time, of the dearest: where it makes no difference, things stay on the device."""
LATENCIES = ("TTFT", "TPOT", "end-to-end", "quality", "rate")
PROGRAMMES, SPARSE = 32, 8
"""Most choices of the other columns for which the shares are solved, and sizes of the batch among them at first."""


class _Programme:
    """Variables: the shares, then one time for every maximum; rows ``A v <= b``."""

    def __init__(self, shares: int) -> None:
        self.shares, self.maxima = shares, 0
        self.rows: list[tuple[Vector, float, dict[int, float]]] = []

    def affine(self, values: Any) -> tuple[Vector, float]:
        """Slopes and constant of what was evaluated at the base point and one step along every share."""
        if not isinstance(values, np.ndarray) or values.size == 1:
            return np.zeros(self.shares), float(np.asarray(values).reshape(-1)[0])
        flat = values.reshape(-1).astype(float)
        slopes = (flat[1:] - flat[0]) / STEP
        return slopes, float(flat[0] - INSIDE * slopes.sum())

    def at_least(self, forms: Sequence[_Form]) -> _Form:
        """A variable no less than any of the forms: their maximum where it is minimised."""
        if all(not form.slopes.any() and not form.times for form in forms):
            return _Form(np.zeros(self.shares), max(form.constant for form in forms), {})
        new = self.maxima
        self.maxima += 1
        for form in forms:
            self.rows.append((form.slopes, -form.constant, {**form.times, new: form.times.get(new, 0.0) - 1.0}))
        return _Form(np.zeros(self.shares), 0.0, {new: 1.0})

    def of(self, node: Node) -> _Form:
        """Time of a subtree."""
        if isinstance(node, Slot):
            return self.at_least([_Form(*self.affine(path), {}) for path in node.paths()])
        if isinstance(node, Times):
            return self.of(node.child).times_by(float(np.asarray(node.count).reshape(-1)[0]))
        if isinstance(node, Longest):
            return self.at_least([self.of(child) for child in node.children])
        if isinstance(node, Serial):
            form = _Form(np.zeros(self.shares), 0.0, {})
            for child in node.children:
                form = form.plus(self.of(child))
            return form
        raise TypeError(f"{type(node).__name__} has no linear form")


class _Form(NamedTuple):
    """Affine in the shares and in the maxima."""

    slopes: Vector
    constant: float
    times: Mapping[int, float]

    def times_by(self, count: float) -> _Form:
        return _Form(self.slopes * count, self.constant * count, {i: c * count for i, c in self.times.items()})

    def plus(self, other: _Form) -> _Form:
        times = dict(self.times)
        for i, c in other.times.items():
            times[i] = times.get(i, 0.0) + c
        return _Form(self.slopes + other.slopes, self.constant + other.constant, times)


def solve_shares(
    problem: ServingProblem, x: Plan, shares: Sequence[str], weights: tuple[float, float] = (1.0, 0.0)
) -> tuple[Plan, float] | None:
    """Shares that minimise a sum of the decode and the prefill pass, all else as in ``x``.

    Parameters
    ----------
    problem : how plans are judged.
    x : the plan.
    shares : columns to solve for, each between 0 and 1.
    weights : of the decode pass and of the prefill of one prompt.

    Returns
    -------
    tuple or None
        The plan with its shares, and the optimum [s]; ``None`` if no shares fit.
    """
    from scipy.optimize import linprog

    if not shares:
        return x, float(problem.evaluate(x).pass_seconds)
    count = len(shares)
    points = np.full((count, count + 1), INSIDE) + STEP * np.eye(count, count + 1, 1)
    replica: Replica = problem.evaluate(Plan(**{**vars(x), **dict(zip(shares, points, strict=True))}))
    programme = _Programme(count)
    decode, prefill = programme.of(replica.decode), programme.of(replica.prefill)
    goal = decode.times_by(weights[0]).plus(prefill.times_by(weights[1]))
    for name, ratio in replica.ratios.items():
        if name not in LATENCIES:
            slopes, constant = programme.affine(ratio)
            if slopes.any():
                limit = 1.0 - MARGIN if is_budget(name) else 1.0
                programme.rows.append((slopes, limit - constant, {}))
            elif constant > 1.0 + 1e-9:
                return None
    size = count + programme.maxima
    matrix, limits = np.zeros((len(programme.rows), size)), np.zeros(len(programme.rows))
    for i, (slopes, limit, times) in enumerate(programme.rows):
        matrix[i, :count], limits[i] = slopes, limit
        for j, c in times.items():
            matrix[i, count + j] = c
    cost = np.zeros(size)
    cost[:count] = goal.slopes + TIE * np.abs(goal.slopes).max()
    for j, c in goal.times.items():
        cost[count + j] = c
    bounds = [(0.0, 1.0)] * count + [(0.0, None)] * programme.maxima
    scale = np.maximum(np.abs(matrix).max(axis=1), 1e-300)
    found = linprog(cost, A_ub=matrix / scale[:, None], b_ub=limits / scale, bounds=bounds, method="highs")
    if not found.success:
        return None
    values = [float(v) if v > 1e-9 else 0.0 for v in found.x[:count]]
    return Plan(**{**vars(x), **dict(zip(shares, values, strict=True))}), float(
        found.fun + goal.constant - TIE * np.abs(goal.slopes).max() * found.x[:count].sum()
    )


def placed_exactly(problem: TrainingProblem | ServingProblem, space: Space, outcome: Outcome) -> Placement | None:
    """Solve for the shares of the best plans on the grid, or of the nearest if none is legal.

    The best of every kind is solved, the two best kinds with sizes of the batch over the whole range, and the best of
    all with sizes nearer and nearer to its own.
    """
    shares = _free(problem, space)
    if not shares or not isinstance(problem, ServingProblem):
        return None
    grid = outcome.best[0] if outcome.best else None
    output = float(problem.situation.workload.output)
    tried: set[tuple[Any, ...]] = set()

    def attempt(x: Plan, free: Sequence[str]) -> None:
        found = solve_shares(problem, x, free, (output, float(x.batch)))
        if found is not None:
            _keep(problem, outcome, found[0])

    def solve(plans: Iterable[Plan]) -> None:
        for x in plans:
            key = tuple(sorted((n, v) for n, v in vars(x).items() if n not in shares))
            if key not in tried and len(tried) < PROGRAMMES:
                tried.add(key)
                attempt(x, shares)

    starts, sizes = _starts(problem, outcome, space), _batches(space)
    gap = max(len(sizes) // SPARSE, 1)
    solve(starts[: PROGRAMMES // 2])
    solve(_with_batch(x, b) for x in starts[:2] for b in sizes[::gap])
    while outcome.best and (gap := gap // 2):
        best = outcome.best[0].plan
        at = sizes.index(best.batch) if best.batch in sizes else 0
        solve(_with_batch(best, sizes[i]) for i in (at - gap, at + gap) if 0 <= i < len(sizes))
    if not outcome.best:
        return None
    attempt(outcome.best[0].plan, _used(outcome.best[0].plan, shares))
    best = outcome.best[0].plan
    bounds = [found[1] for free in dict.fromkeys((tuple(shares), _used(best, shares)))
              if (found := solve_shares(problem, best, free))]  # fmt: skip
    chosen, before = (float("nan") if c is None else float(problem.evaluate(c.plan).pass_seconds)
                      for c in (outcome.best[0], grid))  # fmt: skip
    return Placement(len(tried), before, chosen, min(bounds, default=float("nan")))


def _used(x: Plan, shares: Sequence[str]) -> tuple[str, ...]:
    """Shares that a plan has: what streams needs buffers, so that a plan without is none of a programme with."""
    return tuple(name for name in shares if getattr(x, name) > 0.0)


def _batches(space: Space) -> list[float]:
    """Sizes of the batch that are searched, ascending."""
    return next((sorted({float(v[0]) for v in a.values}) for a in space.numeric if a.columns == ("batch",)), [])


def _with_batch(x: Plan, batch: float) -> Plan:
    return Plan(**{**vars(x), "batch": batch})


def _starts(problem: ServingProblem, outcome: Outcome, space: Space) -> list[Plan]:
    """Best plan of every kind found on the grid; without any legal one, the nearest, with every kind in its place."""
    kinds: dict[tuple[Any, ...], Plan] = {}
    if outcome.best:
        for candidate in (*outcome.best, *sorted(outcome.front, key=lambda c: c.score)):
            kinds.setdefault(_kind(candidate.plan), candidate.plan)
        return list(kinds.values())
    if outcome.closest is None:
        return []
    nearest = vars(outcome.closest[2].plan)
    for values in product(*(axis.values for axis in space.structural)):
        columns = {n: v for axis, chosen in zip(space.structural, values, strict=True)
                   for n, v in zip(axis.columns, chosen, strict=True)}  # fmt: skip
        for batch in (nearest["batch"], 1.0):
            x = Plan(**{**nearest, **columns, **_switched_off(problem, columns), "batch": batch})
            kinds[(*_kind(x), batch)] = x
    return list(kinds.values())


def _switched_off(problem: ServingProblem, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Neutral values of every column of a technique whose names among ``columns`` are neutral."""
    off: dict[str, Any] = {}
    for technique in problem.techniques:
        named = technique.neutral.keys() & columns.keys()
        if named and all(columns[n] == technique.neutral[n] for n in named):
            off.update(technique.neutral)
    return off


def _kind(x: Plan) -> tuple[Any, ...]:
    """Columns that take names."""
    return tuple(v for v in vars(x).values() if isinstance(v, str))


def _free(problem: TrainingProblem | ServingProblem, space: Space) -> tuple[str, ...]:
    """Continuous columns that the search varies."""
    named = {name for t in problem.techniques for name in t.continuous}
    found = []
    for axis in space.numeric:
        for i, name in enumerate(axis.columns):
            if name in named and len({v[i] for v in axis.values}) > 1:
                found.append(name)
    return tuple(found)


def _keep(problem: ServingProblem, outcome: Outcome, x: Plan) -> None:
    """Add a solved plan to the outcome if it is legal."""
    judged = problem.judge(x)
    if any(not float(r) <= 1.0 + 1e-9 for r in (*judged.budget.values(), *judged.form.values())):
        return
    candidate = Candidate(float(judged.score), float(judged.devices), float(judged.seconds), x)
    outcome.by_devices.setdefault(int(candidate.devices), []).append(candidate)
    outcome.by_devices[int(candidate.devices)].sort(key=lambda c: c.score)
    outcome.legal += 1
