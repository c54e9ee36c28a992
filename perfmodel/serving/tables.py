"""Iteration times tabulated once per plan, so that a simulated iteration costs a few list look-ups.

The number of decoding sequences is a row of its own; tokens are exact up to :data:`EXACT` and every :data:`STRIDE` from
there on; contexts, keys per query and times of attention have geometric knots. Between knots times are linear, which
attention (proportional to tokens and keys) is but for its fixed costs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

import numpy as np

from perfmodel.elementwise import Scalar
from perfmodel.units import Seconds

__all__ = ["EXACT", "STRIDE", "IterationModel", "IterationTables", "constant_tables", "tabulate"]

EXACT, STRIDE = 256, 32
LEAST_CONTEXT = 16.0
PER_DOUBLING = 2
"""Knots of a context per doubling."""
MIXER_KNOTS = 20


class IterationModel(Protocol):
    """What is tabulated: :class:`perfmodel.phases.iteration.Iteration`, or a toy of the tests."""

    def decode(self, sequences: Scalar, context: Scalar) -> Seconds:
        """An iteration that only decodes [s]."""
        ...

    def mixed(self, tokens: Scalar, rows: Scalar, mixers: Seconds) -> Seconds:
        """An iteration with chunks [s]."""
        ...

    def decode_mixers(self, sequences: Scalar, context: Scalar) -> Seconds:
        """Attention and scans of an average layer for the decoding sequences [s]."""
        ...

    def chunk_mixers(self, sequences: Scalar, queries: Scalar, context: Scalar) -> Seconds:
        """Attention and scans of an average layer for the chunks [s]."""
        ...


@dataclass(frozen=True)
class IterationTables:
    """Times by look-up.

    Parameters
    ----------
    contexts : knots of the mean context of decoding sequences, ascending.
    decode : ``decode[b][i]`` [s] of b sequences at ``contexts[i]``.
    decode_mixers : the same for attention and scans of an average layer [s].
    tokens : knots of the new tokens, ascending.
    keys : knots of the mean keys per query of chunks.
    chunk_mixers : ``chunk_mixers[j][i]`` of ``tokens[j]`` tokens with ``keys[i]`` keys each [s].
    mixers : knots of the time of attention and scans [s].
    mixed : ``mixed[j][i]`` of ``tokens[j]`` new tokens and ``mixers[i]``, one sequence sampled [s].
    sampled : what ``n`` sampled sequences add to that [s].
    gain : tokens that a decoding sequence gains per iteration, on average.
    verify : its tokens that an iteration computes.
    above : ``above[b][i]`` of b sequences at ``contexts[i]`` in layers that chunks do not pass, if there are any [s].
    again : ``again[j][i]`` of ``tokens[j]`` tokens and ``mixers[i]`` in further passes of chunks, if there are any [s].
    pieces : share of a prompt that is pieces which attend within themselves, and their number.
    """

    contexts: list[float]
    decode: list[list[float]]
    decode_mixers: list[list[float]]
    tokens: list[float]
    keys: list[float]
    chunk_mixers: list[list[float]]
    mixers: list[float]
    mixed: list[list[float]]
    sampled: list[float]
    gain: float = 1.0
    verify: int = 1
    above: list[list[float]] = field(default_factory=list)
    again: list[list[float]] = field(default_factory=list)
    pieces: tuple[float, float] = (0.0, 1.0)

    def pairs(self, prompt: int, begin: int, size: int) -> float:
        """Keys that a chunk of ``size`` tokens from ``begin`` on sees, summed over its tokens."""
        share, number = self.pieces
        if not share:
            return size * (begin + 0.5 * size)
        edge = share * prompt
        apart = max(min(begin + size, edge) - begin, 0.0)
        whole = size - apart
        return apart * 0.5 * edge / number + whole * (begin + apart + 0.5 * whole)

    def decode_seconds(self, sequences: int, context: float) -> float:
        """An iteration that only decodes [s]."""
        return self.decode_line(sequences, context)[0]

    def decode_line(self, sequences: int, context: float) -> tuple[float, float, float]:
        """Time [s] at a mean context, its slope [s/token], and the context up to which it is this line."""
        knots, row = self.contexts, self.decode[sequences]
        i = bisect_right(knots, context, 1, len(knots) - 1) - 1
        slope = (row[i + 1] - row[i]) / (knots[i + 1] - knots[i])
        last = i == len(knots) - 2
        return row[i] + slope * (context - knots[i]), slope, inf if last else knots[i + 1]

    def mixed_seconds(self, sequences: int, context: float, tokens: int, pairs: float, chunks: int) -> float:
        """An iteration of ``sequences`` decoding sequences and ``chunks`` chunks [s].

        Parameters
        ----------
        sequences, context : decoding sequences and their mean context.
        tokens, pairs : new tokens of all chunks, and the keys that they see, summed over the tokens.
        chunks : number of chunks.
        """
        each = pairs / tokens
        own = mixers = _plane(self.tokens, self.chunk_mixers, self._place(tokens), tokens, self.keys, each)
        if sequences:
            knots, row = self.contexts, self.decode_mixers[sequences]
            i = bisect_right(knots, context, 1, len(knots) - 1) - 1
            mixers += _between(knots, row, i, context)
        more = _between(knots, self.above[sequences], i, context) if sequences and self.above else 0.0
        if self.again:
            more += _plane(self.tokens, self.again, self._place(tokens), tokens, self.mixers, own)
        total = tokens + sequences * self.verify
        rows = min(chunks + sequences, len(self.sampled) - 1)
        first = _plane(self.tokens, self.mixed, self._place(total), total, self.mixers, mixers)
        return first + self.sampled[rows] + more

    def _place(self, tokens: int) -> int:
        """Index of the last knot of the tokens at or below, but for the last."""
        j = tokens - 1 if tokens <= EXACT else EXACT - 1 + (tokens - EXACT) // STRIDE
        return min(j, len(self.tokens) - 2)


def _between(knots: list[float], row: list[float], i: int, x: float) -> float:
    """Linear between the knots ``i`` and ``i + 1``."""
    return row[i] + (row[i + 1] - row[i]) * (x - knots[i]) / (knots[i + 1] - knots[i])


def _plane(xs: list[float], table: list[list[float]], j: int, x: float, ys: list[float], y: float) -> float:
    """Bilinear interpolation, the cell of ``x`` known; beyond the ends the last cell goes on."""
    i = bisect_right(ys, y, 1, len(ys) - 1) - 1
    share = (y - ys[i]) / (ys[i + 1] - ys[i])
    low = table[j]
    below = low[i] + (low[i + 1] - low[i]) * share
    if x == xs[j]:
        return below
    high = table[j + 1]
    above = high[i] + (high[i + 1] - high[i]) * share
    return below + (above - below) * (x - xs[j]) / (xs[j + 1] - xs[j])


def tabulate(
    model: IterationModel, *, sequences: int, tokens: int, context: int, gain: float = 1.0, verify: int = 1,
    above: Callable[..., Seconds] | None = None, again: Callable[..., Seconds] | None = None,
    pieces: tuple[float, float] = (0.0, 1.0),
) -> IterationTables:  # fmt: skip
    """Tabulate an iteration model.

    Parameters
    ----------
    model : what to tabulate.
    sequences : most sequences that decode together.
    tokens : most new tokens of an iteration.
    context : longest context.
    gain, verify : tokens that a decoding sequence gains and computes per iteration.
    above, again : times of layers that chunks do not pass and of their further passes, where there are any.
    pieces : as in :class:`IterationTables`.
    """
    top = max(float(context), 4.0 * LEAST_CONTEXT)
    contexts = np.geomspace(LEAST_CONTEXT, top, int(np.ceil(np.log2(top / LEAST_CONTEXT) * PER_DOUBLING)) + 1)
    batch = np.arange(1.0, sequences + 1.0)
    b, c = _grid(batch, contexts)
    decode = _rows(model.decode(b, c), batch, contexts)
    decode_mixers = _rows(model.decode_mixers(b, c), batch, contexts)
    most = max(tokens + sequences * verify, 2)
    news = np.concatenate([np.arange(1.0, min(most, EXACT) + 1.0), np.arange(EXACT + STRIDE, most + STRIDE, STRIDE)])
    keys = np.concatenate(([0.5], contexts / 2.0, [top]))
    q, a = _grid(news, keys)
    chunks = np.maximum(q / (2.0 * a), 1.0)
    queries = q / chunks
    chunk_mixers = _rows(model.chunk_mixers(chunks, queries, np.maximum(a + 0.5 * queries, queries)), news, keys)
    largest = float(decode_mixers.max() + chunk_mixers.max()) or 1.0
    mixers = np.concatenate(([0.0], np.geomspace(largest * 1e-5, largest, MIXER_KNOTS)))
    t, m = _grid(news, mixers)
    mixed = _rows(model.mixed(t, np.ones_like(t), m), news, mixers)
    rows = np.arange(0.0, sequences + 65.0)
    several = np.asarray(model.mixed(np.full(rows.size, news[-1]), np.maximum(rows, 1.0), np.zeros(rows.size)))
    blank: list[list[float]] = [[0.0] * contexts.size]
    upper = [] if above is None else blank + _rows(above(b, c), batch, contexts).tolist()
    further = [] if again is None else _rows(again(t, m), news, mixers).tolist()
    return IterationTables(
        contexts.tolist(), blank + decode.tolist(), blank + decode_mixers.tolist(), news.tolist(), keys.tolist(),
        chunk_mixers.tolist(), mixers.tolist(), mixed.tolist(), (several - several[1]).tolist(), gain, verify,
        upper, further, pieces,
    )  # fmt: skip


def _grid(x: Any, y: Any) -> tuple[Any, Any]:
    """Every pair of two axes, flat."""
    return np.repeat(x, y.size), np.tile(y, x.size)


def _rows(values: Any, x: Any, y: Any) -> Any:
    """Back to one row per value of ``x``."""
    return np.broadcast_to(np.asarray(values, dtype=float), (x.size * y.size,)).reshape(x.size, y.size)


@dataclass(frozen=True)
class _Linear:
    """Iterations of a constant cost plus costs per token: a toy whose queues have closed forms."""

    fixed: float
    per_token: float
    per_sequence: float

    def decode(self, sequences: Scalar, context: Scalar) -> Seconds:
        return self.fixed + self.per_sequence * sequences + 0.0 * context

    def mixed(self, tokens: Scalar, rows: Scalar, mixers: Seconds) -> Seconds:
        return self.fixed + self.per_sequence * (rows - 1.0) + mixers + 0.0 * tokens

    def decode_mixers(self, sequences: Scalar, context: Scalar) -> Seconds:
        return 0.0 * sequences * context

    def chunk_mixers(self, sequences: Scalar, queries: Scalar, context: Scalar) -> Seconds:
        return self.per_token * sequences * queries + 0.0 * context


def constant_tables(
    fixed: float, per_token: float = 0.0, per_sequence: float = 0.0, *, sequences: int = 64, tokens: int = 2048,
    context: int = 8192, gain: float = 1.0, verify: int = 1,
) -> IterationTables:  # fmt: skip
    """Tables of iterations that take ``fixed`` seconds plus so much per prompt token and per sequence [s].

    Examples
    --------
    >>> constant_tables(0.01, sequences=4).decode_seconds(3, 100.0)
    0.01
    """
    toy = _Linear(fixed, per_token, per_sequence)
    return tabulate(toy, sequences=sequences, tokens=tokens, context=context, gain=gain, verify=verify)
