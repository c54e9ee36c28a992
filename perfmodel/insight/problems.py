"""Operators of given sizes with everything known about what they move: a bound, and the loops that approach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perfmodel.errors import SpecError
from perfmodel.operators.attention import attention_pairs
from perfmodel.operators.bounds import attention as att
from perfmodel.operators.bounds import decode as dec
from perfmodel.operators.bounds import matmul, passes, transforms

__all__ = ["Problem", "attention", "decode_attention", "fft", "gemm", "gemv", "monarch", "scan", "softmax"]

Count = Callable[[float], float | None]
"""Elements that a loop moves through a memory of so many elements; ``None`` where it cannot run in it."""


@dataclass(frozen=True)
class Problem:
    """One operator with its sizes.

    Parameters
    ----------
    operator : its name.
    sizes : by name.
    flops : operations [FLOP].
    matrix : whether matrix units do them.
    width : numbers per element (2 for complex).
    compulsory : elements of inputs and outputs.
    bound : elements that any algorithm moves, of (elements of a fast memory, how many such memories).
    algorithms : elements that known loops move.
    regime : what a fast memory of that size means for the bound.
    statement, source : the bound as a formula, and who proved it.
    """

    operator: str
    sizes: Mapping[str, float]
    flops: float
    matrix: bool
    compulsory: float
    bound: Callable[[float, float], float]
    algorithms: Mapping[str, Count]
    regime: Callable[[float, float], str]
    statement: str
    source: str
    width: float = 1.0


def positive(**sizes: float) -> dict[str, float]:
    """Sizes as they were given; every one must be at least 1."""
    for name, value in sizes.items():
        if value < 1:
            raise SpecError("at least 1 is needed", field="--" + name.replace("_", "-"), found=value)
    return sizes


def _once(bound: float, compulsory: float, otherwise: str) -> str:
    return "every element once" if bound <= compulsory else otherwise


def gemm(m: int, n: int, k: int, batch: int = 1) -> Problem:
    """``batch`` products ``C[m, n] = A[m, k] @ B[k, n]``."""
    compulsory = float(batch * matmul.gemm_compulsory(m, n, k))

    def bound(fast: float, parts: float) -> float:
        return float(max(compulsory, batch * matmul.gemm_smith(m, n, k, fast) + 2.0 * fast * (batch - parts)))

    return Problem(
        "gemm",
        positive(m=m, n=n, k=k, batch=batch),
        2.0 * batch * m * n * k,
        True,
        compulsory,
        bound,
        {
            "square block of C resident": lambda s: batch * matmul.gemm_blocked(m, n, k, s),
            "best resident block": lambda s: batch * matmul.gemm_achievable(m, n, k, s),
        },
        lambda s, p: _once(bound(s, p), compulsory, "reuse limited by √S"),
        "max(mk + kn + mn, 2mnk/√S − 2S)",
        "Smith et al., arXiv:1702.02017; Hong and Kung, STOC 1981",
    )


def gemv(m: int, n: int) -> Problem:
    """Matrix-vector product ``y[m] = A[m, n] @ x[n]``."""
    compulsory = float(matmul.gemv_compulsory(m, n))
    return Problem(
        "gemv",
        positive(m=m, n=n),
        2.0 * m * n,
        True,
        compulsory,
        lambda s, p: compulsory,
        {"x or y resident": lambda s: matmul.gemv_achievable(m, n, s)},
        lambda s, p: "every element once",
        "mn + m + n",
        "each element of the matrix is used once",
    )


def softmax(n: int, rows: int = 1) -> Problem:
    """Softmax of ``rows`` vectors of n."""

    def bound(fast: float, parts: float) -> float:
        return float(passes.softmax_lower_bound(n, fast, rows=rows, parts=parts))

    return Problem(
        "softmax",
        positive(n=n, rows=rows),
        5.0 * n * rows,
        False,
        2.0 * n * rows,
        bound,
        {
            "row resident": lambda s: rows * passes.softmax_in_cache(n) if n + 2 <= s else None,
            "online or two-pass": lambda s: rows * passes.softmax_two_pass(n),
            "three-pass, recomputing": lambda s: rows * passes.softmax_recompute(n),
            "three-pass, reloading": lambda s: rows * passes.softmax_reload(n),
        },
        lambda s, p: _once(bound(s, p), 2.0 * n * rows, "a row does not fit: two passes"),
        "2n + max(n − S, 0) per row",
        "every result depends on every input; passes: Dukhan and Ablavatski, arXiv:2001.04438",
    )


def attention(
    seq: int, head_dim: int, heads: int = 1, kv_heads: int | None = None, batch: int = 1, *, causal: bool = False
) -> Problem:
    """Exact softmax attention over ``batch`` sequences; query heads of one key head share its keys."""
    kv = heads if kv_heads is None else kv_heads
    sizes = positive(seq=seq, head_dim=head_dim, heads=heads, kv_heads=kv, batch=batch)
    if heads % kv:
        raise SpecError("must divide the query heads", field="--kv-heads", found=kv, allowed=f"divisors of {heads}")
    n, d, group, groups = float(seq), float(head_dim), heads // kv, batch * kv
    pairs = batch * heads * (attention_pairs(n, n) if causal else n * n)
    compulsory = groups * 2.0 * d * n * (group + 1)
    beside = (group - 1) * (2.0 * n * d + n)

    def bound(fast: float, parts: float) -> float:
        return float(max(compulsory, att.attention_scores_bound(pairs, d, fast, parts=parts)))

    def tiled(fast: float) -> float | None:
        rows = att.flash2_rows(d, fast)
        if rows < 1:
            return None
        if causal:
            return float(groups * (beside + att.flash2_causal(n, d, max(rows // group, 1.0))))
        return float(groups * att.flash2(group * n, n, d, rows))

    def published(fast: float) -> float | None:
        tile = att.published_tile(d, fast)
        return float(batch * heads * (att.flash2_causal(n, d, tile) if causal else att.flash2(n, n, d, tile)))

    def first(fast: float) -> float | None:
        if causal or fast < 4.0 * d:
            return None
        return float(batch * heads * att.flash1(n, d, att.published_tile(d, fast)))

    def regime(fast: float, parts: float) -> str:
        side = "M ≥ d²: whole rows" if fast >= d * d else "M < d²: blocked products"
        return side + (", every element once" if bound(fast, parts) <= compulsory else "")

    return Problem(
        "attention",
        {**sizes, "causal": float(causal)},
        4.0 * pairs * d,
        True,
        compulsory,
        bound,
        {
            "FlashAttention-2, largest tile": tiled,
            "FlashAttention-2, tile M/4d": lambda s: published(s) if s >= 4.0 * d else None,
            "FlashAttention, tile M/4d": first,
            "scores written, blocked products": lambda s: groups * att.attention_blocked_products(group * n, n, d, s),
        },
        regime,
        "max(2d(n_q + n_k), P d²/(M + d√M) − M); order P·min(d²/M, d/√M)",
        "order: Saha and Ye, arXiv:2402.07443; constant for classical products",
    )


def decode_attention(
    context: int, head_dim: int, heads: int = 1, kv_heads: int | None = None, batch: int = 1, queries: int = 1,
    splits: int = 1,
) -> Problem:  # fmt: skip
    """One decode step of ``batch`` sequences; ``queries`` new tokens each."""
    kv = heads if kv_heads is None else kv_heads
    sizes = positive(
        context=context, head_dim=head_dim, heads=heads, kv_heads=kv, batch=batch, queries=queries, splits=splits
    )
    compulsory = batch * dec.decode_attention(context, heads, kv, head_dim, queries)
    split = compulsory + batch * queries * (
        dec.decode_split(context, heads, kv, head_dim, splits) - dec.decode_split(context, heads, kv, head_dim, 1)
    )
    algorithms: dict[str, Count] = {"one pass over the cache": lambda s: compulsory}
    if splits > 1:
        algorithms = {f"{splits} splits of the cache": lambda s: split}
    return Problem(
        "decode-attention",
        sizes,
        4.0 * batch * heads * queries * context * head_dim,
        True,
        compulsory,
        lambda s, p: compulsory,
        algorithms,
        lambda s, p: "every element once",
        "2 n h_kv d + 2 h_q t d per sequence",
        "each key and value is used by the heads that share it; Shazeer, arXiv:1911.02150",
    )


def fft(n: int, batch: int = 1) -> Problem:
    """Fourier transform of n complex points, ``batch`` times."""
    sizes = positive(n=n, batch=batch)
    if n & (n - 1) or n < 2:
        raise SpecError("a power of two is needed", field="--n", found=n)
    return Problem(
        "fft",
        sizes,
        batch * transforms.fft_flops(n),
        False,
        2.0 * n * batch,
        lambda s, p: 2.0 * n * batch,
        {"passes of the largest radix": lambda s: batch * transforms.fft_traffic(n, s) if s >= 2 else None},
        lambda s, p: (
            "fits: one pass" if n <= s else f"{transforms.fft_passes(n, 2 ** int(s).bit_length() / 2):.0f} passes"
        ),
        "2n; order n log n / log S",
        "Hong and Kung, STOC 1981",
        width=2.0,
    )


def monarch(n: int, order: int = 2, batch: int = 1) -> Problem:
    """Order-p Monarch product of ``batch`` vectors of n; the factors stay."""
    sizes = positive(n=n, order=order, batch=batch)
    return Problem(
        "monarch",
        sizes,
        batch * transforms.monarch_flops(n, order),
        True,
        2.0 * n * batch,
        lambda s, p: 2.0 * n * batch,
        {"fused stages": lambda s: batch * transforms.monarch_traffic(n, order, s)},
        lambda s, p: "fits: one pass" if n <= s else f"{transforms.monarch_passes(n, order, s):.0f} passes",
        "2n per vector, the factors held",
        "stages that fit together: arXiv:2310.12109, arXiv:2311.05908",
    )


def scan(tokens: int, channels: int, state: int, batch: int = 1) -> Problem:
    """Selective state-space scan of ``batch`` sequences."""
    sizes = positive(tokens=tokens, channels=channels, state=state, batch=batch)
    compulsory = batch * (transforms.scan_compulsory(tokens, channels, state) - channels * state) + channels * state
    held = (batch - 1) * channels * state
    return Problem(
        "scan",
        sizes,
        6.0 * batch * tokens * channels * state,
        False,
        float(compulsory),
        lambda s, p: float(compulsory),
        {
            "fused, state resident": lambda s: (
                batch * transforms.scan_fused(tokens, channels, state, s) - (held if s >= 2 * channels * state else 0.0)
            ),
            "three kernels": lambda s: batch * transforms.scan_unfused(tokens, channels, state),
        },
        lambda s, p: "state fits" if transforms.scan_channels(state, s) >= channels else "channels in blocks",
        "T(3d + 2n) + dn",
        "inputs, outputs and transition once; Gu and Dao, arXiv:2312.00752",
    )
