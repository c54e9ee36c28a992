"""What a compressed model loses, from published comparisons: as printed, or between two that enclose it, or unknown.

Interpolation goes by model size inside a series (linear in the logarithm of the parameters) and by bits inside a method
(linear, which is on the safe side: losses fall ever more slowly as bits are added, so the chord lies above them). Both
ends are of one metric on one data set. Outside the published range the answer is ``None``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from perfmodel.specs.architecture import Architecture
from perfmodel.specs.number_formats import Published
from perfmodel.specs.quality.loss import Loss
from perfmodel.specs.quality.table import Row, Series, Size, rows_of, series

__all__ = ["format_loss"]

SAME = 0.005
"""Relative difference in parameter count up to which two models have one shape."""
METRICS = (("perplexity", "WikiText-2"), ("perplexity", ""), ("accuracy_avg", ""), ("score", "average"),
           ("accuracy", "MMLU"), ("accuracy", ""), ("recovery_pct", ""), ("relative_loss_pct", ""), ("score", ""),
           ("pass@1", ""), ("rouge2", ""), ("val_loss", ""))  # fmt: skip
"""(metric, part of the data set's name), what tells most of a general loss first."""
ROUNDED = 0.015
"""Relative difference of stored bits up to which a published average is that of the format: it leaves parts out."""
SCALE_BITS = 20.0
"""Scale and zero point of a group: what a row with a group and whole bits holds beside each group [bit]."""


class _Point(NamedTuple):
    """Loss of one model, and the bits between which it was interpolated."""

    row: Row
    value: float
    between: tuple[float, float] | None = None


class _Model(NamedTuple):
    """What tells a model apart."""

    family: str
    vocab: int
    positions: int | None
    parameters: int


def format_loss(wanted: Published | None, bits: float, architecture: Architecture) -> Loss | None:
    """Loss of a format on a model, ``None`` where nothing published tells.

    Parameters
    ----------
    wanted : rows that speak of the format.
    bits : stored bits per number, scales included; places the format between published ones of its method.
    architecture : the model.

    Notes
    -----
    The order is: this very model; a model of the same shape (another generation or a fine-tuned one); two sizes of its
    series that enclose it. Several rows of one metric are represented by the upper median.
    """
    if wanted is None:
        return None
    a = architecture
    return _lookup(wanted, bits, _Model(a.family, a.vocab, a.max_positions, a.parameters))


@lru_cache(maxsize=4096)
def _lookup(wanted: Published, bits: float, model: _Model) -> Loss | None:
    known = _series_of(model)
    same = [size for s in known for size in s.sizes if abs(model.parameters / size.parameters - 1.0) <= SAME]
    for size in same:
        for metric in METRICS:
            found = _point(wanted, bits, size, metric)
            if found is not None:
                return _loss([found])
    for s in known:
        found_between = _between_sizes(wanted, bits, s, model.parameters)
        if found_between is not None:
            return found_between
    return None


def _series_of(model: _Model) -> list[Series]:
    """Series of that family and vocabulary, those with its positions first."""
    known = [s for s in series() if model.family in s.family and model.vocab in s.vocab]
    return sorted(known, key=lambda s: s.positions is None or s.positions != model.positions)


def _between_sizes(wanted: Published, bits: float, s: Series, parameters: int) -> Loss | None:
    for metric in METRICS:
        points = [(size.parameters, p) for size in s.sizes if (p := _point(wanted, bits, size, metric)) is not None]
        for (below, low), (above, high) in pairwise(points):
            if below < parameters < above and low.row.dataset == high.row.dataset:
                share = math.log(parameters / below) / math.log(above / below)
                return _loss([low, high], (1.0 - share) * low.value + share * high.value)
    return None


def _point(wanted: Published, bits: float, size: Size, metric: tuple[str, str]) -> _Point | None:
    """Loss of the models of one size: as printed, or between two formats of the method with fewer and more bits."""
    for name in size.names:
        rows = [r for r in rows_of(name) if r.metric == metric[0] and metric[1] in r.dataset and _alike(wanted, r)]
        printed = [r for r in rows if r.cache == wanted.cache and _printed(wanted, r, bits)]
        exact = _median([r for r in printed if r.group == wanted.group]) or _median(printed)
        if exact is not None:
            return _Point(exact, exact.loss)
        for dataset in dict.fromkeys(r.dataset for r in rows):
            found = _between_bits([r for r in rows if r.dataset == dataset], wanted, bits)
            if found is not None:
                return found
    return None


def _printed(wanted: Published, row: Row, bits: float) -> bool:
    """Whether a row is of the wanted bits and groups; a group that is not printed is taken to be the wanted one."""
    if wanted.weights is None:
        return abs(_stored_bits(row) / bits - 1.0) <= ROUNDED
    return row.weights == wanted.weights and (wanted.group == "" or row.group in (wanted.group, ""))


def _alike(wanted: Published, row: Row) -> bool:
    """Whether a row is of the wanted method and differs at most in the bits that are interpolated."""
    return row.method in wanted.methods and row.activations == wanted.activations and row.sparsity == wanted.sparsity


def _between_bits(rows: Sequence[Row], wanted: Published, bits: float) -> _Point | None:
    """Between the nearest formats that enclose ``bits``: of the weights, or of the cache where that is what changes."""
    of_cache = wanted.cache < 16.0
    kept = [r for r in rows if (r.weights == wanted.weights if of_cache else r.cache == wanted.cache)]
    at: Callable[[Row], float] = (lambda r: r.cache) if of_cache else _stored_bits
    below = [r for r in kept if at(r) < bits]
    above = [r for r in kept if at(r) > bits]
    if not below or not above:
        return None
    b, a = max(map(at, below)), min(map(at, above))
    low = _median([r for r in below if at(r) == b])
    high = _median([r for r in above if at(r) == a])
    assert low is not None  # noqa: S101 - narrows the type, both lists hold a row
    assert high is not None  # noqa: S101
    share = (bits - b) / (a - b)
    return _Point(low, (1.0 - share) * low.loss + share * high.loss, (b, a))


def _stored_bits(row: Row) -> float:
    """Bits per weight with scales; fractions in the table include them [bit]."""
    whole = row.weights == math.floor(row.weights)
    return row.weights + (SCALE_BITS / float(row.group) if whole and row.group.isdigit() else 0.0)


def _median(rows: Iterable[Row]) -> Row | None:
    """The row in the middle, the worse of two."""
    ordered = sorted(rows, key=lambda r: r.loss)
    return ordered[len(ordered) // 2] if ordered else None


def _loss(points: Sequence[_Point], value: float | None = None) -> Loss:
    first = points[0]
    metric = f"{first.row.dataset} {first.row.metric.replace('_', ' ')}".strip()
    between = next((p.between for p in points if p.between is not None), None)
    return Loss(
        value=first.value if value is None else value,
        metric=metric,
        source="; ".join(dict.fromkeys(p.row.source for p in points)),
        models=tuple(p.row.model for p in points),
        bits=between,
    )
