"""Exact softmax attention: prefill (many queries) and decode (few queries on a long cache)."""

from __future__ import annotations

from perfmodel.elementwise import Scalar, minimum, where
from perfmodel.operators.work import Shape, Work
from perfmodel.units import Bytes

__all__ = ["attention", "attention_pairs", "decode_attention", "materialised_attention"]


def attention_pairs(q_len: Scalar, kv_len: Scalar, *, causal: bool = True, window: Scalar | None = None) -> Scalar:
    """Number of (query, key) pairs of one head and sequence, the last query seeing all ``kv_len`` keys.

    Exact for a causal mask and for a sliding ``window`` (each query sees at most ``window`` latest keys).

    Examples
    --------
    >>> attention_pairs(4, 4)
    10.0
    >>> attention_pairs(1, 1000)
    1000.0
    >>> attention_pairs(4, 4, window=2)
    7.0
    """
    if not causal:
        return q_len * minimum(kv_len, kv_len if window is None else 2.0 * window)
    first = kv_len - q_len + 1.0
    full = q_len * (first + kv_len) / 2.0
    if window is None:
        return full * 1.0
    growing = minimum(window - first, q_len)  # queries whose context is still below the window
    growing = where(growing > 0.0, growing, 0.0)
    return growing * (2.0 * first + growing - 1.0) / 2.0 + (q_len - growing) * minimum(window, kv_len)


def attention(
    batch: Scalar,
    q_heads: Scalar,
    kv_heads: Scalar,
    head_dim: Scalar,
    value_dim: Scalar,
    q_len: Scalar,
    kv_len: Scalar,
    *,
    causal: bool = True,
    window: Scalar | None = None,
    element_bytes: Bytes = 2.0,
    kv_bytes: Bytes = 2.0,
    format: str = "bf16",
) -> Work:
    r"""Fused exact attention (FlashAttention) over ``batch`` sequences.

    .. math:: F = 2P H_q (d + d_v),\qquad Q(M) = \Theta(Nd + P \min(d^2/M, d/\sqrt M))

    with P the exact number of (query, key) pairs of a head.

    Parameters
    ----------
    batch : sequences.
    q_heads, kv_heads : heads on this device.
    head_dim, value_dim : widths of keys and of values.
    q_len, kv_len : new queries, and keys including the new ones.
    element_bytes, kv_bytes : bytes per element of Q and O, and of the cache [B].

    References
    ----------
    .. [1] T. Dao, "FlashAttention-2", arXiv:2307.08691. One pass of K and V per ``M/4d`` queries: the leading term of
       :func:`perfmodel.operators.bounds.attention.flash2`.
    .. [2] B. Saha, C. Ye, "The I/O complexity of attention", arXiv:2402.07443. The constant of the bound is that of
       :func:`perfmodel.operators.bounds.attention.attention_scores_bound`.

    Examples
    --------
    >>> attention(1, 1, 1, 64, 64, 4, 4).flops
    2560.0
    """
    pairs = attention_pairs(q_len, kv_len, causal=causal, window=window)
    hidden = 0.0 if window is None else attention_pairs(q_len, kv_len, causal=causal) / pairs - 1.0
    width = head_dim + value_dim
    seen = minimum(kv_len, q_len + window) if window is not None else kv_len
    streams = batch * q_heads * pairs * width * kv_bytes
    return Work(
        operator="attention",
        format=format,
        flops=2.0 * batch * q_heads * pairs * width,
        compulsory_bytes=batch * (element_bytes * q_heads * q_len * width + kv_bytes * kv_heads * seen * width),
        reuse=4.0 * streams * head_dim * element_bytes,
        bound=batch * q_heads * pairs * head_dim**2.0 * element_bytes * kv_bytes,
        reuse_power=1.0,
        shape=Shape(q_len, pairs / q_len, width / 2.0, batch * q_heads),
        masked=hidden,
        knee=head_dim**2.0 * kv_bytes,
        slack=1.0,
    )


def materialised_attention(
    batch: Scalar, q_heads: Scalar, q_len: Scalar, kv_len: Scalar, *, element_bytes: Bytes = 2.0
) -> Bytes:
    """Traffic beyond that of the inputs when scores and probabilities are written out: 4 passes of N x N [B]."""
    return 4.0 * batch * q_heads * q_len * kv_len * element_bytes


def decode_attention(
    batch: Scalar,
    q_heads: Scalar,
    kv_heads: Scalar,
    head_dim: Scalar,
    value_dim: Scalar,
    context: Scalar,
    *,
    queries: Scalar = 1.0,
    window: Scalar | None = None,
    kv_bytes: Bytes = 2.0,
    latent: bool = False,
    format: str = "bf16",
) -> Work:
    r"""One decode step: ``queries`` new tokens per sequence attend to ``context`` cached ones.

    .. math:: Q \ge 2 n h_{kv} d\,b \text{ per sequence},\qquad I = 2 g / b

    with g query heads per key head; the same intensity for any batch.

    Parameters
    ----------
    latent : keys and values are one shared latent (absorbed MLA): it is read once and serves both.

    References
    ----------
    .. [1] N. Shazeer, "Fast transformer decoding: one write-head is all you need", arXiv:1911.02150.

    Examples
    --------
    >>> decode_attention(1, 8, 1, 128, 128, 1000).flops
    4096000.0
    """
    seen = context if window is None else minimum(context, window)
    read = head_dim if latent else head_dim + value_dim
    flops = 2.0 * batch * q_heads * queries * seen * (head_dim + value_dim)
    return Work(
        operator="decode_attention",
        format=format,
        flops=flops,
        compulsory_bytes=batch * (kv_heads * seen * read * kv_bytes + 2.0 * q_heads * queries * (head_dim + value_dim)),
        reuse_power=0.0,
        shape=Shape(queries, seen, (head_dim + value_dim) / 2.0, batch * kv_heads),
    )
