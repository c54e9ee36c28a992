"""Exhaustive search: blocks are evaluated at once, judged by masks that count, and only the best are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from perfmodel.elementwise import Scalar
from perfmodel.solver.outcome import KEEP, Candidate, Judged, NearMiss, Outcome, Timed
from perfmodel.solver.space import BLOCK_CELLS, NEAR, Block, Cells, Space
from perfmodel.techniques.settled import Plan

__all__ = ["KEEP", "NEAR", "Candidate", "Judged", "NearMiss", "Outcome", "Problem", "Spent", "search"]

SMALL_BLOCK = 30_000
"""Cells per block of a small space: arrays that the allocator reuses instead of asking the system for pages."""
WORTH_NARROWING = 0.25
"""Share of what is left of the mesh that a constraint must reject for its dimensions to become one of survivors."""
FIRST = 0.125
"""Share of a block, the most promising plans, that is timed before the rest is held against what they reach."""
WORTH_BOUNDING = 300_000
"""Well-formed plans of a slab below which all are timed at once: bounds would cost what they save."""
TIMED_AT_ONCE = 4096
"""Plans that are not worth dividing."""


class Spent(NamedTuple):
    """What is known of a block without the time of any exchange.

    Parameters
    ----------
    budget, form : as in :class:`Judged`.
    least : score below which no plan gets; ``None`` where there is no such bound.
    """

    budget: Mapping[str, Scalar]
    form: Mapping[str, Scalar]
    least: Scalar | None = None


class Problem(Protocol):
    """A planning problem: how to judge plans."""

    wants_front: bool
    """Whether the trade between seconds and score is part of the answer."""

    def form(self, x: Plan) -> Mapping[str, Scalar]:
        """Demand / limit of what makes a plan well formed (divisibility, counts); cheap."""
        ...

    def spent(self, x: Plan) -> Spent | None:
        """Every constraint of a block, where none needs a time; else ``None``."""
        ...

    def judge(self, x: Plan) -> Judged:
        """Judge a block of well-formed plans, or one."""
        ...


def _size(array: Scalar) -> int:
    return int(np.size(array))


def _over(ratio: Scalar) -> NDArray[np.bool_]:
    """Where a constraint rejects; NaN (unknown) rejects, too."""
    return np.asarray(~(np.asarray(ratio) <= 1.0 + 1e-9))


def _well_formed(ratios: Mapping[str, Scalar], block: Block, outcome: Outcome) -> NDArray[np.bool_]:
    """Mask of the constraints that narrow the mesh most, on as few dimensions as they need; counts every one."""
    overs = [(name, _over(ratio)) for name, ratio in sorted(ratios.items(), key=lambda item: _size(item[1]))]
    for name, over in overs:
        outcome.rejected[name] = outcome.rejected.get(name, 0) + int(over.sum()) * (block.cells // over.size)
    mask: NDArray[np.bool_] = np.ones((1,) * len(block.shape), dtype=bool)
    for _ in range(2):  # what was not worth it on the whole mesh may be on what the others left of it
        for _, over in overs:
            left = mask & ~over
            if over.all() or left.mean() <= (1.0 - WORTH_NARROWING) * mask.mean():
                mask = left
    return mask


def search(
    space: Space, problem: Problem, *, progress: Callable[[int], None] | None = None, limit: int | None = None
) -> Outcome:
    """Judge every plan of the space and keep the best, the counts and the nearest misses.

    Every plan is held against every constraint. In a large space where that takes no time, a plan is timed only if no
    bound on its time proves that it can neither be among the best nor be the nearest miss.

    Parameters
    ----------
    space : the mesh.
    problem : how to judge.
    progress : called with the number of cells finished.
    limit : cells per block, for tests.
    """
    outcome = Outcome(left_out=space.left_out)
    outcome.axes = tuple((" × ".join(a.columns), len(a.values)) for a in (*space.structural, *space.numeric))
    near: dict[tuple[str, int], int] = {}
    for slab in space.slabs():
        mask = _well_formed(problem.form(slab.columns()), slab, outcome)
        kept = slab.keep(mask)
        done = outcome.cells
        for block in kept.pieces(limit or _block_cells(kept.cells)):
            if block.cells:
                _absorb(outcome, near, block, problem, done, bounded=kept.cells >= WORTH_BOUNDING)
            done += block.cells
            if progress is not None:
                progress(done)
        outcome.cells += slab.cells
    outcome.near = {key: miss._replace(plans=near[key]) for key, miss in outcome.near.items()}
    return outcome


def _block_cells(cells: int) -> int:
    """Cells per block: large blocks spread the fixed work of one, small ones spare a short search new pages."""
    return min(BLOCK_CELLS, max(cells // 8, SMALL_BLOCK))


def _absorb(
    outcome: Outcome, near: dict[tuple[str, int], int], block: Block, problem: Problem, first: int, *, bounded: bool
) -> None:
    """Judge a block of well-formed plans and fold it into the outcome; ``near`` counts near misses."""
    x = block.columns()
    spent, judged = problem.spent(x) if bounded else None, None
    if spent is None:
        judged = problem.judge(x)
        spent = Spent(judged.budget, judged.form)
    failures = _Failures.of(spent.budget, spent.form, block.shape)
    _count(outcome, block, failures)
    if not outcome.legal:
        _closest(outcome, block, problem, failures)
    found = _Near.of(failures, x.devices if judged is None else judged.devices, spent.least)
    found.count(near)
    if judged is not None:
        cells = found.cells
        picked = judged._replace(**{n: cells(getattr(judged, n)) for n in ("score", "devices", "seconds")})
        _fold(outcome, found, Timed(block, cells, picked, first), front=problem.wants_front)
        return
    parts = found.below(outcome).parts()
    for part in parts:
        part = part.below(outcome)
        if part.cells.flat.size:
            own = Plan(**{name: part.cells(value) for name, value in vars(x).items()})
            _fold(outcome, part, Timed(block, part.cells, problem.judge(own), first), front=problem.wants_front)


def _fold(outcome: Outcome, found: _Near, timed: Timed, *, front: bool) -> None:
    """Merge timed plans into the outcome."""
    outcome.timed += timed.cells.flat.size
    legal = found.failed < 0
    if legal.any():
        outcome.keep_best(timed, legal)
        if front:
            outcome.extend_front(timed, legal)
    for i, name in enumerate(found.names):
        alone = found.failed == i
        if alone.any():
            outcome.keep_miss(name, timed, alone, found.ratio)


class _Failures(NamedTuple):
    """What a block of plans fails.

    Parameters
    ----------
    budget : demand / limit by constraint.
    overs : where a constraint rejects.
    number : constraints that reject a plan, of the shape of the block; misshapen plans count far beyond.
    formed : where counts and divisions come out whole.
    """

    budget: Mapping[str, Scalar]
    overs: Mapping[str, NDArray[np.bool_]]
    number: NDArray[np.int16]
    formed: NDArray[np.bool_]

    @classmethod
    def of(cls, budget: Mapping[str, Scalar], form: Mapping[str, Scalar], shape: tuple[int, ...]) -> _Failures:
        """From the constraints of a block."""
        overs = {name: _over(ratio) for name, ratio in budget.items()}
        formed = _formed(form)
        number: NDArray[np.int16] = np.zeros((), dtype=np.int16)
        for over in sorted(overs.values(), key=lambda o: o.size):
            if over.any():
                number = number + over.view(np.int8)
        if not formed.all():
            number = number + (~formed).view(np.int8) * np.int16(64)
        return cls(budget, overs, np.broadcast_to(number, shape), formed)


def _count(outcome: Outcome, block: Block, failures: _Failures) -> None:
    """Count what is legal, what every constraint rejects, and what it alone does."""
    formed, once = failures.formed, failures.number == 1
    for name, over in failures.overs.items():
        counted = over if formed.all() else over & formed
        count = int(counted.sum()) * (block.cells // counted.size)
        outcome.rejected[name] = outcome.rejected.get(name, 0) + count
        if count:
            outcome.alone[name] = outcome.alone.get(name, 0) + int((once & over).sum())
    outcome.legal += int((failures.number == 0).sum())


def _formed(form: Mapping[str, Scalar]) -> NDArray[np.bool_]:
    """Where counts and divisions come out whole."""
    formed: NDArray[np.bool_] = np.ones((), dtype=bool)
    for ratio in form.values():
        over = _over(ratio)
        if over.any():
            formed = np.asarray(formed & ~over)
    return formed


@dataclass(frozen=True)
class _Near:
    """Cells of a block that are legal, or that one constraint alone rejects but not by far; arrays by cell.

    Parameters
    ----------
    cells : where they stand.
    names : constraints.
    failed : which of ``names`` rejects a cell, -1 where it is legal.
    ratio : demand / limit of that constraint, 1 where it is legal.
    devices : of a cell.
    least : score below which it does not get; 0 where none is known.
    """

    cells: Cells
    names: tuple[str, ...]
    failed: NDArray[np.int16]
    ratio: NDArray[np.float64]
    devices: NDArray[np.float64]
    least: NDArray[np.float64]

    @classmethod
    def of(cls, failures: _Failures, devices: Scalar, least: Scalar | None) -> _Near:
        """Pick them out of a block."""
        mask = failures.number <= 1
        for name, over in failures.overs.items():
            if over.any():
                mask = mask & (np.asarray(failures.budget[name]) <= NEAR)
        cells = Cells(mask)
        count = cells.flat.size

        def every(value: Scalar) -> NDArray[np.float64]:
            return np.broadcast_to(np.asarray(cells(value), dtype=float), (count,))

        failed, ratio = np.full(count, -1, dtype=np.int16), np.ones(count)
        for i, (name, over) in enumerate(failures.overs.items()):
            here = np.broadcast_to(cells(over), (count,))
            failed[here] = i
            ratio = np.where(here, every(failures.budget[name]), ratio)
        return cls(cells, tuple(failures.overs), failed, ratio, every(devices), every(0.0 if least is None else least))

    def count(self, near: dict[tuple[str, int], int]) -> None:
        """Add the near misses of every constraint and device count to ``near``."""
        for number in np.unique(self.devices).tolist():
            failed = self.failed[self.devices == number]
            for i, name in enumerate(self.names):
                key = name, int(number)
                near[key] = near.get(key, 0) + int((failed == i).sum())

    def below(self, outcome: Outcome) -> _Near:
        """Those that may still be among the best or be the nearest miss."""
        limit = np.full(self.failed.size, np.inf)
        for number in np.unique(self.devices).tolist():
            same = self.devices == number
            for i, name in enumerate((*self.names, None)):
                which = -1 if name is None else i
                limit[same & (self.failed == which)] = outcome.limit(int(number), name)
        return self.only(self.least * self.ratio <= limit)

    def parts(self) -> tuple[_Near, ...]:
        """The most promising and the others; all in one where they are few."""
        size = self.failed.size
        if size <= TIMED_AT_ONCE:
            return (self,)
        first = np.zeros(size, dtype=bool)
        first[np.argpartition(self.least * self.ratio, int(FIRST * size))[: int(FIRST * size)]] = True
        return self.only(first), self.only(~first)

    def only(self, mask: NDArray[np.bool_]) -> _Near:
        """Some of them."""
        if mask.all():
            return self
        kept = {n: getattr(self, n)[mask] for n in ("failed", "ratio", "devices", "least")}
        return replace(self, cells=self.cells.only(mask), **kept)


def _closest(outcome: Outcome, block: Block, problem: Problem, failures: _Failures) -> None:
    """Remember the well-formed plan whose worst ratio is least: what comes nearest when nothing is legal."""
    if not failures.budget:
        return
    worst = np.where(failures.formed, _worst(failures.budget.values()), np.inf)
    worst = np.broadcast_to(worst, block.shape)
    index = int(np.argmin(worst))
    ratio = float(worst.flat[index])
    if math.isfinite(ratio) and (outcome.closest is None or ratio < outcome.closest[0]):
        plan = block.plan(index)
        judged = problem.judge(plan)
        name = max(judged.budget, key=lambda n: float(judged.budget[n]))
        found = Candidate(float(judged.score), float(judged.devices), float(judged.seconds), plan)
        outcome.closest = (ratio, name, found)


def _worst(ratios: Iterable[Scalar]) -> NDArray[np.float64]:
    worst: NDArray[np.float64] = np.zeros(())
    for ratio in ratios:
        worst = np.maximum(worst, np.nan_to_num(np.asarray(ratio, dtype=float), nan=np.inf))
    return worst
