"""Attention on a spatial array: a 2D array of processing elements (matrix units) beside a 1D array (vector units).

Softmax in three passes runs on the 1D array while the 2D array forms products; in one pass its exponentials move to
the 2D array, and the 1D array corrects running maxima and sums once per tile of keys. Both arrays and the memory work
side by side, so the slowest of them is the time.

An operation of an element is one step of one element: a multiply-add, a maximum, an addition, a quotient. Arrays are
known by their rates: half the matrix peak (multiply-adds per second), and the vector peak.

References
----------
.. [1] N. Nayak et al., "FuseMax: leveraging extended einsums to optimize attention accelerator design", MICRO 2024,
   arXiv:2406.10491; operations per einsum from its artifact (github FPSG-UIUC/micro24-fusemax-artifact).
.. [2] S.-C. Kao et al., "FLAT: an optimized dataflow for mitigating attention bottlenecks", ASPLOS 2023,
   arXiv:2107.06419.
"""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, ceil, floor, maximum, where
from perfmodel.machine.engine import Engine
from perfmodel.operators.bounds.attention import attention_compulsory, flash2
from perfmodel.units import Bytes, Seconds

__all__ = ["SpatialTime", "attention_one_pass", "attention_three_pass", "tile_rows"]

EXPONENTIAL = 6.0
"""Multiply-adds of an exponential on elements that have no unit for it [1]_."""
SOFTMAX_STEPS = 4.0
"""Maximum, exponential of the difference, sum and quotient of one score, where an element does each in a step [1]_."""


class SpatialTime(NamedTuple):
    """Busy time of the two arrays and of the memory, and the time of all [s]; bytes that cross to the memory [B]."""

    seconds: Seconds
    products: Seconds
    vector: Seconds
    memory: Seconds
    bytes: Bytes


def tile_rows(engine: Engine, format: str) -> Scalar:
    """Rows of the 2D array: its elements per element of the 1D array along its side."""
    return floor(engine.peak(format) / (2.0 * engine.vector_peak()) + 0.5)


def attention_three_pass(
    heads: Scalar, queries: Scalar, keys: Scalar, d: Scalar, engine: Engine, *, format: str = "fp16"
) -> SpatialTime:
    r"""Scores of a block of rows stay in the buffer between passes, or are spilled (FLAT).

    .. math:: T = \max\{2 n_q n_k d / F_2,\; 4 n_q n_k / F_1,\; Q / W\}

    Spilled, scores and exponentials are each written and read once: four passes over them.

    Parameters
    ----------
    heads : (sequence, head) pairs.
    queries, keys, d : of each; values are as wide as keys.
    """
    width = 2.0
    pairs = heads * queries * keys
    row_block = tile_rows(engine, format) * keys * width
    spilled = where(row_block > engine.cache, 4.0 * queries * keys, 0.0)
    moved = width * heads * (attention_compulsory(queries, keys, d) + spilled)
    products = 4.0 * pairs * d / engine.peak(format)
    vector = SOFTMAX_STEPS * pairs / engine.vector_peak()
    memory = moved / engine.bandwidth
    return SpatialTime(maximum(maximum(products, vector), memory), products, vector, memory, moved)


def attention_one_pass(
    heads: Scalar, queries: Scalar, keys: Scalar, d: Scalar, engine: Engine, *, format: str = "fp16"
) -> SpatialTime:
    """One pass: a tile of scores never leaves the array, and the buffer need not grow with the keys (FuseMax).

    The two arrays meet four times per tile: products of scores beside the last tile's sums and outputs; the running
    maximum; exponentials and their sums beside the corrections; products with values beside corrected outputs.

    Parameters
    ----------
    heads : (sequence, head) pairs.
    queries, keys, d : of each; values are as wide as keys.
    """
    width, rows = 2.0, tile_rows(engine, format)
    score = 2.0 * heads * queries * keys / engine.peak(format)
    tile = heads * queries * ceil(keys / rows) / engine.vector_peak()
    quotient = heads * queries * d / engine.vector_peak()
    exponential = EXPONENTIAL + 1.0
    stages = (
        (score * (d + 1.0), tile * (1.0 + d) + quotient),
        (0.0 * score, tile),
        (score * (exponential + 1.0), tile * (exponential + 1.0)),
        (score * d, tile * d),
    )
    held = maximum(floor((engine.cache / width - 4.0 * rows * d) / (2.0 * d + 2.0) / rows), 1.0) * rows
    moved = width * heads * (flash2(queries, keys, d, held) - queries)
    memory = moved / engine.bandwidth
    products: Seconds = 0.0
    vector: Seconds = 0.0
    computing: Seconds = 0.0
    for first, second in stages:
        products, vector, computing = products + first, vector + second, computing + maximum(first, second)
    return SpatialTime(maximum(computing, memory), products, vector, memory, moved)
