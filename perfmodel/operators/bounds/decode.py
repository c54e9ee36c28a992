"""Decode attention: a few new queries on a long cache."""

from __future__ import annotations

from perfmodel.elementwise import Scalar, where
from perfmodel.units import Bytes

__all__ = [
    "decode_attention",
    "decode_intensity",
    "decode_shared_prefix",
    "decode_split",
    "in_storage_bytes",
    "offloaded_activation_bytes",
    "offloaded_cache_bytes",
    "split_partials",
]


def decode_attention(context: Scalar, q_heads: Scalar, kv_heads: Scalar, d: Scalar, queries: Scalar = 1.0) -> Scalar:
    r"""Traffic of one sequence: :math:`2 n h_{kv} d + 2 h_q t d`, which is compulsory and reached.

    Every key and value is read once for the ``q_heads / kv_heads`` heads that share it and for all ``queries``
    (speculative tokens).

    References
    ----------
    .. [1] N. Shazeer, "Fast transformer decoding: one write-head is all you need", arXiv:1911.02150.

    Examples
    --------
    >>> decode_attention(1000, 8, 1, 128)
    258048.0
    """
    return 2.0 * context * kv_heads * d + 2.0 * q_heads * queries * d


def decode_intensity(q_heads: Scalar, kv_heads: Scalar, element_bytes: Bytes, queries: Scalar = 1.0) -> Scalar:
    """Operations per byte of the cache, ``2 g t / b``, whatever the batch [FLOP/B].

    Examples
    --------
    >>> decode_intensity(64, 8, 2.0), decode_intensity(32, 32, 2.0)
    (8.0, 1.0)
    """
    return 2.0 * queries * q_heads / (kv_heads * element_bytes)


def decode_shared_prefix(prefix: Scalar, suffixes: Scalar, kv_heads: Scalar, d: Scalar) -> Scalar:
    """Keys and values of a group of requests: the common prefix once, and the ``suffixes`` of all of them.

    Examples
    --------
    >>> decode_shared_prefix(1000, 8 * 10, 1, 128) / (8 * decode_shared_prefix(1000, 10, 1, 128)) < 0.14
    True
    """
    return 2.0 * kv_heads * d * (prefix + suffixes)


def split_partials(splits: Scalar, q_heads: Scalar, d: Scalar, queries: Scalar = 1.0) -> Scalar:
    """Partial outputs when the keys are split: ``d`` sums, a maximum and a normaliser per head and split.

    References
    ----------
    .. [1] T. Dao, D. Haziza, F. Massa, G. Sizov, "Flash-Decoding for long-context inference", 2023.

    Examples
    --------
    >>> split_partials(4, 8, 128)
    4160.0
    """
    return splits * q_heads * queries * (d + 2.0)


def decode_split(context: Scalar, q_heads: Scalar, kv_heads: Scalar, d: Scalar, splits: Scalar) -> Scalar:
    """Traffic with the keys split: each split reads the query, partial results are written and read once.

    Examples
    --------
    >>> decode_split(1000, 8, 1, 128, 1) == decode_attention(1000, 8, 1, 128)
    True
    """
    partials = where(splits > 1.0, 2.0 * split_partials(splits, q_heads, d), 0.0)
    return decode_attention(context, q_heads, kv_heads, d) + (splits - 1.0) * q_heads * d + partials


def offloaded_activation_bytes(hidden: Scalar, group: Scalar, element_bytes: Bytes) -> Bytes:
    r"""Per layer and token when attention runs beside the cache: :math:`(2 + 2/G)\,d\,b`.

    References
    ----------
    .. [1] S. Chen et al., "Efficient heterogeneous large language model decoding with model-attention
       disaggregation", arXiv:2405.01814.

    Examples
    --------
    >>> offloaded_activation_bytes(8192, 8, 2.0)
    36864.0
    """
    return (2.0 + 2.0 / group) * hidden * element_bytes


def offloaded_cache_bytes(context: Scalar, hidden: Scalar, group: Scalar, element_bytes: Bytes) -> Bytes:
    """Per layer and token when the cache of ``context`` tokens is moved instead: ``n / (G + 1)`` times as much.

    Examples
    --------
    >>> offloaded_cache_bytes(9000, 8192, 8, 2.0) / offloaded_activation_bytes(8192, 8, 2.0)
    1000.0
    """
    return 2.0 * context * hidden * element_bytes / group


def in_storage_bytes(hidden: Scalar, element_bytes: Bytes) -> Bytes:
    r"""Per layer and token when attention runs where the cache is stored: query, new key and value, output.

    Of ungrouped heads, :math:`n / 2` times less than moving the cache of n tokens.

    References
    ----------
    .. [1] X. Pan et al., "InstAttention: in-storage attention offloading for cost-effective long-context LLM
       inference", arXiv:2409.04992.

    Examples
    --------
    >>> offloaded_cache_bytes(9000, 4096, 1, 2.0) / in_storage_bytes(4096, 2.0)
    4500.0
    """
    return 4.0 * hidden * element_bytes
