"""What a simulation keeps: latencies of every request, times between tokens by size, and where the time went."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from perfmodel.serving.pool import Pool
    from perfmodel.serving.request import Request

__all__ = ["Histogram", "Spread", "Totals", "sections", "spread"]

SECTIONS = 20
PERCENTILES = (50.0, 90.0, 99.0)


class Histogram:
    """Times by size, in bins that are 0.5 % wide: percentiles of billions of values in fixed memory.

    Examples
    --------
    >>> h = Histogram()
    >>> h.add(0.02, 99)
    >>> h.add(0.5, 1)
    >>> round(h.percentile(50), 3), round(h.mean, 4)
    (0.02, 0.0248)
    """

    LEAST, WIDTH, BINS = 1e-7, 0.005, 5600

    def __init__(self) -> None:
        self.counts = [0] * self.BINS
        self.total, self.number = 0.0, 0

    def add(self, seconds: float, times: int) -> None:
        """Count a time so many times."""
        self.counts[self._bin(seconds)] += times
        self.total += seconds * times
        self.number += times

    def add_series(self, first: float, slope: float, count: int, times: int) -> None:
        """Count ``first``, ``first + slope``, … (``count`` of them), each so many times."""
        if count == 1:
            self.add(first, times)
            return
        last = first + slope * (count - 1)
        self.total += 0.5 * (first + last) * count * times
        self.number += count * times
        low, high = self._bin(first), self._bin(last)
        if low == high:
            self.counts[low] += count * times
            return
        step = 1 if high > low else -1
        begun = 0
        for i in range(low, high, step):
            edge = self.LEAST * math.exp(self.WIDTH * (i + (step > 0)))
            upto = min(max(math.ceil((edge - first) / slope), begun), count)
            self.counts[i] += (upto - begun) * times
            begun = upto
        self.counts[high] += (count - begun) * times

    def _bin(self, seconds: float) -> int:
        if seconds <= self.LEAST:
            return 0
        return min(int(math.log(seconds / self.LEAST) / self.WIDTH), self.BINS - 1)

    @property
    def mean(self) -> float:
        """Mean, exact [s]."""
        return self.total / self.number if self.number else math.nan

    def percentile(self, share: float) -> float:
        """Percentile, within half a bin [s]."""
        if not self.number:
            return math.nan
        rank, seen = share / 100.0 * self.number, 0
        for i, count in enumerate(self.counts):
            seen += count
            if count and seen >= rank:
                return self.LEAST * math.exp(self.WIDTH * (i + 0.5))
        return math.nan


class Totals:
    """Results of one simulation, of all its replicas together; grows by four numbers per request.

    ``outside`` is what every request spends before its first token outside the replica, whatever the load [s].
    """

    def __init__(self, outside: float = 0.0) -> None:
        self.outside = outside
        self.ttft, self.tpot, self.e2e = array("d"), array("d"), array("d")
        self.ended = array("d")
        self.gaps = Histogram()
        self.output_tokens = self.prompt_tokens = 0
        self.asked_tokens = self.hit_tokens = 0
        """Prompt tokens of admissions (those after a preemption too), and those found in the cache."""
        self.preemptions = 0
        self.iterations = 0
        self.busy = 0.0
        self.sequence_seconds = 0.0
        self.block_seconds = 0.0
        self.fullest = 0.0
        self.chunk_seconds = 0.0
        """Iterations with prompts [s]."""
        self.limits: dict[str, float] = {}
        """Busy seconds by what kept the next request out; the empty name where nobody waited."""

    def admitted(self, target: int, hit: int) -> None:
        """A request starts, so many of its tokens found in the prefix cache."""
        self.asked_tokens += target
        self.hit_tokens += hit

    def iteration(
        self, seconds: float, decoding: int, tokens: int, pool: Pool, limit: str, count: int = 1
    ) -> None:  # fmt: skip
        """``count`` iterations took so long together."""
        self.iterations += count
        self.busy += seconds
        self.sequence_seconds += seconds * decoding
        used = (pool.blocks - pool.free - pool.cache.idle * pool.width) / pool.blocks
        self.block_seconds += seconds * used
        self.fullest = max(self.fullest, used)
        if tokens:
            self.chunk_seconds += seconds
        self.limits[limit] = self.limits.get(limit, 0.0) + seconds

    def finish(self, request: Request, now: float) -> None:
        """A request has its last token."""
        self.ttft.append(request.first - request.arrival + self.outside)
        self.e2e.append(now - request.arrival + self.outside)
        self.tpot.append((now - request.first) / (request.output - 1) if request.output > 1 else math.nan)
        self.ended.append(now)
        self.output_tokens += request.output
        self.prompt_tokens += request.prompt


class Spread(NamedTuple):
    """A latency: mean and percentiles [s], each with the half-width of its 95 % confidence interval."""

    mean: float
    p50: float
    p90: float
    p99: float
    mean_error: float
    p50_error: float
    p90_error: float
    p99_error: float


_STUDENT = 2.093
"""97.5 % quantile of Student's t with ``SECTIONS`` − 1 degrees of freedom."""


def sections(values: object) -> list[object]:
    """Cut a series into :data:`SECTIONS` runs of equal length, in its order."""
    data = np.asarray(values)
    return [data[data.size * i // SECTIONS : data.size * (i + 1) // SECTIONS] for i in range(SECTIONS)]


def spread(values: object) -> Spread | None:
    r"""Mean and percentiles of a correlated series with intervals by sectioning; ``None`` without values.

    Requests that follow each other share queues, so their latencies are not independent; runs of a twentieth of the
    series nearly are. Half-width: :math:`t_{0.975,n-1} \sqrt{\sum_i (q_i - q)^2 / (n (n-1))}` with the sections' own
    estimates :math:`q_i` around that of the whole (S. Asmussen, P. Glynn, Stochastic Simulation, 2007, III.5a). Below
    five values a section there is no interval (NaN).
    """
    data = np.asarray(values, dtype=float)
    data = data[~np.isnan(data)]
    if not data.size:
        return None
    whole = np.array([data.mean(), *np.percentile(data, PERCENTILES)])
    if data.size < 5 * SECTIONS:
        return Spread(*whole.tolist(), *[math.nan] * 4)
    parts = [np.asarray(p, dtype=float) for p in sections(data)]
    own = np.array([[p.mean(), *np.percentile(p, PERCENTILES)] for p in parts])
    error = _STUDENT * np.sqrt(((own - whole) ** 2).sum(axis=0) / (SECTIONS * (SECTIONS - 1)))
    return Spread(*whole.tolist(), *error.tolist())
