r"""Which ranks take which sequences, when sequences differ in length: groups of several sizes, chosen for every batch.

A sequence of length s on a group of d ranks keeps each of them busy for ``cost[d][s]`` seconds and fills the memory of
``s / d`` tokens on each. The best step is

.. math:: \min_{n, A} T\quad\text{s.t.}\quad \sum_d A_{s,d} = c_s,\quad \sum_s A_{s,d}\,t_{s,d} \le n_d T,\quad
    \sum_s A_{s,d}\,s \le n_d\,d\,M,\quad \sum_d d\,n_d \le N

with whole numbers of groups and of sequences. For a given T it is a mixed-integer linear programme, solved with HiGHS;
T is found by bisection. Groups of one size share their load evenly there, so T is a lower bound; dealing the sequences
out, longest first, gives the plan, and the distance between the two is stated.

References
----------
.. [1] Y. Wang et al., "FlexSP", arXiv:2412.01523, section 4.
.. [2] R. L. Graham, "Bounds on multiprocessing timing anomalies", 1969 (longest first).
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError

__all__ = ["Assignment", "Load", "Round", "assign", "buckets_of", "deal"]

TOLERANCE = 0.02
"""Relative width at which the bisection of the step time ends."""
BUCKETS = 16
"""Lengths that are told apart; those between count as the next longer one."""

GRAIN = 1024
"""Lengths are first rounded up to this part of the longest."""
SLACK = (1.0, 1.2, 1.6, 2.2)
"""Numbers of rounds that are tried, over the fewest that could hold the tokens."""

FILLED = (1.0, 0.9, 0.75, 0.5)
"""Share of a group's memory that is planned for: whole sequences do not fill it to the last token."""

Costs = Mapping[int, Mapping[int, float]]
"""Group size -> length -> seconds."""


class Load(NamedTuple):
    """One group of ranks in a round."""

    degree: int
    lengths: tuple[int, ...]
    seconds: float


class Round(NamedTuple):
    """One micro-batch: groups that work side by side."""

    loads: tuple[Load, ...]
    bound: float

    @property
    def seconds(self) -> float:
        """Time of the busiest group [s]."""
        return max((load.seconds for load in self.loads), default=0.0)


@dataclass(frozen=True)
class Assignment:
    """All rounds of a step.

    Parameters
    ----------
    rounds : one after another.
    """

    rounds: tuple[Round, ...]

    @property
    def seconds(self) -> float:
        """Time of the step [s]."""
        return sum(r.seconds for r in self.rounds)

    @property
    def bound(self) -> float:
        """No assignment of the same sequences to the same rounds is faster [s]."""
        return sum(r.bound for r in self.rounds)

    @property
    def gap(self) -> float:
        """Distance from the bound [1]."""
        return self.seconds / self.bound - 1.0 if self.bound else 0.0


