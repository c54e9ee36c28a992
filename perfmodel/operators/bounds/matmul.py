"""Matrix products and matrix-vector products: what must cross a memory of ``fast`` elements."""

from __future__ import annotations

from perfmodel.elementwise import Scalar, ceil, floor, maximum, minimum, sqrt
from perfmodel.units import Bytes, BytesPerSecond, FlopsPerSecond

__all__ = [
    "balance_batch",
    "gemm_achievable",
    "gemm_block",
    "gemm_blocked",
    "gemm_compulsory",
    "gemm_irony_toledo_tiskin",
    "gemm_kwasniewski",
    "gemm_lower_bound",
    "gemm_memory_independent",
    "gemm_order",
    "gemm_replicated",
    "gemm_smith",
    "gemm_stationary",
    "gemv_achievable",
    "gemv_compulsory",
    "quantised_weights",
    "strassen_order",
]


def gemm_compulsory(m: Scalar, n: Scalar, k: Scalar) -> Scalar:
    """Elements of ``C[m, n] = A[m, k] @ B[k, n]``: inputs read once, the result written once.

    Examples
    --------
    >>> gemm_compulsory(2, 3, 4)
    26
    """
    return m * k + k * n + m * n


def gemm_order(m: Scalar, n: Scalar, k: Scalar, fast: Scalar) -> Scalar:
    r"""Order of the traffic of a classical product: :math:`\Theta(mnk/\sqrt S)`.

    References
    ----------
    .. [1] J.-W. Hong, H. T. Kung, "I/O complexity: the red-blue pebble game", STOC 1981, doi:10.1145/800076.802486.

    Examples
    --------
    >>> gemm_order(64, 64, 64, 64)
    32768.0
    """
    return m * n * k / sqrt(fast)


def gemm_irony_toledo_tiskin(m: Scalar, n: Scalar, k: Scalar, fast: Scalar) -> Scalar:
    r"""First bound with a constant: :math:`Q \ge mnk/(2\sqrt2\sqrt S) - S`.

    References
    ----------
    .. [1] D. Irony, S. Toledo, A. Tiskin, "Communication lower bounds for distributed-memory matrix multiplication",
       JPDC 64(9), 2004, doi:10.1016/j.jpdc.2004.03.021.

    Examples
    --------
    >>> gemm_irony_toledo_tiskin(64, 64, 64, 8)
    32760.0
    """
    return m * n * k / sqrt(8.0 * fast) - fast


def gemm_smith(m: Scalar, n: Scalar, k: Scalar, fast: Scalar, *, parts: Scalar = 1.0) -> Scalar:
    r"""Tight bound of the classical product: :math:`Q \ge 2mnk/\sqrt S - 2S`.

    In a phase of T reads at most S + T elements of the three matrices are at hand, so (Loomis-Whitney) at most
    :math:`((S+T)/3)^{3/2}` multiply-adds; T = 2S gives :math:`S^{3/2}` per 2S reads.

    Parameters
    ----------
    parts : memories of ``fast`` elements each that work side by side; the bound is that of their sum.

    References
    ----------
    .. [1] T. M. Smith, B. Lowery, J. Langou, R. van de Geijn, "A tight I/O lower bound for matrix multiplication",
       arXiv:1702.02017.

    Examples
    --------
    >>> gemm_smith(2048, 2048, 2048, 4096)
    268427264.0
    """
    return 2.0 * m * n * k / sqrt(fast) - 2.0 * parts * fast


def gemm_kwasniewski(m: Scalar, n: Scalar, k: Scalar, fast: Scalar) -> Scalar:
    r"""Sequential bound with the stores of the result: :math:`2mnk/\sqrt S + mn`.

    References
    ----------
    .. [1] G. Kwasniewski et al., "Red-blue pebbling revisited: near optimal parallel matrix-matrix multiplication",
       SC 2019, arXiv:1908.09606.

    Examples
    --------
    >>> gemm_kwasniewski(64, 64, 64, 64)
    69632.0
    """
    return 2.0 * m * n * k / sqrt(fast) + m * n


