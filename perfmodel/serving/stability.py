"""Whether a load is one that the replicas can carry: whether the number in the system keeps growing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

__all__ = ["Stability", "stability"]

WINDOWS = 10
STUDENT = 2.896
"""99 % quantile of Student's t with ``WINDOWS`` − 2 degrees of freedom."""
LEAST_GROWTH = 0.02
"""Share of the arrivals that must stay for a load to count as too much [1]."""
FEWEST = 200


class Stability(NamedTuple):
    """The verdict.

    Parameters
    ----------
    stable : ``None`` where there are too few requests to tell.
    offered : arrivals per second over the second half of the arrivals [1/s].
    growth : requests by which the system fills, per second [1/s].
    sustained : rate at which requests leave while it fills: what would be stable, at most; the offered rate where
        the load is stable [1/s].
    """

    stable: bool | None
    offered: float
    growth: float
    sustained: float


def stability(arrivals: Sequence[float], outstanding: Sequence[float], ended: Sequence[float]) -> Stability:
    """Judge by the second half of the arrivals, so that the first filling of the replicas does not count.

    Parameters
    ----------
    arrivals : times of the arrivals [s].
    outstanding : requests in the system that each of them found.
    ended : times at which requests ended [s].

    The number in the system, averaged over ten windows, must rise significantly (one-sided t-test of the slope, 1 %)
    and by more than 2 % of the arrivals.
    """
    times, found = np.asarray(arrivals, dtype=float), np.asarray(outstanding, dtype=float)
    if times.size < FEWEST or times[-1] <= times[times.size // 2]:
        return Stability(None, math.nan, math.nan, math.nan)
    half = times.size // 2
    times, found = times[half:], found[half:]
    span = float(times[-1] - times[0])
    offered = times.size / span
    cuts = np.linspace(0, times.size, WINDOWS + 1).astype(int)
    x = np.array([times[a:b].mean() for a, b in pairwise(cuts)])
    y = np.array([found[a:b].mean() for a, b in pairwise(cuts)])
    x = x - x.mean()
    slope = float((x * y).sum() / (x * x).sum())
    rest = y - y.mean() - slope * x
    error = math.sqrt(float((rest * rest).sum()) / (WINDOWS - 2) / float((x * x).sum()))
    growing = slope > STUDENT * error and slope > LEAST_GROWTH * offered
    if not growing:
        return Stability(True, offered, slope, offered)
    left = np.asarray(ended, dtype=float)
    done = int(((left >= times[0]) & (left < times[-1])).sum())
    return Stability(False, offered, slope, done / span)
