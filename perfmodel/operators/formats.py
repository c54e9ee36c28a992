"""Storage formats of weights: bytes per number with all that lies beside it, and the format the products use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from perfmodel.elementwise import Scalar, minimum
from perfmodel.specs.architecture import Architecture, Attention, LatentAttention, Layer, Linear, Moe
from perfmodel.specs.number_formats import WEIGHT_FORMATS, NumberFormat, weight_format
from perfmodel.units import Bytes

__all__ = [
    "STORAGE",
    "VARIANTS",
    "Storage",
    "cached_bytes",
    "codebook_bits",
    "layer_weights",
    "mean_head",
    "mean_matrix",
    "mean_row",
    "rescalings",
    "storage",
    "stored_bytes",
]


class Storage(NamedTuple):
    """Bytes per stored number, and the formats of its products from fastest to most general."""

    bytes: float
    compute: tuple[str, ...]


STORAGE: dict[str, Storage] = {
    "fp32": Storage(4.0, ("fp32",)),
    "bf16": Storage(2.0, ("bf16",)),
    "fp16": Storage(2.0, ("fp16",)),
    "fp8": Storage(1.0, ("fp8", "bf16")),
    "fp8_block": Storage(1.0 + 4.0 / 128.0**2, ("fp8", "bf16")),
    "int8": Storage(1.0, ("int8", "bf16")),
    "nvfp4": Storage(0.5 + 1.0 / 16.0, ("nvfp4", "fp4", "bf16")),
    "mxfp4": Storage(0.5 + 1.0 / 32.0, ("mxfp4", "bf16")),
    "int4": Storage(0.5 + 2.5 / 128.0, ("bf16",)),
}
"""Number formats of checkpoints and caches. Scales included: one byte per 16 (nvfp4) or 32 (mxfp4) numbers, 20 bits per
128 (int4 groups), 4 bytes per block of 128 x 128 (fp8). Formats with more beside the numbers are records of
``specs/weight_formats.yaml``."""

VARIANTS = {"fp8_block": "fp8"}
"""Formats with scales of their own, and the one whose multiplier they use."""
ROW = 4096.0
"""Inputs of a matrix whose model is not known: decides what one table or scale per row costs a weight."""


def storage(name: str) -> Storage:
    """Storage of a number format or weight format; 16 bits for names that only name a product format."""
    if name in STORAGE:
        return STORAGE[name]
    if not WEIGHT_FORMATS.has(name):
        return STORAGE["bf16"]
    record = weight_format(name)
    return Storage(float(stored_bytes(record, ROW)), record.products)


def stored_bytes(f: NumberFormat, row: Scalar, matrix: Scalar = math.inf) -> Bytes:
    r"""Bytes per number of a matrix with ``row`` inputs and ``matrix`` numbers in all, exact.

    .. math:: \tfrac18\left[\rho\,(b + i) + m + \frac{s + z}{g} + \frac{t}{k} + o\,b_o + \frac{c}{N}\right]

    with density :math:`\rho`, bits b and index i of a stored number, mask m, scale s and zero point z of a group g (a
    row if none is given), table t of a row k, a share o of outliers of :math:`b_o` bits, and codebooks of c bits shared
    by all N numbers; without N a matrix so large that they do not count.

    Examples
    --------
    >>> from perfmodel.specs.number_formats import weight_format
    >>> 8.0 * stored_bytes(weight_format("awq-int4-g128"), 4096.0)
    4.15625
    """
    group = row if f.group is None else f.group
    beside = f.mask + (f.scale + f.zero) / group + f.table / row + f.outliers * f.outlier
    return (f.density * (f.number_bits + f.index) + beside + codebook_bits(f) / matrix) / 8.0


def codebook_bits(f: NumberFormat) -> float:
    """Bits of all codebooks of a matrix."""
    return sum(c.entries * c.vector * c.bits for c in f.codebooks)


def cached_bytes(f: NumberFormat, row: Scalar, context: Scalar) -> Bytes:
    """Bytes per cached number of a sequence of ``context`` tokens with heads of ``row`` numbers, exact [B].

    The newest tokens that the format keeps in 16 bits count as such; a shorter sequence has no others.
    """
    recent = minimum(f.recent / context, 1.0)
    return recent * 2.0 + (1.0 - recent) * stored_bytes(f, row)


def rescalings(m: Scalar, n: Scalar, k: Scalar, group: Scalar) -> Scalar:
    """Multiplications by scales in ``C[m, n] = A[m, k] @ W[k, n]`` when each group's sum is scaled, not each operand.

    References
    ----------
    .. [1] Y. Zhang et al., "MixPE: quantization and hardware co-design for efficient LLM inference", arXiv:2411.16158.

    Examples
    --------
    >>> rescalings(16, 16, 256, 1) / rescalings(16, 16, 256, 128)
    128.0
    """
    return 1.0 * m * n * k / group


def mean_row(architecture: Architecture) -> float:
    """Inputs per row over the rows of all layers' matrices: weights over outputs, routers left out."""
    weights, outputs, _ = _totals(architecture)
    return weights / outputs if outputs else ROW


def mean_matrix(architecture: Architecture) -> float:
    """Weights per matrix over all layers' matrices: every expert has its own, routers are left out."""
    weights, _, matrices = _totals(architecture)
    return weights / matrices if matrices else ROW * ROW


def mean_head(architecture: Architecture) -> float:
    """Numbers per head of the cache over all layers that have one; of a latent cache its width."""
    heads = numbers = 0.0
    for run in architecture.runs:
        mixer = run.layer.mixer
        if isinstance(mixer, Attention) and not mixer.kv_from_earlier:
            heads += run.count * 2.0 * mixer.kv_heads
            numbers += run.count * mixer.kv_heads * (mixer.head_dim + mixer.value_dim)
        elif isinstance(mixer, LatentAttention):
            heads += run.count
            numbers += run.count * (mixer.kv_lora_rank + mixer.rope_dim)
    return numbers / heads if heads else 128.0


def layer_weights(architecture: Architecture) -> list[float]:
    """Weights of every layer's matrices, bottom first, routers left out."""
    found: list[float] = []
    for run in architecture.runs:
        weights = sum((count * float(linear.parameters) for count, linear in _matrices(run.layer)), start=0.0)
        found += [weights] * run.count
    return found


def _totals(architecture: Architecture) -> tuple[float, float, float]:
    """(weights, outputs, matrices) of all layers."""
    weights = outputs = matrices = 0.0
    for run in architecture.runs:
        for count, linear in _matrices(run.layer):
            weights += run.count * count * linear.parameters
            outputs += run.count * count * linear.n
            matrices += run.count * count * linear.joins
    return weights, outputs, matrices


def _matrices(layer: Layer) -> Iterator[tuple[int, Linear]]:
    for part in (layer.mixer, layer.ffn):
        if part is None:
            continue
        yield from ((1, linear) for linear in part.linears if linear.name != "router")
        if isinstance(part, Moe):
            yield from ((part.experts, linear) for linear in part.expert_linears)
