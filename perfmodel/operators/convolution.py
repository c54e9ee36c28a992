"""Convolutions as products over the pixels under a kernel, never written out (implicit GEMM)."""

from __future__ import annotations

from perfmodel.elementwise import Scalar
from perfmodel.operators.gemm import gemm
from perfmodel.operators.work import Work
from perfmodel.units import Bytes

__all__ = ["convolution"]


def convolution(
    pixels: Scalar,
    inputs: Scalar,
    outputs: Scalar,
    *,
    taps: Scalar = 9.0,
    stride: Scalar = 1.0,
    element_bytes: Bytes = 2.0,
    weight_bytes: Bytes = 2.0,
    format: str = "bf16",
) -> Work:
    r"""Convolution with ``pixels`` outputs, images together.

    .. math:: F = 2 P\,t\,c_{in} c_{out},\qquad
        Q_0 = b (P s^2 c_{in} + P c_{out}) + b_w\,t\,c_{in} c_{out}

    Parameters
    ----------
    pixels : of the output P.
    inputs, outputs : channels.
    taps : pixels t of the kernel.
    stride : input pixels per output pixel s, per side.

    Notes
    -----
    The product of a matrix of P rows and t times the input channels; that matrix is gathered on chip, so the input
    crosses once. Its traffic beyond that is that of the product, an upper limit: rows of neighbouring pixels overlap.

    References
    ----------
    .. [1] S. Chetlur et al., "cuDNN: efficient primitives for deep learning", arXiv:1410.0759, section 3.

    Examples
    --------
    >>> convolution(16384, 320, 320).flops
    30198988800.0
    """
    work = gemm(pixels, outputs, taps * inputs, element_bytes=element_bytes, weight_bytes=weight_bytes, format=format)
    moved = element_bytes * pixels * (stride * stride * inputs + outputs) + weight_bytes * taps * inputs * outputs
    return work._replace(compulsory_bytes=moved)
