"""Matrix products: dense, batched (grouped), and matrix-vector."""

from __future__ import annotations

from perfmodel.elementwise import Scalar
from perfmodel.operators.bounds.transforms import monarch_flops, monarch_traffic
from perfmodel.operators.work import Shape, Work
from perfmodel.units import Bytes

__all__ = ["gemm", "gemv", "long_convolution"]


def gemm(
    m: Scalar,
    n: Scalar,
    k: Scalar,
    *,
    batch: Scalar = 1.0,
    element_bytes: Bytes = 2.0,
    weight_bytes: Bytes = 2.0,
    input_bytes: Bytes | None = None,
    format: str = "bf16",
) -> Work:
    r"""``batch`` products ``C[m, n] = A[m, k] @ W[k, n]``.

    .. math:: F = 2mnk,\quad Q_0 = b_a(mk + mn) + b_w kn,\quad Q(S) \ge 2mnk\,b_a\sqrt{b_w}/\sqrt{S} - 2S

    Parameters
    ----------
    m, n, k : rows of the activations, outputs, inputs.
    batch : independent products (routed experts, heads).
    element_bytes : bytes per activation [B].
    weight_bytes : bytes per weight as stored, scales included [B].
    input_bytes : bytes per activation that is read, where a pass in front has quantised it [B].
    format : number format of the multiplications.

    Notes
    -----
    The blocked algorithm keeps a block of C resident and streams A and W; its loads meet the lower bound up to
    lower-order terms [1]_. Elements of unlike width enter as the geometric mean of the three matrices' widths: a block
    of C longer along the narrower operand. Exact counts: :func:`perfmodel.operators.bounds.matmul.gemm_blocked`,
    :func:`perfmodel.operators.bounds.matmul.gemm_lower_bound`.

    References
    ----------
    .. [1] T. M. Smith, B. Lowery, J. Langou, R. van de Geijn, "A tight I/O lower bound for matrix multiplication",
       arXiv:1702.02017.

    Examples
    --------
    >>> gemm(4096, 4096, 4096).flops
    137438953472.0
    """
    products = batch * m * n * k
    read = element_bytes if input_bytes is None else input_bytes
    reuse = 2.0 * products * (element_bytes * read * weight_bytes) ** 0.5
    return Work(
        operator="gemm",
        format=format,
        flops=2.0 * products,
        compulsory_bytes=batch * (read * m * k + element_bytes * m * n + weight_bytes * k * n),
        reuse=reuse,
        bound=reuse,
        shape=Shape(m, n, k, batch),
        slack=2.0,
    )


def gemv(n: Scalar, k: Scalar, *, weight_bytes: Bytes = 2.0, format: str = "bf16") -> Work:
    r"""Matrix-vector product, the ``m = 1`` case: ``Q = kn + k + n`` elements, each weight used once.

    Examples
    --------
    >>> gemv(4096, 4096).intensity(1e6) < 1.0
    True
    """
    return gemm(1.0, n, k, weight_bytes=weight_bytes, format=format)


def long_convolution(
    vectors: Scalar, n: Scalar, filters: Scalar, *, order: Scalar = 2.0, fast: Scalar = 65536.0, format: str = "bf16"
) -> Work:
    r"""Convolution of ``vectors`` of n with filters as long, by Fourier transforms in order-p Monarch form.

    .. math:: F = 8 \cdot 2p\,(2n)^{1 + 1/p}\ \text{per vector}

    Each vector is padded to 2n, transformed, multiplied by its filter and transformed back; every transform is p stages
    of products with blocks of side :math:`(2n)^{1/p}`, complex ones take 4 real. What fits in ``fast`` elements passes
    through memory once.

    Parameters
    ----------
    filters : different filters among the vectors, stored transformed, two numbers per point.
    order : stages p of a transform.
    fast : elements of the memory of one compute unit.

    References
    ----------
    .. [1] D. Fu et al., "Monarch Mixer", arXiv:2310.12109.
    .. [2] D. Fu et al., "FlashFFTConv", arXiv:2311.05908.

    Examples
    --------
    >>> long_convolution(1, 2048, 1).flops
    8388608.0
    """
    points = 2.0 * n
    side = points ** (1.0 / order)
    moved = vectors * monarch_traffic(points, order, fast) / 2.0 + 2.0 * filters * points
    return Work(
        operator="gemm",
        format=format,
        flops=8.0 * vectors * monarch_flops(points, order),
        compulsory_bytes=2.0 * moved,
        reuse_power=0.0,
        shape=Shape(vectors, side, side, 8.0 * order * points / side),
    )