def gemm_lower_bound(m: Scalar, n: Scalar, k: Scalar, fast: Scalar, *, parts: Scalar = 1.0) -> Scalar:
    r"""No classical algorithm moves less: :math:`\max(mk + kn + mn,\; 2mnk/\sqrt S - 2S)`.

    The second term is active where the smallest side exceeds about :math:`\sqrt S`.

    Examples
    --------
    >>> gemm_lower_bound(2048, 2048, 2048, 65536), gemm_lower_bound(16, 2048, 2048, 65536)
    (66977792.0, 4259840)
    """
    return maximum(gemm_compulsory(m, n, k), gemm_smith(m, n, k, fast, parts=parts))


def gemm_block(fast: Scalar) -> Scalar:
    """Side b of the largest square block of C that fits with a column of A and a row of B: ``b*b + 2*b <= fast``.

    Examples
    --------
    >>> gemm_block(4096), gemm_block(3)
    (63.0, 1.0)
    """
    return maximum(floor(sqrt(fast + 1.0) - 1.0), 1.0)


def gemm_blocked(m: Scalar, n: Scalar, k: Scalar, fast: Scalar) -> Scalar:
    r"""Traffic with a square block of C resident and A and B streamed.

    .. math:: k\,(m \lceil n/b \rceil + n \lceil m/b \rceil) + mn,\qquad b^2 + 2b \le S

    Within :math:`1 + O(1/\sqrt S)` of the lower bound; the excess is edge blocks and the stores of C.

    Examples
    --------
    >>> gemm_blocked(2048, 2048, 2048, 4096)
    281018368.0
    """
    b = gemm_block(fast)
    return k * (m * ceil(n / b) + n * ceil(m / b)) + m * n


def _sides(rows: Scalar, columns: Scalar, fast: Scalar) -> tuple[Scalar, Scalar]:
    """Sides of the resident block: square where the operand is large, as wide as fits where one side is short."""
    narrow = minimum(rows, gemm_block(fast))
    wide = maximum(minimum(columns, floor((fast - narrow) / (narrow + 1.0))), 1.0)
    return maximum(minimum(rows, floor((fast - wide) / (wide + 1.0))), 1.0), wide


def gemm_stationary(m: Scalar, n: Scalar, k: Scalar, fast: Scalar) -> Scalar:
    """Traffic with a block of A resident while rows of B and C stream; partial sums of C are read back and added to.

    With roles exchanged it is also the traffic of a resident B. A is read once; B once per block row of A; C written
    once per block column of A and read back for all but the first.

    Examples
    --------
    >>> gemm_stationary(16, 4096, 16, 4096) == gemm_compulsory(16, 4096, 16)
    True
    """
    p, q = _sides(m, k, fast)
    return m * k + k * n * ceil(m / p) + m * n * (2.0 * ceil(k / q) - 1.0)


def gemm_achievable(m: Scalar, n: Scalar, k: Scalar, fast: Scalar) -> Scalar:
    """Least traffic of the known loop orders: square or wide blocks of C, of A, or of B resident.

    Examples
    --------
    >>> gemm_achievable(8, 4096, 4096, 65536) / gemm_compulsory(8, 4096, 4096) < 1.01
    True
    """
    p, q = _sides(m, n, fast)
    wide = k * (m * ceil(n / q) + n * ceil(m / p)) + m * n
    inner = minimum(gemm_stationary(m, n, k, fast), gemm_stationary(n, m, k, fast))
    return minimum(minimum(gemm_blocked(m, n, k, fast), wide), inner)


def strassen_order(n: Scalar, fast: Scalar, exponent: Scalar = 2.807354922057604) -> Scalar:
    r"""Order of the traffic of Strassen-like products of side n: :math:`(n/\sqrt S)^{\omega_0} S`.

    References
    ----------
    .. [1] G. Ballard, J. Demmel, O. Holtz, O. Schwartz, "Graph expansion and communication costs of fast matrix
       multiplication", J. ACM 59(6), 2012, arXiv:1109.1693.

    Examples
    --------
    >>> round(strassen_order(64, 64) / 64, 6) == 7.0 ** 3
    True
    """
    return (n / sqrt(fast)) ** exponent * fast


