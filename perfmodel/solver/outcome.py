"""What a search keeps: the best plans, the counts, the nearest misses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.elementwise import Scalar
from perfmodel.solver.space import Block, Cells
from perfmodel.techniques.settled import Plan

__all__ = ["KEEP", "Candidate", "Judged", "NearMiss", "Outcome", "Timed"]

KEEP = 16
"""Plans kept over all, and per device count."""


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


class Candidate(NamedTuple):
    """One plan found by the search; ``number`` is its place in the order of the space."""

    score: float
    devices: float
    seconds: float
    plan: Plan
    number: int = 0


class NearMiss(NamedTuple):
    """The best plan that one constraint alone rejects, but not by far.

    Parameters
    ----------
    constraint : its name.
    ratio : demand / limit of the plan.
    candidate : the plan.
    plans : how many are rejected so.
    """

    constraint: str
    ratio: float
    candidate: Candidate
    plans: int = 0

    @property
    def weight(self) -> float:
        """What is least for the best miss: a good plan that is nearly legal, not the best that is far off."""
        return self.ratio * self.candidate.score


@dataclass
class Outcome:
    """What a search found.

    Parameters
    ----------
    cells : plans evaluated.
    left_out : tuples that techniques left out of their joint axes.
    legal : plans that satisfy every constraint.
    timed : plans whose time was evaluated; of the others the constraints alone decide, or a bound on their time.
    rejected : plans that each constraint rejects (a plan may be rejected by several); what a plan spends counts for
        well-formed plans only.
    alone : plans that one constraint alone rejects.
    best : legal plans, best first.
    by_devices : best legal plans of every device count.
    near : best plan that a constraint alone rejects, by constraint and device count.
    closest : the plan that comes nearest to legal when none is, with its worst constraint.
    """

    cells: int = 0
    left_out: int = 0
    legal: int = 0
    timed: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    alone: dict[str, int] = field(default_factory=dict)
    by_devices: dict[int, list[Candidate]] = field(default_factory=dict)
    near: dict[tuple[str, int], NearMiss] = field(default_factory=dict)
    closest: tuple[float, str, Candidate] | None = None
    axes: tuple[tuple[str, int], ...] = ()
    front: list[Candidate] = field(default_factory=list)
    """Legal plans that none beats in both seconds and score, fastest first."""

    @property
    def best(self) -> list[Candidate]:
        """The best legal plans of any device count, best first."""
        return sorted((c for kept in self.by_devices.values() for c in kept), key=_order)[:KEEP]

    def limit(self, devices: int, constraint: str | None = None) -> float:
        """Score, or weight of a miss, above which a plan cannot be kept."""
        if constraint is not None:
            known = self.near.get((constraint, devices))
            return math.inf if known is None else known.weight
        kept = self.by_devices.get(devices, ())
        return kept[KEEP - 1].score if len(kept) >= KEEP else math.inf

    def keep_best(self, timed: Timed, legal: NDArray[np.bool_]) -> None:
        """Merge the legal plans of a block into those of their device counts."""
        for number in timed.numbers:
            found = [timed.candidate(p) for p in timed.lowest(legal & (timed.devices == number), KEEP)]
            if found:
                kept = self.by_devices.setdefault(int(number), [])
                kept[:] = sorted([*kept, *found], key=_order)[:KEEP]

    def extend_front(self, timed: Timed, legal: NDArray[np.bool_]) -> None:
        """Merge the non-dominated plans of a block into the front."""
        positions = np.flatnonzero(legal)
        order = np.lexsort((timed.score[legal], timed.seconds[legal]))
        scores = timed.score[legal][order]
        best_before = np.concatenate(([np.inf], np.minimum.accumulate(scores)[:-1]))
        self.front += [timed.candidate(int(positions[i])) for i in order[scores < best_before]]
        front: list[Candidate] = []
        for candidate in sorted(self.front, key=lambda c: (c.seconds, c.score)):
            if not front or candidate.score < front[-1].score:
                front.append(candidate)
        self.front = front

    def keep_miss(self, name: str, timed: Timed, alone: NDArray[np.bool_], ratio: NDArray[np.float64]) -> None:
        """Remember the best miss of a constraint for every device count."""
        weight = np.where(alone, timed.score * ratio, np.inf)
        for number in timed.numbers:
            here = alone & (timed.devices == number)
            if here.any():
                position = int(np.argmin(np.where(here, weight, np.inf)))
                miss = NearMiss(name, float(ratio[position]), timed.candidate(position))
                known = self.near.get((name, int(number)))
                if known is None or miss.weight < known.weight:
                    self.near[name, int(number)] = miss


class Timed:
    """Timed cells of a block as candidates.

    Parameters
    ----------
    block, cells : where they stand.
    judged : what the problem says of them.
    first : place of the block in the order of the space.
    """

    def __init__(self, block: Block, cells: Cells, judged: Judged, first: int) -> None:
        self.block, self.cells, self.first = block, cells, first

        def every(value: Scalar) -> NDArray[np.float64]:
            return np.broadcast_to(np.asarray(value, dtype=float), (cells.flat.size,))

        self.score, self.devices, self.seconds = every(judged.score), every(judged.devices), every(judged.seconds)
        self.numbers: list[float] = np.unique(self.devices).tolist()

    def candidate(self, position: int) -> Candidate:
        """Candidate at a position."""
        score, devices, seconds = (float(a[position]) for a in (self.score, self.devices, self.seconds))
        index = int(self.cells.flat[position])
        return Candidate(score, devices, seconds, self.block.plan(index), self.first + index)

    def lowest(self, mask: NDArray[np.bool_], count: int) -> list[int]:
        """Positions of the lowest scores under a mask; ties in plan order."""
        indices = np.flatnonzero(mask)
        scores = self.score[mask]
        if indices.size > count:
            part = np.argpartition(scores, count)[:count]
            indices, scores = indices[part], scores[part]
        return [int(i) for i in indices[np.lexsort((indices, scores))]]


def _order(candidate: Candidate) -> tuple[float, int]:
    return candidate.score, candidate.number
