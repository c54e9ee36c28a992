"""Operators that stream their operands once: norms, activations, embeddings, loss, optimizer, scans."""

from __future__ import annotations

from perfmodel.elementwise import Scalar
from perfmodel.operators.work import Shape, Work
from perfmodel.units import Bytes

__all__ = [
    "activation",
    "add_norm",
    "conv",
    "cross_entropy",
    "elementwise",
    "embedding",
    "norm",
    "optimizer_update",
    "residual",
    "rotary",
    "selective_scan",
]


def elementwise(
    elements: Scalar, *, reads: float, writes: float, flops_per_element: float, element_bytes: Bytes = 2.0
) -> Work:
    """Stream ``elements`` with ``reads`` inputs and ``writes`` outputs each; traffic equals its lower bound [1].

    Examples
    --------
    >>> elementwise(10, reads=1, writes=1, flops_per_element=1).compulsory_bytes
    40.0
    """
    return Work(
        operator="elementwise",
        format="fp32",
        flops=flops_per_element * elements,
        compulsory_bytes=(reads + writes) * element_bytes * elements,
        reuse_power=0.0,
        shape=Shape(elements),
    )


def norm(tokens: Scalar, hidden: Scalar, *, element_bytes: Bytes = 2.0) -> Work:
    """RMS or layer normalisation of ``tokens`` vectors: one read and one write while a row fits on chip."""
    return elementwise(tokens * hidden, reads=1.0, writes=1.0, flops_per_element=5.0, element_bytes=element_bytes)


def residual(tokens: Scalar, hidden: Scalar, *, element_bytes: Bytes = 2.0) -> Work:
    """Residual addition: two reads, one write."""
    return elementwise(tokens * hidden, reads=2.0, writes=1.0, flops_per_element=1.0, element_bytes=element_bytes)


def add_norm(tokens: Scalar, hidden: Scalar, *, element_bytes: Bytes = 2.0) -> Work:
    """Residual addition and the normalisation behind it in one kernel: the sum is written once and not read again."""
    return elementwise(tokens * hidden, reads=2.0, writes=2.0, flops_per_element=6.0, element_bytes=element_bytes)


def activation(tokens: Scalar, width: Scalar, *, gated: bool, element_bytes: Bytes = 2.0) -> Work:
    """Activation function of an MLP; ``gated`` reads two halves and multiplies them."""
    reads, flops = (2.0, 6.0) if gated else (1.0, 5.0)
    return elementwise(tokens * width, reads=reads, writes=1.0, flops_per_element=flops, element_bytes=element_bytes)


def rotary(tokens: Scalar, width: Scalar, *, element_bytes: Bytes = 2.0) -> Work:
    """Rotary position embedding of queries and keys in place."""
    return elementwise(tokens * width, reads=1.0, writes=1.0, flops_per_element=3.0, element_bytes=element_bytes)


def embedding(tokens: Scalar, hidden: Scalar, *, element_bytes: Bytes = 2.0) -> Work:
    """Table lookup: one row read and one written per token."""
    return elementwise(tokens * hidden, reads=1.0, writes=1.0, flops_per_element=0.0, element_bytes=element_bytes)


def cross_entropy(tokens: Scalar, vocab: Scalar, *, logit_bytes: Bytes) -> Work:
    """Softmax and loss over logits; ``logit_bytes`` is the traffic per logit of forward and backward together [B]."""
    return elementwise(tokens * vocab, reads=1.0, writes=0.0, flops_per_element=6.0, element_bytes=logit_bytes)


def conv(tokens: Scalar, channels: Scalar, *, taps: Scalar, element_bytes: Bytes = 2.0) -> Work:
    """Short causal depthwise convolution."""
    work = elementwise(tokens * channels, reads=1.0, writes=1.0, flops_per_element=1.0, element_bytes=element_bytes)
    return work._replace(flops=2.0 * taps * tokens * channels)


def optimizer_update(parameters: Scalar, *, bytes_per_parameter: Bytes, flops_per_parameter: float = 12.0) -> Work:
    """Optimizer step over ``parameters``; ``bytes_per_parameter`` counts reads and writes of all states.

    Adam with an fp32 master copy reads gradient (4), master, momentum, variance (12) and writes the three back and
    the 16-bit weight (14): 30 bytes.
    """
    work = elementwise(parameters, reads=1.0, writes=0.0, flops_per_element=1.0, element_bytes=bytes_per_parameter)
    return work._replace(flops=flops_per_parameter * parameters)


def selective_scan(
    sequences: Scalar,
    tokens: Scalar,
    inner: Scalar,
    state: Scalar,
    *,
    stream_bytes: Bytes,
    state_bytes: Bytes = 4.0,
    carry: bool = False,
) -> Work:
    r"""Fused selective state-space scan: the state stays on chip, inputs and outputs stream once.

    .. math:: F = 6\, T d\, n,\qquad Q = T\,(\text{streams}) + [\text{carry}]\, 2 B d n b

    Parameters
    ----------
    sequences, tokens : sequences in the batch; tokens of all of them.
    inner, state : channels and state numbers per channel on this device.
    stream_bytes : bytes of inputs and outputs per token (x, z, B, C, step, y) [B].
    carry : the state is read from and written to main memory (decode).

    References
    ----------
    .. [1] A. Gu, T. Dao, "Mamba", arXiv:2312.00752, section 3.3.2.
    """
    carried = 2.0 * sequences * inner * state * state_bytes if carry else 0.0
    return Work(
        operator="scan",
        format="fp32",
        flops=6.0 * tokens * inner * state,
        compulsory_bytes=tokens * stream_bytes + carried,
        reuse_power=0.0,
        shape=Shape(tokens, state, inner, sequences),
    )
