"""Softmax and cascades of reductions: how often data must be visited when it does not stay in fast memory."""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, where

__all__ = [
    "CASCADES",
    "Cascade",
    "attention_divisions",
    "live_footprint",
    "softmax_achievable",
    "softmax_in_cache",
    "softmax_lower_bound",
    "softmax_online",
    "softmax_recompute",
    "softmax_reload",
    "softmax_two_pass",
    "spill_traffic",
]


def softmax_in_cache(n: Scalar) -> Scalar:
    """Traffic of a softmax whose vector stays in fast memory: 1 read, 1 write.

    Examples
    --------
    >>> softmax_in_cache(1000)
    2000.0
    """
    return 2.0 * n


def softmax_recompute(n: Scalar) -> Scalar:
    """Three passes that compute each exponential twice: maximum, sum, scale; 3 reads, 1 write.

    References
    ----------
    .. [1] M. Dukhan, A. Ablavatski, "The two-pass softmax algorithm", arXiv:2001.04438.

    Examples
    --------
    >>> softmax_recompute(1000)
    4000.0
    """
    return 4.0 * n


def softmax_reload(n: Scalar) -> Scalar:
    """Three passes that store each exponential and scale it in place; 3 reads, 2 writes [1]_.

    References
    ----------
    .. [1] M. Dukhan, A. Ablavatski, "The two-pass softmax algorithm", arXiv:2001.04438.

    Examples
    --------
    >>> softmax_reload(1000)
    5000.0
    """
    return 5.0 * n


def softmax_two_pass(n: Scalar) -> Scalar:
    """Two passes with mantissa and exponent kept apart: no maximum is needed; 2 reads, 1 write [1]_.

    References
    ----------
    .. [1] M. Dukhan, A. Ablavatski, "The two-pass softmax algorithm", arXiv:2001.04438.

    Examples
    --------
    >>> softmax_recompute(1000) / softmax_two_pass(1000) == 4 / 3
    True
    """
    return 3.0 * n


def softmax_online(n: Scalar) -> Scalar:
    """Two passes with a running maximum and a rescaled sum; 2 reads, 1 write.

    References
    ----------
    .. [1] M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867.

    Examples
    --------
    >>> softmax_online(1000)
    3000.0
    """
    return 3.0 * n


def softmax_lower_bound(n: Scalar, fast: Scalar, *, rows: Scalar = 1.0, parts: Scalar = 1.0) -> Scalar:
    r"""No algorithm moves less: :math:`2n + \max(n - S, 0)` per row.

    Every result depends on every input through the sum, so none can be written before all are read; at that moment
    ``fast`` values can be at hand, and the others are read again.

    Parameters
    ----------
    rows : independent vectors.
    parts : memories of ``fast`` elements each that may share one vector.

    Examples
    --------
    >>> softmax_lower_bound(1000, 100), softmax_lower_bound(1000, 4096)
    (2900.0, 2000.0)
    """
    return rows * (2.0 * n + maximum(n - parts * fast, 0.0))


def softmax_achievable(n: Scalar, fast: Scalar) -> Scalar:
    """Least traffic of the known algorithms: in cache where the vector and two scalars fit, else two passes.

    Examples
    --------
    >>> softmax_achievable(1000, 1002), softmax_achievable(1000, 1001)
    (2000.0, 3000.0)
    """
    return where(n + 2.0 <= fast, softmax_in_cache(n), softmax_two_pass(n))


class Cascade(NamedTuple):
    """One way of computing attention, by how often it visits a row of scores.

    Parameters
    ----------
    passes : visits of a whole row of scores that no mapping can merge.
    algorithms : published implementations of it.
    whole_row : the live footprint grows with the number of keys, else it is one tile.
    """

    passes: int
    algorithms: tuple[str, ...]
    whole_row: bool


CASCADES: tuple[Cascade, ...] = (
    Cascade(3, ("PyTorch", "TensorFlow", "FLAT", "E.T."), True),
    Cascade(2, ("TileFlow", "Choi et al."), True),
    Cascade(1, ("FlashAttention", "FlashAttention-2", "Rabe and Staats", "FuseMax"), False),
)
"""Pass counts of attention: N. Nayak et al., "FuseMax", arXiv:2406.10491, table I."""


def live_footprint(passes: Scalar, keys: Scalar, tile: Scalar) -> Scalar:
    """Scores of one query that must stay alive: all of them between passes, one tile if there is one pass.

    References
    ----------
    .. [1] N. Nayak et al., "FuseMax: leveraging extended einsums to optimize attention accelerator design",
       arXiv:2406.10491.

    Examples
    --------
    >>> live_footprint(3, 65536, 256), live_footprint(1, 65536, 256)
    (65536, 256)
    """
    return where(passes > 1.0, keys, tile)


def spill_traffic(queries: Scalar, keys: Scalar, passes: Scalar, buffer: Scalar) -> Scalar:
    """Traffic of scores that do not stay in a ``buffer``: written once, read once for every pass but the first.

    Examples
    --------
    >>> [spill_traffic(1, 65536, passes, 1024) / 65536 for passes in (3, 2, 1)]
    [3.0, 2.0, 0.0]
    >>> spill_traffic(1, 512, 3, 1024)
    0.0
    """
    spilled = where(keys > buffer, 1.0, 0.0) * where(passes > 1.0, 1.0, 0.0)
    return spilled * queries * keys * passes


def attention_divisions(queries: Scalar, keys: Scalar, value_dim: Scalar, *, deferred: bool = True) -> Scalar:
    """Divisions by the normaliser: per score, or per output once it is deferred past the product with V.

    Examples
    --------
    >>> attention_divisions(1, 4096, 64, deferred=False) / attention_divisions(1, 4096, 64)
    64.0
    """
    return queries * (value_dim if deferred else keys)