def gemm_memory_independent(m: Scalar, n: Scalar, k: Scalar, processors: Scalar) -> Scalar:
    r"""Traffic per processor however large its memory: :math:`3(mnk/p)^{2/3}` less what it may hold to begin with.

    References
    ----------
    .. [1] G. Ballard et al., "Strong scaling of matrix multiplication algorithms and memory-independent communication
       lower bounds", SPAA 2012, arXiv:1202.3177.

    Examples
    --------
    >>> round(gemm_memory_independent(64, 64, 64, 8), 6)
    1536.0
    """
    held = gemm_compulsory(m, n, k) / processors
    return maximum(3.0 * (m * n * k / processors) ** (2.0 / 3.0) - held, 0.0)


def gemm_replicated(m: Scalar, n: Scalar, k: Scalar, processors: Scalar, fast: Scalar, copies: Scalar = 1.0) -> Scalar:
    r"""Traffic per processor with c ``copies`` of the matrices (2.5D), c up to :math:`p^{1/3}`.

    .. math:: 2mnk/(p\sqrt{cS})

    References
    ----------
    .. [1] E. Solomonik, J. Demmel, "Communication-optimal parallel 2.5D matrix multiplication and LU factorization
       algorithms", Euro-Par 2011, doi:10.1007/978-3-642-23397-5_10.

    Examples
    --------
    >>> gemm_replicated(64, 64, 64, 8, 512, 2) * 2 == gemm_replicated(64, 64, 64, 8, 128, 2)
    True
    """
    useful = minimum(copies, processors ** (1.0 / 3.0))
    return 2.0 * m * n * k / (processors * sqrt(useful * fast))


def gemv_compulsory(m: Scalar, n: Scalar, batch: Scalar = 1.0) -> Scalar:
    """Elements of ``y[m] = A[m, n] @ x[n]`` for ``batch`` vectors: each element of A is used once per vector.

    Examples
    --------
    >>> gemv_compulsory(4, 8)
    44.0
    """
    return m * n + batch * (m + n)


def gemv_achievable(m: Scalar, n: Scalar, fast: Scalar) -> Scalar:
    r"""Traffic of the better of two loops, with ``fast - 2`` elements of x, or of y, resident.

    .. math:: mn + \min(n + m(2\lceil n/b\rceil - 1),\; m + n\lceil m/b\rceil)

    Equal to the compulsory traffic once x or y fits.

    Examples
    --------
    >>> gemv_achievable(4096, 64, 128) == gemv_compulsory(4096, 64)
    True
    """
    b = maximum(fast - 2.0, 1.0)
    return m * n + minimum(n + m * (2.0 * ceil(n / b) - 1.0), m + n * ceil(m / b))


def quantised_weights(m: Scalar, n: Scalar, bits: Scalar, group: Scalar, metadata_bytes: Bytes) -> Bytes:
    """Bytes of an ``m x n`` matrix of ``bits`` per weight with ``metadata_bytes`` per group of ``group`` weights.

    Examples
    --------
    >>> quantised_weights(4096, 4096, 4, 128, 4.0) * 8 / 4096**2
    4.25
    """
    return m * n * (bits / 8.0 + metadata_bytes / group)


def balance_batch(peak: FlopsPerSecond, bandwidth: BytesPerSecond, weight_bytes: Bytes = 2.0) -> Scalar:
    r"""Vectors per weight read from which a product is bound by arithmetic: :math:`B^* = F b / 2W`.

    Examples
    --------
    >>> round(balance_batch(312e12, 2.039e12)), round(balance_batch(989.4e12, 3.35e12))
    (153, 295)
    """
    return peak * weight_bytes / (2.0 * bandwidth)
