r"""Layers over pipeline stages of unlike speed: an exact dynamic programme.

With 1F1B a step of :math:`m` micro-batches over stages of :math:`s_i` seconds takes
:math:`(m - 1) \max_i s_i + \sum_i s_i`. For every value that the slowest stage may have, a dynamic programme over
(stage, layers placed) finds the smallest sum; the best pair is the optimum. Candidates are tried in ascending order and
the search ends where no larger one can win, so the answer is proven, whatever the costs are (they need not be linear).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Partition", "fluid_bound", "partition"]

Costs = NDArray[np.float64]


class Partition(NamedTuple):
    """Layers of every stage, the slowest stage, the sum over stages [s], and the slowest stages that were tried."""

    layers: tuple[int, ...]
    slowest: float
    total: float
    tried: int

    def seconds(self, passes: float) -> float:
        """Time of so many micro-batches [s]."""
        return (passes - 1.0) * self.slowest + self.total


def partition(costs: Costs, passes: float) -> Partition | None:
    """Place ``L`` layers on ``P`` stages in order, at least one each, in the least time.

    Parameters
    ----------
    costs : (P, L + 1) seconds of a micro-batch on a stage with so many layers; infinite where they do not fit. Column
        0 is not used.
    passes : micro-batches of a step.

    Returns
    -------
    Partition | None
        ``None`` where the layers do not fit.
    """
    stages, layers = costs.shape[0], costs.shape[1] - 1
    table = costs.copy()
    table[:, 0] = np.inf
    candidates = np.unique(table[np.isfinite(table)])
    least, _ = _smallest_sum(table)
    if stages > layers or not np.isfinite(least):
        return None
    best: Partition | None = None
    tried = 0
    for slowest in candidates:
        if best is not None and (passes - 1.0) * slowest + least >= best.seconds(passes):
            break
        if not _room(table, slowest, layers):
            continue
        tried += 1
        total, placed = _smallest_sum(np.where(table <= slowest, table, np.inf))
        if not np.isfinite(total):
            continue
        reached = max(float(table[i, n]) for i, n in enumerate(placed))
        found = Partition(placed, reached, float(total), tried)
        if best is None or found.seconds(passes) < best.seconds(passes):
            best = found
    return None if best is None else best._replace(tried=tried)


def _room(table: Costs, slowest: float, layers: int) -> bool:
    """Whether stages no slower than that hold all layers: the most of each, added up."""
    fits = table <= slowest
    most = np.where(fits.any(axis=1), table.shape[1] - 1 - np.argmax(fits[:, ::-1], axis=1), -layers)
    return int(most.sum()) >= layers


def _smallest_sum(table: Costs) -> tuple[float, tuple[int, ...]]:
    """Least sum over stages of placing all layers in order, and the layers of each stage."""
    stages, width = table.shape
    best = np.full(width, np.inf)
    best[0] = 0.0
    choices: list[NDArray[Any]] = []
    grid = np.subtract.outer(np.arange(width), np.arange(width))  # layers left for the stages before
    inside = grid >= 0
    for i in range(stages):
        options = np.where(inside, best[np.maximum(grid, 0)] + table[i][None, :], np.inf)
        choice = np.argmin(options, axis=1)
        choices.append(choice)
        best = options[np.arange(width), choice]
    placed, left = [], width - 1
    for choice in reversed(choices):
        placed.append(int(choice[left]))
        left -= placed[-1]
    return float(best[-1]), tuple(reversed(placed))


def fluid_bound(per_layer: NDArray[np.float64], layers: int, passes: float) -> float:
    r"""No placement of ``layers`` on stages of so many seconds per layer is faster [s].

    The slowest stage takes at least what it would if layers flowed freely, and the first micro-batch passes all layers:

    .. math:: (m - 1) \frac{L}{\sum_i 1/t_i} + L \min_i t_i
    """
    return (passes - 1.0) * layers / float(np.sum(1.0 / per_layer)) + layers * float(per_layer.min())
