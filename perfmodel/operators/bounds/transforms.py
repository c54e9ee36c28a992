"""Fourier and Monarch transforms, and the selective scan."""

from __future__ import annotations

from perfmodel.elementwise import Scalar, ceil, floor, log2, maximum, minimum

__all__ = [
    "fft_flops",
    "fft_order",
    "fft_passes",
    "fft_traffic",
    "monarch_flops",
    "monarch_passes",
    "monarch_traffic",
    "scan_channels",
    "scan_compulsory",
    "scan_decode",
    "scan_fused",
    "scan_unfused",
]

_ROUNDING = 1e-9
"""Logarithms of exact powers may come out a little above a whole number."""


def fft_flops(n: Scalar) -> Scalar:
    r"""Real operations of a radix-2 transform of n complex points: :math:`5 n \log_2 n`.

    Examples
    --------
    >>> fft_flops(1024)
    51200.0
    """
    return 5.0 * n * log2(n)


def fft_order(n: Scalar, fast: Scalar) -> Scalar:
    r"""Order of the traffic of an n-point transform: :math:`\Theta(n \log n / \log S)`.

    References
    ----------
    .. [1] J.-W. Hong, H. T. Kung, "I/O complexity: the red-blue pebble game", STOC 1981, doi:10.1145/800076.802486.

    Examples
    --------
    >>> fft_order(2.0**20, 2.0**10) / 2**20
    2.0
    """
    return n * log2(n) / log2(fast)


def fft_passes(n: Scalar, radix: Scalar) -> Scalar:
    r"""Passes over the data with sub-transforms of ``radix`` points in fast memory: :math:`\lceil \log n/\log r\rceil`.

    Examples
    --------
    >>> fft_passes(2**20, 2**10), fft_passes(2**21, 2**10), fft_passes(512, 512)
    (2.0, 3.0, 1.0)
    """
    return maximum(ceil(log2(n) / log2(radix) - _ROUNDING), 1.0)


def fft_traffic(n: Scalar, fast: Scalar) -> Scalar:
    """Points loaded and stored by the transform in passes of the largest power of two that fits.

    Twiddle factors are computed, not loaded.

    Examples
    --------
    >>> fft_traffic(2**20, 1500) == 2 * 2 * 2**20
    True
    """
    return 2.0 * n * fft_passes(n, 2.0 ** floor(log2(fast)))


def monarch_flops(n: Scalar, order: Scalar) -> Scalar:
    r"""Operations of an order-p Monarch product with a vector of n: p stages of blocks of side :math:`n^{1/p}`.

    .. math:: 2 p\, n^{1 + 1/p}

    References
    ----------
    .. [1] D. Fu et al., "Monarch Mixer", arXiv:2310.12109.
    .. [2] D. Fu et al., "FlashFFTConv", arXiv:2311.05908.

    Examples
    --------
    >>> monarch_flops(4096, 2)
    1048576.0
    """
    return 2.0 * order * n ** (1.0 + 1.0 / order)


def monarch_passes(n: Scalar, order: Scalar, fast: Scalar) -> Scalar:
    r"""Passes over the vector: one if it fits, else as many stages are fused as have a joint group that fits.

    j consecutive stages mix groups of :math:`n^{j/p}` elements, so
    :math:`\lceil p / \lfloor p \log S/\log n \rfloor \rceil`, at most p.

    Examples
    --------
    >>> monarch_passes(2**20, 2, 2**20), monarch_passes(2**20, 2, 2**12), monarch_passes(2**24, 4, 2**12)
    (1.0, 2.0, 2.0)
    """
    fused = maximum(floor(order * log2(fast) / log2(n) + _ROUNDING), 1.0)
    return ceil(order / minimum(fused, order))


def monarch_traffic(n: Scalar, order: Scalar, fast: Scalar) -> Scalar:
    """Elements of the vector loaded and stored; the factors, reused over a batch of vectors, are not counted.

    Examples
    --------
    >>> monarch_traffic(2**20, 2, 2**12)
    4194304.0
    """
    return 2.0 * n * monarch_passes(n, order, fast)


def scan_compulsory(tokens: Scalar, channels: Scalar, state: Scalar) -> Scalar:
    """Inputs x and step (channels each), B and C (state each), output y per token, and the transition A once.

    Examples
    --------
    >>> scan_compulsory(10, 4, 2)
    168.0
    """
    return tokens * (3.0 * channels + 2.0 * state) + channels * state


def scan_channels(state: Scalar, fast: Scalar) -> Scalar:
    """Channels whose state and transition fit beside B and C of a token and x, step and y of each channel.

    Examples
    --------
    >>> scan_channels(16, 1024)
    28.0
    """
    return maximum(floor((fast - 2.0 * state) / (2.0 * state + 3.0)), 1.0)


def scan_fused(tokens: Scalar, channels: Scalar, state: Scalar, fast: Scalar) -> Scalar:
    """Traffic of one sequence with the state in fast memory; B and C are read once per block of channels.

    References
    ----------
    .. [1] A. Gu, T. Dao, "Mamba: linear-time sequence modeling with selective state spaces", arXiv:2312.00752,
       section 3.3.2.

    Examples
    --------
    >>> scan_fused(1000, 64, 16, 65536) == scan_compulsory(1000, 64, 16)
    True
    """
    blocks = ceil(channels / scan_channels(state, fast))
    return tokens * (3.0 * channels + 2.0 * state * blocks) + channels * state


def scan_unfused(tokens: Scalar, channels: Scalar, state: Scalar) -> Scalar:
    """Traffic in three kernels: decays and inputs of every state are written, scanned, and states read for y.

    Three arrays of tokens x channels x state are written and read: decay, input, state.

    Examples
    --------
    >>> scan_unfused(10, 4, 2) - scan_compulsory(10, 4, 2)
    480.0
    """
    return scan_compulsory(tokens, channels, state) + 6.0 * tokens * channels * state


def scan_decode(channels: Scalar, state: Scalar) -> Scalar:
    """One token of one sequence: the state is read and written, whatever came before.

    Examples
    --------
    >>> scan_decode(4, 2)
    40.0
    """
    return 2.0 * channels * state + scan_compulsory(1.0, channels, state)
