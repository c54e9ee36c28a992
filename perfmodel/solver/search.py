"""Exhaustive search: blocks are evaluated at once, judged by masks that count, and only the best are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from perfmodel.elementwise import Scalar
from perfmodel.solver.space import BLOCK_CELLS, Block, Space
from perfmodel.techniques.settled import Plan

__all__ = ["Candidate", "Judged", "NearMiss", "Outcome", "Problem", "search"]

SMALL_BLOCK = 30_000
"""Cells per block of a small space: arrays that the allocator reuses instead of asking the system for pages."""
KEEP = 16
"""Plans kept per block and per device count."""


WORTH_NARROWING = 0.25
"""Share of the mesh that a constraint must reject for its dimensions to be merged into one of survivors only."""


class Judged(NamedTuple):
    """What a problem says of a block of plans.

    Parameters
    ----------
    score : what is minimised.
    devices : devices each plan uses.
    seconds : what the table of device counts shows (time of a step, of a token).
    budget : demand / limit of what a plan spends (memory, latency, quality); these explain *why not*.
    form : demand / limit of counts and divisions, for those that did not narrow the mesh beforehand.
    """

    score: Scalar
    devices: Scalar
    seconds: Scalar
    budget: Mapping[str, Scalar]
    form: Mapping[str, Scalar]


class Problem(Protocol):
    """A planning problem: how to judge plans."""

    wants_front: bool
    """Whether the trade between seconds and score is part of the answer."""

    def form(self, x: Plan) -> Mapping[str, Scalar]:
        """Demand / limit of what makes a plan well formed (divisibility, counts); cheap."""
        ...

    def judge(self, x: Plan) -> Judged:
        """Judge a block of well-formed plans, or one."""
        ...


class Candidate(NamedTuple):
    """One legal plan found by the search."""

    score: float
    devices: float
    seconds: float
    plan: Plan


class NearMiss(NamedTuple):
    """The best plan that one constraint alone rejects, by how much (demand / limit), and how many it so rejects."""

    constraint: str
    ratio: float
    candidate: Candidate
    plans: int


@dataclass
class Outcome:
    """What a search found.

    Parameters
    ----------
    cells : plans evaluated.
    left_out : tuples that techniques left out of their joint axes.
    legal : plans that satisfy every constraint.
    rejected : plans that each constraint rejects (a plan may be rejected by several); what a plan spends counts for
        well-formed plans only.
    alone : plans that one constraint alone rejects.
    best : legal plans, best first.
    by_devices : best legal plan of every device count.
    near : best plan that a constraint alone rejects, by constraint and device count.
    closest : the plan that comes nearest to legal when none is, with its worst constraint.
    """

    cells: int = 0
    left_out: int = 0
    legal: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    alone: dict[str, int] = field(default_factory=dict)
    best: list[Candidate] = field(default_factory=list)
    by_devices: dict[int, list[Candidate]] = field(default_factory=dict)
    near: dict[tuple[str, int], NearMiss] = field(default_factory=dict)
    closest: tuple[float, str, Candidate] | None = None
    axes: tuple[tuple[str, int], ...] = ()
    front: list[Candidate] = field(default_factory=list)
    """Legal plans that none beats in both seconds and score, fastest first."""


def _size(array: Scalar) -> int:
    return int(np.size(array))


def _over(ratio: Scalar) -> NDArray[np.bool_]:
    """Where a constraint rejects; NaN (unknown) rejects, too."""
    return np.asarray(~(np.asarray(ratio) <= 1.0 + 1e-9))


def _well_formed(ratios: Mapping[str, Scalar], block: Block, outcome: Outcome) -> NDArray[np.bool_]:
    """Mask of the constraints that narrow the mesh most, on as few dimensions as they need; counts every one."""
    mask: NDArray[np.bool_] = np.ones((1,) * len(block.shape), dtype=bool)
    for name, ratio in sorted(ratios.items(), key=lambda item: _size(item[1])):
        over = _over(ratio)
        count = int(over.sum()) * (block.cells // over.size)
        outcome.rejected[name] = outcome.rejected.get(name, 0) + count
        if count >= WORTH_NARROWING * block.cells or over.all():
            mask = mask & ~over
    return mask


def search(
    space: Space, problem: Problem, *, progress: Callable[[int], None] | None = None, limit: int | None = None
) -> Outcome:
    """Evaluate every plan of the space and keep the best, the counts and the nearest misses.

    Parameters
    ----------
    space : the mesh.
    problem : how to judge.
    progress : called with the number of cells finished.
    limit : cells per block, for tests.
    """
    outcome = Outcome(left_out=space.left_out)
    outcome.axes = tuple((" × ".join(a.columns), len(a.values)) for a in (*space.structural, *space.numeric))
    for slab in space.slabs():
        mask = _well_formed(problem.form(slab.columns()), slab, outcome)
        kept = slab.keep(mask)
        for block in kept.pieces(limit or _block_cells(kept.cells)):
            if block.cells:
                _absorb(outcome, block, problem.judge(block.columns()), front=problem.wants_front)
            if progress is not None:
                progress(outcome.cells + block.cells)
        outcome.cells += slab.cells
    outcome.best.sort(key=lambda c: c.score)
    del outcome.best[KEEP:]
    for candidates in outcome.by_devices.values():
        candidates.sort(key=lambda c: c.score)
        del candidates[KEEP:]
    return outcome


def _block_cells(cells: int) -> int:
    """Cells per block: large blocks spread the fixed work of one, small ones spare a short search new pages."""
    return min(BLOCK_CELLS, max(cells // 8, SMALL_BLOCK))


def _absorb(outcome: Outcome, block: Block, judged: Judged, *, front: bool) -> None:
    """Fold one judged block of well-formed plans into the outcome."""
    cells, shape = block.cells, block.shape
    overs = {name: _over(ratio) for name, ratio in judged.budget.items()}
    formed = _formed(judged.form)
    failed: NDArray[np.int16] = np.zeros((), dtype=np.int16)
    for name, over in sorted(overs.items(), key=lambda item: item[1].size):
        counted = over if formed.all() else over & formed
        count = int(counted.sum()) * (cells // counted.size)
        outcome.rejected[name] = outcome.rejected.get(name, 0) + count
        if count:
            failed = failed + over.view(np.int8)
    if not formed.all():
        failed = failed + (~formed).view(np.int8) * np.int16(64)
    failed = np.broadcast_to(failed, shape)
    legal = failed == 0
    count = int(legal.sum())
    outcome.legal += count
    score = np.broadcast_to(np.asarray(judged.score, dtype=float), shape)
    take = _Taker(block, judged, score)
    if count:
        _keep_best(outcome, take, legal, judged)
        if front:
            _extend_front(outcome, take, legal)
    if count < cells:
        once = failed == 1
        for name, over in overs.items():
            _near_miss(outcome, name, take, once & over, judged.budget[name])
    if not outcome.legal:
        _closest(outcome, take, judged, formed)


def _formed(form: Mapping[str, Scalar]) -> NDArray[np.bool_]:
    """Where counts and divisions come out whole."""
    formed: NDArray[np.bool_] = np.ones((), dtype=bool)
    for ratio in form.values():
        over = _over(ratio)
        if over.any():
            formed = np.asarray(formed & ~over)
    return formed


class _Taker:
    """Turns flat indices of a block into candidates."""

    def __init__(self, block: Block, judged: Judged, score: NDArray[np.float64]) -> None:
        self.block, self.judged, self.score, self.shape = block, judged, score, block.shape

    def value(self, array: Scalar, where: tuple[int, ...]) -> float:
        """Entry of an array that broadcasts to the block, at the multi-index of a cell."""
        if not isinstance(array, np.ndarray) or array.ndim == 0:
            return float(array)
        inner = where[len(where) - array.ndim :]
        return float(array[tuple(i if n > 1 else 0 for i, n in zip(inner, array.shape, strict=True))])

    def cell(self, index: int) -> tuple[int, ...]:
        """Multi-index of a flat index."""
        return tuple(int(i) for i in np.unravel_index(index, self.shape))

    def candidate(self, index: int) -> Candidate:
        """Candidate at a flat index."""
        judged = self.judged
        where = self.cell(index)
        score, devices, seconds = (self.value(a, where) for a in (judged.score, judged.devices, judged.seconds))
        return Candidate(score, devices, seconds, self.block.plan(index))

    def lowest(self, mask: NDArray[np.bool_], count: int) -> list[int]:
        """Flat indices of the lowest scores under a mask; ties in plan order."""
        indices = np.flatnonzero(mask)
        scores = self.score[mask]
        if indices.size > count:
            part = np.argpartition(scores, count)[:count]
            indices, scores = indices[part], scores[part]
        return [int(i) for i in indices[np.lexsort((indices, scores))]]


def _values(array: Scalar) -> list[float]:
    """Distinct entries of a small array, ascending."""
    return sorted(set(np.asarray(array, dtype=float).ravel().tolist()))


def _keep_best(outcome: Outcome, take: _Taker, legal: NDArray[np.bool_], judged: Judged) -> None:
    devices = np.broadcast_to(np.asarray(judged.devices), take.block.shape)
    counts = _values(judged.devices)
    worst = outcome.best[KEEP - 1].score if len(outcome.best) >= KEEP else math.inf
    for number in counts:
        mask = legal & (devices == number) if len(counts) > 1 else legal
        for index in take.lowest(mask, KEEP):
            candidate = take.candidate(index)
            outcome.by_devices.setdefault(int(number), []).append(candidate)
            if candidate.score < worst:
                outcome.best.append(candidate)
    outcome.best.sort(key=lambda c: c.score)
    del outcome.best[KEEP:]


def _extend_front(outcome: Outcome, take: _Taker, legal: NDArray[np.bool_]) -> None:
    """Merge the non-dominated plans of a block into the front."""
    indices = np.flatnonzero(legal)
    seconds = np.broadcast_to(np.asarray(take.judged.seconds, dtype=float), take.shape)[legal]
    order = np.lexsort((take.score[legal], seconds))
    scores = take.score[legal][order]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(scores)[:-1]))
    outcome.front += [take.candidate(int(indices[i])) for i in order[scores < best_before]]
    front: list[Candidate] = []
    for candidate in sorted(outcome.front, key=lambda c: (c.seconds, c.score)):
        if not front or candidate.score < front[-1].score:
            front.append(candidate)
    outcome.front = front


def _near_miss(outcome: Outcome, name: str, take: _Taker, mask: NDArray[np.bool_], ratio: Scalar) -> None:
    count = int(mask.sum())
    if not count:
        return
    outcome.alone[name] = outcome.alone.get(name, 0) + count
    devices = np.broadcast_to(np.asarray(take.judged.devices), take.block.shape)
    finite = mask & np.broadcast_to(np.isfinite(np.asarray(ratio, dtype=float)), mask.shape)
    weighed = take.score * np.asarray(
        ratio, dtype=float
    )  # a good plan that is nearly legal, not the best that is far off
    numbers = _values(take.judged.devices)
    for number in numbers:
        here = finite & (devices == number) if len(numbers) > 1 else finite
        if not here.any():
            continue
        index = int(np.argmin(np.where(here, weighed, np.inf)))
        miss = NearMiss(name, take.value(ratio, take.cell(index)), take.candidate(index), int(here.sum()))
        known = outcome.near.get((name, int(number)))
        if known is not None:
            plans = known.plans + miss.plans
            nearer = miss.ratio * miss.candidate.score < known.ratio * known.candidate.score
            miss = (miss if nearer else known)._replace(plans=plans)
        outcome.near[name, int(number)] = miss


def _closest(outcome: Outcome, take: _Taker, judged: Judged, formed: NDArray[np.bool_]) -> None:
    """Remember the well-formed plan whose worst ratio is least: what comes nearest when nothing is legal."""
    if not judged.budget:
        return
    worst = np.broadcast_to(np.where(formed, _worst(judged.budget.values()), np.inf), take.block.shape)
    index = int(np.argmin(worst))
    ratio = float(worst.flat[index])
    if math.isfinite(ratio) and (outcome.closest is None or ratio < outcome.closest[0]):
        name = max(judged.budget, key=lambda n: take.value(judged.budget[n], take.cell(index)))
        outcome.closest = (ratio, name, take.candidate(index))


def _worst(ratios: Iterable[Scalar]) -> NDArray[np.float64]:
    worst: NDArray[np.float64] = np.zeros(())
    for ratio in ratios:
        worst = np.maximum(worst, np.nan_to_num(np.asarray(ratio, dtype=float), nan=np.inf))
    return worst
