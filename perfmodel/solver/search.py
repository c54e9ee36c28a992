"""Exhaustive search: every block of the space is evaluated at once, judged by masks that count, and only the best are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from perfmodel.elementwise import Scalar
from perfmodel.solver.space import Block, Space
from perfmodel.techniques.settled import Plan

__all__ = ["Candidate", "Judged", "NearMiss", "Outcome", "Problem", "search"]

KEEP = 48
"""Plans kept per block and per device count."""


class Judged(NamedTuple):
    """What a problem says of a block of plans.

    Parameters
    ----------
    score : what is minimised.
    devices : devices each plan uses.
    seconds : what the table of device counts shows (time of a step, of a token).
    shape : demand / limit of what makes a plan well formed (divisibility, counts).
    budget : demand / limit of what a plan spends (memory, latency, quality); these explain *why not*.
    """

    score: Scalar
    devices: Scalar
    seconds: Scalar
    shape: Mapping[str, Scalar]
    budget: Mapping[str, Scalar]


class Problem(Protocol):
    """A planning problem: how to judge plans."""

    def judge(self, x: Plan) -> Judged:
        """Judge a block of plans, or one."""
        ...


class Candidate(NamedTuple):
    """One legal plan found by the search."""

    score: float
    devices: float
    seconds: float
    plan: Plan


class NearMiss(NamedTuple):
    """The best plan that one constraint alone rejects, and by how much (demand / limit)."""

    constraint: str
    ratio: float
    candidate: Candidate
    count: int


@dataclass
class Outcome:
    """What a search found.

    Parameters
    ----------
    cells : plans evaluated.
    left_out : tuples that techniques left out of their joint axes.
    legal : plans that satisfy every constraint.
    rejected : plans that each constraint rejects (a plan may be rejected by several).
    alone : plans that one constraint alone rejects.
    best : legal plans, best first.
    by_devices : best legal plan of every device count.
    near : nearest misses, best first.
    closest : the plan that comes nearest to legal when none is, with its worst constraint.
    """

    cells: int = 0
    left_out: int = 0
    legal: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    alone: dict[str, int] = field(default_factory=dict)
    best: list[Candidate] = field(default_factory=list)
    by_devices: dict[int, list[Candidate]] = field(default_factory=dict)
    near: dict[str, NearMiss] = field(default_factory=dict)
    closest: tuple[float, str, Candidate] | None = None
    axes: tuple[tuple[str, int], ...] = ()


def _size(array: Scalar) -> int:
    return int(np.size(array))


def _over(ratio: Scalar) -> NDArray[np.bool_]:
    """Where a constraint rejects; NaN (unknown) rejects, too."""
    return np.asarray(~(np.asarray(ratio) <= 1.0 + 1e-9))


def _well_formed(judged: Judged, cells: int, outcome: Outcome) -> NDArray[np.bool_]:
    """Mask of well-formed plans; applied smallest shape first so that it grows to the size it needs."""
    mask: NDArray[np.bool_] = np.asarray(True)
    for name, ratio in sorted(judged.shape.items(), key=lambda item: _size(item[1])):
        over = _over(ratio)
        count = int(over.sum()) * (cells // over.size)
        outcome.rejected[name] = outcome.rejected.get(name, 0) + count
        if count:
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
    for block in space.blocks() if limit is None else space.blocks(limit):
        judged = problem.judge(block.columns())
        _absorb(outcome, block, judged)
        outcome.cells += block.cells
        if progress is not None:
            progress(outcome.cells)
    outcome.best.sort(key=lambda c: c.score)
    del outcome.best[KEEP:]
    for candidates in outcome.by_devices.values():
        candidates.sort(key=lambda c: c.score)
        del candidates[KEEP:]
    return outcome


def _absorb(outcome: Outcome, block: Block, judged: Judged) -> None:
    """Fold one judged block into the outcome."""
    cells, shape = block.cells, block.shape
    formed = np.broadcast_to(_well_formed(judged, cells, outcome), shape)
    overs = {name: _over(ratio) for name, ratio in judged.budget.items()}
    for name, over in overs.items():
        outcome.rejected[name] = outcome.rejected.get(name, 0) + int(over.sum()) * (cells // over.size)
    failed: NDArray[np.int8] = np.zeros((), dtype=np.int8)
    for over in sorted(overs.values(), key=lambda o: o.size):
        failed = failed + over.view(np.int8)
    legal = formed & (failed == 0)
    count = int(legal.sum())
    outcome.legal += count
    score = np.broadcast_to(np.asarray(judged.score, dtype=float), shape)
    take = _Taker(block, judged, score)
    if count:
        _keep_best(outcome, take, legal, judged)
    once = formed & (failed == 1)
    for name, over in overs.items():
        _near_miss(outcome, name, take, once & over, judged.budget[name])
    if not outcome.legal and not outcome.near:
        _closest(outcome, take, formed, judged)


class _Taker:
    """Turns flat indices of a block into candidates."""

    def __init__(self, block: Block, judged: Judged, score: NDArray[np.float64]) -> None:
        self.block, self.judged, self.score = block, judged, score

    def value(self, array: Scalar, index: int) -> float:
        """Entry of a broadcast array at a flat index."""
        return float(np.broadcast_to(array, self.block.shape)[np.unravel_index(index, self.block.shape)])

    def candidate(self, index: int) -> Candidate:
        """Candidate at a flat index."""
        judged = self.judged
        numbers = (self.value(a, index) for a in (judged.score, judged.devices, judged.seconds))
        return Candidate(*numbers, self.block.plan(index))

    def lowest(self, mask: NDArray[np.bool_], count: int) -> list[int]:
        """Flat indices of the lowest scores under a mask; ties in plan order."""
        indices = np.flatnonzero(mask)
        scores = self.score[mask]
        if indices.size > count:
            part = np.argpartition(scores, count)[:count]
            indices, scores = indices[part], scores[part]
        return [int(i) for i in indices[np.lexsort((indices, scores))]]


def _keep_best(outcome: Outcome, take: _Taker, legal: NDArray[np.bool_], judged: Judged) -> None:
    devices = np.broadcast_to(np.asarray(judged.devices), take.block.shape)
    counts = np.unique(np.asarray(judged.devices))
    worst = outcome.best[KEEP - 1].score if len(outcome.best) >= KEEP else math.inf
    for number in counts:
        mask = legal & (devices == number) if counts.size > 1 else legal
        for index in take.lowest(mask, KEEP):
            candidate = take.candidate(index)
            outcome.by_devices.setdefault(int(number), []).append(candidate)
            if candidate.score < worst:
                outcome.best.append(candidate)
    outcome.best.sort(key=lambda c: c.score)
    del outcome.best[KEEP:]


def _near_miss(outcome: Outcome, name: str, take: _Taker, mask: NDArray[np.bool_], ratio: Scalar) -> None:
    count = int(mask.sum())
    if not count:
        return
    outcome.alone[name] = outcome.alone.get(name, 0) + count
    finite = mask & np.broadcast_to(np.isfinite(np.asarray(ratio, dtype=float)), mask.shape)
    if not finite.any():
        return
    index = take.lowest(finite, 1)[0]
    miss = NearMiss(name, take.value(ratio, index), take.candidate(index), count)
    known = outcome.near.get(name)
    if known is None or miss.candidate.score < known.candidate.score:
        outcome.near[name] = miss


def _closest(outcome: Outcome, take: _Taker, formed: NDArray[np.bool_], judged: Judged) -> None:
    """Remember the well-formed plan whose worst ratio is least: what comes nearest when nothing is legal."""
    if not formed.any() or not judged.budget:
        return
    worst = np.broadcast_to(_worst(judged.budget.values()), take.block.shape)
    masked = np.where(formed, worst, np.inf)
    index = int(np.argmin(masked))
    ratio = float(masked.flat[index])
    if outcome.closest is None or ratio < outcome.closest[0]:
        name = max(judged.budget, key=lambda n: take.value(judged.budget[n], index))
        outcome.closest = (ratio, name, take.candidate(index))


def _worst(ratios: Iterable[Scalar]) -> NDArray[np.float64]:
    worst: NDArray[np.float64] = np.zeros(())
    for ratio in ratios:
        worst = np.maximum(worst, np.nan_to_num(np.asarray(ratio, dtype=float), nan=np.inf))
    return worst