def buckets_of(lengths: Sequence[int], most: int = BUCKETS) -> dict[int, int]:
    """Length -> the length it counts as: at most ``most`` different ones, none shorter than what it stands for.

    Of all such choices the one that adds the fewest tokens, by dynamic programming over the sorted lengths [1]_.
    """
    step = max(1, max(lengths) // GRAIN)
    rounded = {n: -(-n // step) * step if n > step else n for n in lengths}
    tops, counts = np.unique([rounded[n] for n in lengths], return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    held = np.concatenate([[0], np.cumsum(counts * tops)])
    added = tops[None, :] * (before[None, 1:] - before[:-1, None]) - (held[None, 1:] - held[:-1, None])
    added = np.where(np.arange(len(tops))[:, None] <= np.arange(len(tops))[None, :], added, np.inf)
    least, starts = added[0], []
    for _ in range(min(most, len(tops)) - 1):
        total = np.concatenate([[np.inf], least[:-1]])[:, None] + added
        starts.append(total.argmin(0))
        least = np.minimum(total.min(0), np.inf)
    chosen: dict[int, int] = {}
    end = len(tops) - 1
    for start in [*reversed(starts), np.zeros(len(tops), dtype=int)]:
        first = int(start[end])
        chosen.update({int(n): int(tops[end]) for n in tops[first : end + 1]})
        end = first - 1
        if end < 0:
            break
    longest = max(lengths)
    return {n: min(chosen[rounded[n]], longest) for n in set(lengths)}


def assign(lengths: Sequence[int], ranks: int, costs: Costs, tokens_per_rank: float) -> Assignment:
    """Give every sequence of a step a group.

    Parameters
    ----------
    lengths : tokens of each sequence.
    ranks : ranks to divide into groups.
    costs : group size -> length -> time of one such sequence on such a group [s]; one group size is static.
    tokens_per_rank : what fits.

    Raises
    ------
    SpecError
        If the longest sequence fits no group.
    """
    widest = max(d for d in costs if d <= ranks)
    if max(lengths) > widest * tokens_per_rank:
        raise SpecError(
            "a sequence does not fit the widest group",
            field="lengths",
            found=f"{max(lengths)} tokens",
            allowed=f"{widest} ranks of {tokens_per_rank:.0f} tokens",
        )
    least = math.ceil(sum(lengths) / (ranks * tokens_per_rank) - 1e-9)
    best: Assignment | None = None
    for rounds in sorted({math.ceil(least * slack) for slack in SLACK}):
        found = _in_rounds(lengths, rounds, ranks, costs, tokens_per_rank)
        if found is not None and best is not None and found.seconds >= best.seconds:
            break
        best = found or best
    if best is None:
        raise SpecError("these sequences fit no whole number of groups", field="lengths", found=len(lengths))
    return best


def _in_rounds(
    lengths: Sequence[int], rounds: int, ranks: int, costs: Costs, tokens_per_rank: float
) -> Assignment | None:
    """Sequences of like length together: sorted, and cut where a share of the tokens is full."""
    ordered = sorted(lengths, reverse=True)
    cuts, share, filled = [[]], sum(lengths) / rounds, 0.0  # type: list[list[int]], float, float
    for length in ordered:
        if filled + length > share * len(cuts) * (1 + 1e-12) and len(cuts) < rounds and cuts[-1]:
            cuts.append([])
        cuts[-1].append(length)
        filled += length
    found = [_round(piece, ranks, costs, tokens_per_rank) for piece in cuts]
    done = [r for r in found if r is not None]
    return Assignment(tuple(done)) if len(done) == len(found) else None


def _round(lengths: Sequence[int], ranks: int, costs: Costs, tokens_per_rank: float) -> Round | None:
    """Groups and their sequences; full groups that cannot be packed are tried again with room to spare."""
    sizes = [d for d in sorted(costs) if d <= ranks]
    if len(sizes) == 1:
        return _equal(lengths, ranks // sizes[0], sizes[0], costs[sizes[0]], tokens_per_rank)
    counts = Counter(lengths)
    known = sorted(counts)
    bound = 0.0
    for filled in FILLED:
        problem = _Problem(
            known=known,
            number=np.array([counts[n] for n in known], dtype=float),
            sizes=sizes,
            table=np.array([[costs[d][n] for d in sizes] for n in known]),
            fits=np.array([[n <= d * tokens_per_rank for d in sizes] for n in known]),
            ranks=ranks,
            room=np.array([[max(filled * d * tokens_per_rank, n) for d in sizes] for n in known]),
        )
        equal = (_equal(lengths, ranks // d, d, costs[d], filled * tokens_per_rank) for d in sizes)
        solved = _shortest(problem, min((r.seconds for r in equal if r is not None), default=math.inf))
        if solved is None:
            continue
        bound = bound or solved.bound
        loads: list[Load] | None = []
        for j, degree in enumerate(sizes):
            mine = [n for i, n in enumerate(known) for _ in range(int(solved.shares[i, j]))]
            dealt = deal(mine, int(solved.groups[j]), costs[degree], degree * tokens_per_rank)
            if dealt is None or loads is None:
                loads = None
                break
            loads += [Load(degree, tuple(part), sum(costs[degree][n] for n in part)) for part in dealt if part]
        if loads is not None:
            return Round(tuple(loads), bound)
    return None


def _equal(
    lengths: Sequence[int], groups: int, degree: int, cost: Mapping[int, float], tokens_per_rank: float
) -> Round | None:
    """One size for all: nothing to choose but which group takes what."""
    dealt = deal(lengths, groups, cost, degree * tokens_per_rank)
    if dealt is None:
        return None
    bound = max(sum(cost[n] for n in lengths) / groups, max(cost[n] for n in lengths))
    return Round(tuple(Load(degree, tuple(part), sum(cost[n] for n in part)) for part in dealt if part), bound)


class _Problem(NamedTuple):
    """One round as arrays: lengths by group sizes."""

    known: Sequence[int]
    number: NDArray[np.float64]
    sizes: Sequence[int]
    table: NDArray[np.float64]
    fits: NDArray[np.bool_]
    ranks: int
    room: NDArray[np.float64]


class _Solved(NamedTuple):
    groups: NDArray[np.float64]
    shares: NDArray[np.float64]
    bound: float


def _shortest(problem: _Problem, known: float) -> _Solved | None:
    """Shortest time in which groups exist, by bisection below a time that is known to do."""
    own = np.where(problem.fits, problem.table, np.inf)
    high = min(float((own.min(1) * problem.number).sum()), known * (1.0 + 1e-9))
    best = _groups(high, problem)
    if best is None:
        return None
    low = float(((own * np.array(problem.sizes)).min(1) * problem.number).sum()) / problem.ranks
    low = max(low, float(own.min(1).max()))
    while high > low * (1.0 + TOLERANCE):
        middle = math.sqrt(low * high)
        found = _groups(middle, problem)
        if found is None:
            low = middle
        else:
            high, best = middle, found
    return _Solved(*best, low)


def _groups(seconds: float, problem: _Problem) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Groups by size, and sequences by length and size, that finish in ``seconds``."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    table, sizes = problem.table, np.array(problem.sizes, dtype=float)
    rows, columns = table.shape
    cells = rows * columns
    conserve = np.zeros((rows, cells + columns))
    busy = np.zeros((columns, cells + columns))
    held = np.zeros((columns, cells + columns))
    for j in range(columns):
        for i in range(rows):
            at = i * columns + j
            conserve[i, at] = 1.0
            busy[j, at] = table[i, j] / seconds
            held[j, at] = problem.known[i] / problem.room[i, j]
        busy[j, cells + j] = held[j, cells + j] = -1.0
    used = np.concatenate([np.zeros(cells), sizes])
    allowed = problem.fits & (table <= seconds)
    most = np.concatenate([np.where(allowed, problem.number[:, None], 0.0).ravel(), problem.ranks // sizes])
    solved = milp(
        np.zeros(cells + columns),
        constraints=[
            LinearConstraint(conserve, problem.number, problem.number),
            LinearConstraint(busy, -np.inf, 0.0),
            LinearConstraint(held, -np.inf, 0.0),
            LinearConstraint(used[None, :], -np.inf, float(problem.ranks)),
        ],
        bounds=Bounds(np.zeros(cells + columns), most),
        integrality=np.ones(cells + columns),
        options={"time_limit": 2.0},
    )
    if solved.x is None:
        return None
    whole = np.rint(solved.x)
    return whole[cells:], whole[:cells].reshape(rows, columns)


def deal(lengths: Sequence[int], groups: int, cost: Mapping[int, float], capacity: float) -> list[list[int]] | None:
    """Longest first, each to the group that is free first and has room; ``None`` where one finds no room."""
    parts: list[list[int]] = [[] for _ in range(groups)]
    room = [capacity] * groups
    free = [(0.0, g) for g in range(groups)]
    for length in sorted(lengths, reverse=True):
        full = []
        while free:
            busy, g = heapq.heappop(free)
            if room[g] + 1e-9 >= length:
                parts[g].append(length)
                room[g] -= length
                heapq.heappush(free, (busy + cost[length], g))
                break
            full.append((busy, g))
        else:
            return None
        for item in full:
            heapq.heappush(free, item)
    return parts
