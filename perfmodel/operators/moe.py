"""Fused mixture-of-experts layers: which experts get how many tokens, and the two grouped products they make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.elementwise import Scalar, log2, maximum, minimum, sqrt
from perfmodel.operators.work import Routed, Shape, Work
from perfmodel.units import Bytes

__all__ = [
    "HEIGHTS",
    "Loads",
    "busiest",
    "busiest_rank",
    "chance_load",
    "chosen",
    "even_choice",
    "even_loads",
    "expected_loads",
    "group_limited",
    "moe",
    "sampled_group_limited_loads",
    "sampled_loads",
    "skewed_loads",
    "summed",
]

Counts = NDArray[np.int64]
"""Tokens of every expert: last axis the experts of a rank, axis before it the ranks."""

HEIGHTS = (8.0, 16.0, 32.0, 64.0, 128.0)
"""Rows of a tile of a grouped product that a library chooses from."""
SAMPLES = 8
"""Random routings whose loads are averaged."""


class Loads(NamedTuple):
    """What the busiest rank computes.

    Parameters
    ----------
    rows : (token, expert) pairs.
    active : experts with at least one token.
    tiles : tiles of every height of :data:`HEIGHTS` that hold the rows, no tile spanning two experts.
    """

    rows: Scalar
    active: Scalar
    tiles: tuple[Scalar, ...]


def summed(loads: NDArray[Any]) -> Loads:
    """Sums over the experts of the last axis, averaged over all other axes.

    Examples
    --------
    >>> summed(np.array([9, 0, 1])).tiles[0]
    3.0
    """
    tiles = tuple(float(np.mean(np.sum(np.ceil(loads / height), axis=-1))) for height in HEIGHTS)
    return Loads(float(np.mean(np.sum(loads, axis=-1))), float(np.mean(np.sum(loads > 0, axis=-1))), tiles)


def even_loads(tokens: int, top_k: int, experts: int) -> Counts:
    """Tokens of every expert when token ``t`` takes every ``experts / top_k``-th expert from its own on.

    Examples
    --------
    >>> even_loads(6, 2, 4).tolist()
    [3, 3, 3, 3]
    """
    return np.bincount(even_choice(tokens, top_k, experts).ravel(), minlength=experts)


def even_choice(tokens: int, top_k: int, experts: int) -> Counts:
    """Experts of every token under :func:`even_loads`: shape (tokens, top_k)."""
    stride = -(-experts // top_k)
    first = np.arange(tokens) * (stride / tokens if tokens < stride else 1.0)
    return ((first[:, None] + stride * np.arange(top_k)) % experts).astype(np.int64)


def skewed_loads(
    tokens: int, top_k: int, experts: int, skew: float, *, ranks: int = 1, samples: int = SAMPLES
) -> Counts:
    r"""Loads whose density falls as :math:`l^{-skew}`: shape (samples, ranks, experts of a rank).

    Popularities are drawn by inverting the distribution function between 1 and 0.8 tokens (0.01 and 2 where there are
    fewer pairs than experts), scaled to the number of pairs and rounded; no expert gets more than every token. What
    rounding leaves over is dealt rank by rank to the least loaded experts: few tokens are spread, not clustered [1]_.

    References
    ----------
    .. [1] ai-dynamo/aiconfigurator, collector/helper.py (power-law routing of its measurements).
    """
    pairs, local = tokens * top_k, experts // ranks
    low, high = (1.0, 0.8 * tokens) if pairs > experts else (0.01, 2.0)
    drawn = _inverse_power(np.random.default_rng(0).random((samples, experts)), skew, low, high)
    wanted = np.rint(drawn / drawn.sum(axis=1, keepdims=True) * pairs)
    loads: Counts = np.minimum(wanted, tokens).astype(np.int64).reshape(samples, ranks, local)
    for sample in loads:
        _deal(sample, pairs - int(sample.sum()), tokens)
    return loads


def _inverse_power(u: NDArray[np.float64], skew: float, low: float, high: float) -> NDArray[np.float64]:
    """Quantiles of a density that falls as ``x**-skew`` between ``low`` and ``high``."""
    if abs(skew - 1.0) < 1e-9:
        return np.asarray(low * (high / low) ** u)
    power = 1.0 - skew
    return np.asarray(((high**power - low**power) * u + low**power) ** (1.0 / power))


def _deal(loads: Counts, rest: int, most: int) -> None:
    """Add ``rest`` pairs (take them away if negative) one by one, in turn over the ranks; in place."""
    step = 1 if rest > 0 else -1
    while rest:
        open_ = loads < most if step > 0 else loads > 0
        order = np.where(open_, step * loads, most + 1)
        least = order.min(axis=1)
        for rank in np.flatnonzero(least <= most):
            same = np.flatnonzero(order[rank] == least[rank])
            share = -(-abs(rest) // max(1, int(np.sum(least[rank:] <= most))))
            taken = same[: min(share, len(same))]
            loads[rank, taken] += step
            rest -= step * len(taken)
            if not rest:
                return


def busiest_rank(variation: Scalar, experts: Scalar, ranks: Scalar) -> Scalar:
    r"""Load of the busiest of ``ranks`` that share the experts evenly, over the mean: :math:`1 + c\sqrt{2 \ln R\;R/E}`.

    A rank adds up the loads of E/R experts, whose coefficient of variation c falls with the root of their number; the
    largest of R alike sums lies no more than :math:`\sqrt{2 \ln R}` deviations above the mean [1]_. No rank gets more
    than all there is.

    References
    ----------
    .. [1] S. Boucheron, G. Lugosi, P. Massart, "Concentration inequalities", 2013, section 2.5.

    Examples
    --------
    >>> busiest_rank(0.5, 64.0, 1.0), round(busiest_rank(0.5, 64.0, 8.0), 3)
    (1.0, 1.361)
    """
    deviations = sqrt(2.0 * math.log(2.0) * log2(ranks) * ranks / experts)
    return minimum(1.0 + variation * deviations, ranks)


def chance_load(
    tokens: Scalar, ranks: Scalar, *, top_k: float, experts: float, groups: float = 1.0, kept: float = 1.0
) -> Scalar:
    r"""Load of the busiest of ``ranks`` over the mean where all experts are as popular: tokens choose by themselves.

    A token keeps :math:`g` of :math:`G` groups of experts, then k experts of those, so the number X that it chooses of
    a rank's experts is hypergeometric twice; T tokens add up, and the largest of R alike sums lies about
    :math:`\sqrt{2 \ln R} - 0.6` deviations above the mean (2 to 128 ranks, within 0.1):

    .. math:: 1 + \frac{R}{k} \sqrt{\frac{Var\,X}{T}} (\sqrt{2 \ln R} - 0.6)

    Examples
    --------
    >>> round(chance_load(32.0, 8.0, top_k=8.0, experts=256.0), 3)
    1.235
    >>> round(chance_load(32.0, 8.0, top_k=8.0, experts=256.0, groups=8.0, kept=4.0), 3)
    1.333
    """
    held, cut = maximum(groups / ranks, 1.0), maximum(ranks / groups, 1.0)
    part = held / groups
    open_groups = kept * part * (1.0 - part) * (groups - kept) / maximum(groups - 1.0, 1.0)
    spread = open_groups / (kept * cut) ** 2
    share = 1.0 / ranks
    among = kept * experts / groups
    within = top_k * maximum(share * (1.0 - share) - spread, 0.0) * (among - top_k) / maximum(among - 1.0, 1.0)
    deviation = ranks / top_k * sqrt((within + top_k * top_k * spread) / maximum(tokens, 1.0))
    above = maximum(sqrt(2.0 * math.log(2.0) * log2(ranks)) - 0.6, 0.0)
    return minimum(1.0 + deviation * above, maximum(minimum(ranks, experts / top_k), 1.0))


def busiest(loads: Counts) -> Counts:
    """Loads of the experts of the busiest rank of every sample: shape (samples, experts of a rank)."""
    ranks = loads.sum(axis=-1).argmax(axis=-1)
    return np.asarray(loads[np.arange(len(loads)), ranks])


def chosen(loads: Counts, tokens: int, top_k: int) -> Counts:
    """Experts of every token that add up to the loads of all experts, none twice: shape (tokens, top_k).

    Examples
    --------
    >>> chosen(np.array([3, 1, 2]), 3, 2).tolist()
    [[0, 2], [0, 2], [0, 1]]
    """
    order = np.argsort(-loads, kind="stable")
    return np.repeat(order, loads[order]).reshape(top_k, tokens).T


def group_limited(choice: Counts, experts: int, groups: int, kept: int) -> Counts:
    """What a router that first keeps the best groups of experts makes of a choice, ties going to the first [1]_.

    Groups are ranked by their two best experts; a token that wanted experts of other groups takes unwanted ones of
    the groups it keeps.

    References
    ----------
    .. [1] DeepSeek-AI, "DeepSeek-V3 technical report", arXiv:2412.19437, section 2.1.2.
    """
    tokens, top_k = choice.shape
    token = np.arange(tokens)[:, None]
    wanted = np.zeros((tokens, experts), dtype=np.int64)
    wanted[token, choice] = 1
    best = np.minimum(wanted.reshape(tokens, groups, -1).sum(axis=-1), 2)
    open_ = np.zeros((tokens, groups), dtype=np.int64)
    open_[token, np.argsort(-best, axis=1, kind="stable")[:, :kept]] = 2
    score = wanted + np.repeat(open_, experts // groups, axis=1)
    return np.argsort(-score, axis=1, kind="stable")[:, :top_k]


@lru_cache(maxsize=8192)
def sampled_loads(tokens: int, top_k: int, experts: int, skew: float = 0.0, ranks: int = 1) -> Loads:
    """Loads of the busiest rank: even routing for ``skew`` 0, else the mean over random routings.

    Examples
    --------
    >>> sampled_loads(64, 2, 8, ranks=4).rows
    32.0
    """
    if skew == 0.0:
        even = even_loads(tokens, top_k, experts).reshape(ranks, -1)
        return summed(even[0])
    return summed(busiest(skewed_loads(tokens, top_k, experts, skew, ranks=ranks)))


@lru_cache(maxsize=512)
def sampled_group_limited_loads(
    tokens: int, top_k: int, experts: int, skew: float, ranks: int, groups: int, kept: int
) -> Loads:
    """Loads of the rank that would be busiest under :func:`skewed_loads`, after :func:`group_limited`."""
    few = min(tokens, 512)  # loads grow in proportion beyond
    local, found = experts // ranks, []
    for sample in skewed_loads(few, top_k, experts, skew, ranks=ranks, samples=4):
        order = np.roll(np.arange(ranks), -int(sample.sum(axis=-1).argmax()))
        choice = group_limited(chosen(sample[order].ravel(), few, top_k), experts, groups, kept)
        found.append(np.bincount(choice.ravel(), minlength=experts)[:local])
    return summed(np.array(found) * (tokens / few))


def expected_loads(rows: Scalar, active: Scalar) -> Loads:
    """Loads where ``rows`` pairs spread evenly over ``active`` experts: a closed form for any kind of number.

    An expert's last tile is half empty on average, and no tile is shared.

    Examples
    --------
    >>> expected_loads(64.0, 2.0).tiles
    (8.875, 4.9375, 2.96875, 2.0, 2.0)
    """
    tiles = tuple(maximum(active, rows / height + 0.5 * active * (1.0 - 1.0 / height)) for height in HEIGHTS)
    return Loads(rows, active, tiles)


def moe(
    tokens: Scalar,
    hidden: Scalar,
    width: Scalar,
    loads: Loads | Sequence[Scalar],
    *,
    experts: Scalar,
    gated: Scalar = 1.0,
    top_k: Scalar = 1.0,
    element_bytes: Bytes = 2.0,
    weight_bytes: Bytes = 2.0,
    input_bytes: Bytes | None = None,
    format: str = "bf16",
) -> Work:
    r"""Routed experts of one rank: gate and up in one grouped product, then down in another.

    .. math:: F = 2 r h w (2 + g),\quad
        Q = a h w (2 + g) b_w + r\,(b_i h + b_a w (1 + g) + b_i w + b_a h)

    Parameters
    ----------
    tokens : tokens presented to the rank; every one is routed even if its experts live elsewhere.
    hidden, width : size of the model and inner size of an expert on this rank.
    loads : rows ``r``, active experts ``a`` and tiles of this rank.
    experts : experts that live on this rank.
    gated : 1 for a gated activation (three matrices), 0 for two.
    top_k : experts that every token chooses.
    element_bytes : bytes per activation [B].
    weight_bytes : bytes per weight as stored, scales included [B].
    input_bytes : bytes per activation that a product reads, where it was quantised [B].
    format : number format of the multiplications.

    Examples
    --------
    >>> moe(4.0, 1024.0, 512.0, expected_loads(8.0, 8.0), experts=8.0).flops
    25165824.0
    """
    rows, active, tiles = loads
    read = element_bytes if input_bytes is None else input_bytes
    matrices = 2.0 + gated
    moved = rows * (read * (hidden + width) + element_bytes * (width * (1.0 + gated) + hidden))
    products = rows * hidden * width * matrices
    reuse = 2.0 * products * element_bytes**1.5
    return Work(
        operator="moe",
        format=format,
        flops=2.0 * products,
        compulsory_bytes=active * hidden * width * matrices * weight_bytes + moved,
        reuse=reuse,
        bound=reuse,
        shape=Shape(rows, width, hidden, active),
        routed=Routed(tokens, top_k, experts, gated, tuple(tiles)),
    )
