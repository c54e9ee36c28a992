"""Time of a kernel on an engine: a roofline refined by what chips do to it.

Constants (all of :class:`perfmodel.machine.engine.Constants`):

========================  =======================================================================
``compute_fraction``      sustained share of the peak rate at large sizes
``memory_fraction``       sustained share of the bandwidth of the last memory at large sizes
``launch``                time of the smallest kernel [s]
``wave_quantisation``     0: tiles flow freely over the units; 1: whole waves
``k_step``                least time of one 64-wide step of the reduction loop [s]
``prologue``              fill and drain of one wave of tiles [s]
``kv_step``               least time of one block of 64 keys in decode attention [s]
``exponential_cost``      exponentials per (query, key) pair, in units of 256 FLOP
``ramp``                  attention: start and drain add ``sqrt(ramp * busy time)`` [s]
``row_floor``             attention: query rows that a tile costs at least
``window_margin``         attention: keys, in blocks of 128, that a tile reads beyond a sliding window
``masked_share``          attention: share of the remaining masked keys that a kernel does not skip
``row_cost``              decode attention: time per query row of all heads and sequences [s]
``split_launch``          synchronisation when partial results of a split are added [s]
``corner``                power of the smooth maximum of busy units and memory: how well the two overlap
``quantise_launch``       launch of the pass that quantises activations in front of a product [s]
``quantise_fraction``     its share of the bandwidth; 0: there is no such pass
``pack_fraction``         share of the bandwidth at which a library copies weights or keys into the order that
                          products of several rows read; 0: they are kept in that order
``row_step``              time of 1024 numbers of a row that one unit streams alone [s]
``unit_rows``             rows that one unit streams at the same time
``cache_speed``           speed-up of traffic that stays in the memory before the last one; 1: none stays
``cache_share``           share of that memory that keeps data from one call to the next
``tile_overhead``         rows of a tile of a grouped product whose time its loads add, whatever its height
``token_cost``            routing and sorting in front of fused experts, times the square root of the tokens [s]
``expert_cost``           bookkeeping per expert of the rank [s]
``permute_fraction``      share of the bandwidth that gathers and adds up the rows of experts; 0: nothing is moved
``idle_share``            share of the (token, expert) pairs of other ranks that is moved as well
``host_floor``            least time between two launches from the host [s]
========================  =======================================================================

The last three describe benchmarks that repeat one call (or launch it eagerly); specifications cannot set them, so
predictions of models never use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perfmodel.elementwise import Scalar, ceil, least, maximum, minimum, smooth_maximum, sqrt, where
from perfmodel.machine.dram import Dram, bank_attention
from perfmodel.machine.engine import Constants, Engine, KernelTime
from perfmodel.operators.formats import storage
from perfmodel.operators.work import Work
from perfmodel.units import Bytes, Seconds

__all__ = ["OPERATORS", "kernel_constants", "kernel_lower_bound", "kernel_time", "waves"]

BLOCK = 4096
"""Rows of long arrays that are evaluated at a time: their intermediate tables stay in the cache of the processor."""
EVICTION = 8.0
"""How sharply data leave a cache that they outgrow: cyclic access loses all of them soon after they no longer fit."""
FUSED_SCALES = frozenset({"fp8", "nvfp4"})
"""Formats whose activations the kernel in front of a product can write."""
PARTIAL_BYTES = 4.0
"""A partial sum of a split reduction, in fp32 [B]."""
ATTENTION_TILE = 128.0
"""Query rows of one tile of a fused attention kernel."""
GEMM_TILES = (
    (256.0, 128.0),
    (128.0, 128.0),
    (128.0, 64.0),
    (64.0, 64.0),
    (16.0, 64.0),
    (16.0, 32.0),
    (1.0, 64.0),
)
"""Tiles of the result that a library chooses from."""
GEMM_SPLITS = tuple((s,) for s in (1.0, 2.0, 4.0, 8.0, 32.0))
"""Splits of the reduction that a library chooses from."""
MOE_HEIGHTS = (8.0, 16.0, 32.0, 64.0, 128.0)
"""Rows of a tile of a grouped product: those that work of fused experts counts its tiles for."""
MOE_COLUMNS = (64.0, 128.0, 256.0)
"""Columns of a tile of a grouped product."""
DECODE_SPLITS = tuple((s,) for s in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0))
"""Splits of the keys that a decode-attention kernel chooses from."""


def kernel_time(work: Work, engine: Engine) -> KernelTime:
    """Seconds that ``engine`` needs for ``work``.

    Raises
    ------
    UnsupportedFormat
        If the engine has no unit for the format or a wider one.
    """
    if not (isinstance(work.flops, np.ndarray) and work.flops.ndim == 1 and work.flops.size > BLOCK):
        return _time(work, engine)
    rows = work.flops.size
    parts = [_time(_rows(work, start, rows), engine) for start in range(0, rows, BLOCK)]
    lengths = [min(BLOCK, rows - start) for start in range(0, rows, BLOCK)]
    return KernelTime(*(_joined(columns, lengths) for columns in zip(*parts, strict=True)))


def _time(work: Work, engine: Engine) -> KernelTime:
    """Fastest of the kernels that the engine may choose from, none above the peak rate."""
    time, constants = _TIMES[work.operator], kernel_constants(work, engine)
    kernel = time(work, engine)
    for rival in constants.rivals:
        other = time(work, engine.calibrated(work.operator, work.kernels or work.format, rival))
        kernel = kernel._replace(seconds=minimum(kernel.seconds, other.seconds))
    if any(_above_peak(c) for c in (constants, *constants.rivals)) and work.operator in _MATRIX:
        kernel = kernel._replace(seconds=maximum(kernel.seconds, work.flops / engine.peak(work.format)))
    return kernel


def _rows(value: Any, start: int, rows: int) -> Any:
    """The same work with one block of every array of ``rows`` entries."""
    if isinstance(value, tuple):
        parts = [_rows(x, start, rows) for x in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value[start : start + BLOCK] if np.shape(value) == (rows,) else value


def _joined(blocks: Sequence[Scalar], lengths: Sequence[int]) -> Scalar:
    """Return the blocks in one array."""
    return np.concatenate([np.broadcast_to(b, (n,)) for b, n in zip(blocks, lengths, strict=True)])


def _above_peak(constants: Constants) -> bool:
    """Whether a fit traded a rate above the peak against costs per tile."""
    return isinstance(constants.compute_fraction, float) and constants.compute_fraction > 1.0


def kernel_lower_bound(work: Work, engine: Engine) -> Seconds:
    """No implementation is faster: peak rate, and the I/O lower bound at full bandwidth [s]."""
    peak = engine.peak(work.format) if work.operator in _MATRIX else engine.vector_peak()
    return maximum(work.flops / peak, work.io_lower_bound(engine.cache) / engine.bandwidth)


def kernel_constants(work: Work, engine: Engine) -> Constants:
    """Constants that a time of ``work`` on ``engine`` is made with."""
    return engine.constant(work.operator, work.kernels or work.format)


def _memory_time(work: Work, engine: Engine, constants: Constants) -> Seconds:
    bytes_ = work.traffic(engine.cache)
    return bytes_ * _cache_factor(bytes_, engine, constants) / (engine.bandwidth * constants.memory_fraction)


def _cache_factor(working_set: Bytes, engine: Engine, c: Constants) -> Scalar:
    """Share of the memory time that remains when repeated calls find part of their data in the cache [1]."""
    if _is(c.cache_speed, 1.0):
        return 1.0
    resident = 1.0 / (1.0 + (working_set / (c.cache_share * engine.cache)) ** EVICTION)
    return 1.0 - resident * (1.0 - 1.0 / c.cache_speed)


def _is(constant: Scalar, value: float) -> bool:
    """Whether a constant is that plain number; arrays of trial values are never switched off."""
    return isinstance(constant, float) and constant == value


def waves(tiles: Scalar, units: Scalar, quantisation: Scalar) -> Scalar:
    """Rounds in which ``tiles`` pass over ``units``: at least one, between fluid and whole by ``quantisation``."""
    x = tiles / units
    return maximum(1.0, (1.0 - quantisation) * x + quantisation * ceil(x))


def _gemm(work: Work, engine: Engine) -> KernelTime:
    r"""Time of a matrix product: the best tile and split of a library.

    .. math:: t = t_0 + \min_s\left\{\left[(\min_{b_m, b_n} T_{tiles})^p + T_{mem}^p\right]^{1/p} + T_{add}(s)\right\}
        + T_{quantise}

    ``T_tiles`` is waves times (steps of the reduction loop, none shorter than its latency floor, plus fill and drain).
    """
    c = kernel_constants(work, engine)
    m, n, k, batch = work.shape
    rate = engine.peak(work.format) * c.compute_fraction / engine.units
    memory = _memory_time(work, engine, c)
    reduced = PARTIAL_BYTES * batch * m * n / (engine.bandwidth * c.memory_fraction)

    overhead = _launch(work, engine, c) + _quantise_time(work, engine, c)
    if not _is(c.pack_fraction, 0.0):
        overhead = overhead + _pack_time(storage(work.format).bytes * batch * k * n, m, engine, c)

    floor, fill = c.k_step, c.prologue
    fluid, whole = 1.0 - c.wave_quantisation, c.wave_quantisation

    def total(split: Scalar) -> Seconds:
        steps, copies = ceil(k / 64.0 / split), batch * split / engine.units

        def busy(tile_m: Scalar, tile_n: Scalar) -> Seconds:
            x = ceil(m / tile_m) * ceil(n / tile_n) * copies
            step = maximum(128.0 * tile_m * tile_n / rate, floor)
            return maximum(fluid * x + whole * ceil(x), 1.0) * (steps * step + fill)

        best = least(busy, GEMM_TILES, m, n, steps, copies, rate, floor, fill, whole)
        add = where(split > 1.0, c.split_launch + split * reduced, 0.0)
        return smooth_maximum(best, memory, c.corner) + add

    fastest = least(total, GEMM_SPLITS, m, n, k, batch, rate, memory, c.k_step, c.prologue, c.split_launch, c.corner)
    ideal = work.flops / (rate * engine.units)
    return KernelTime(overhead + fastest, ideal, memory, overhead)


def _quantised(work: Work, engine: Engine) -> bool:
    """Whether the kernel in front writes the activations in the format of the product, as frameworks fuse it."""
    return "quantise" in engine.covers and work.kernels in FUSED_SCALES


def _launch(work: Work, engine: Engine, c: Constants) -> Seconds:
    """Start of a product; timings that quantise in it tell that of two kernels, a product in 16 bits that of one."""
    if not _quantised(work, engine):
        return c.launch
    return minimum(c.launch, engine.constant("gemm", "bf16").launch)


def _quantise_time(work: Work, engine: Engine, c: Constants) -> Seconds:
    """Pass over 16-bit activations that writes them in the format of the product."""
    if _is(c.quantise_fraction, 0.0) or _quantised(work, engine):
        return 0.0
    m, _, k, batch = work.shape
    moved = batch * m * k * (2.0 + storage(work.format).bytes)
    return c.quantise_launch + moved / (engine.bandwidth * c.quantise_fraction)


def _pack_time(size: Bytes, rows: Scalar, engine: Engine, c: Constants) -> Seconds:
    """Copy of the stationary operand into blocks, read and written once in front of its use by several rows [1]_.

    References
    ----------
    .. [1] K. Goto, R. van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34 (2008).
    """
    return where(rows > 1.0, 2.0 * size / (engine.bandwidth * c.pack_fraction), 0.0)


def _attention(work: Work, engine: Engine) -> KernelTime:
    r"""Time of fused attention over many queries.

    .. math:: t = t_0 + \left[T_{tiles}^p + T_{mem}^p\right]^{1/p} + \sqrt{\tau\,T_{tiles}}

    ``T_tiles`` is waves of tiles of 128 query rows, each with the keys its rows see on average; a sliding window is
    widened by whole blocks.
    """
    c = kernel_constants(work, engine)
    queries, keys, width, heads = work.shape
    rate = engine.peak(work.format) * c.compute_fraction / engine.units
    tiles = ceil(queries / ATTENTION_TILE)
    per_pair = 4.0 * width + 256.0 * c.exponential_cost
    if not _is(work.masked, 0.0):
        margin = minimum(work.masked * keys, ATTENTION_TILE * c.window_margin)
        keys = keys + margin + c.masked_share * (work.masked * keys - margin)
    rows = maximum(queries / tiles, c.row_floor)
    busy = waves(heads * tiles, engine.units, 1.0) * (per_pair * keys * rows / rate + c.prologue)
    memory = _memory_time(work, engine, c)
    seconds = c.launch + smooth_maximum(busy, memory, c.corner)
    if not _is(c.ramp, 0.0):
        seconds = seconds + sqrt(c.ramp * busy)
    return KernelTime(seconds, busy, memory, c.launch)


def _decode_attention(work: Work, engine: Engine) -> KernelTime:
    r"""Time of attention of few queries to a long cache: the best split of the keys.

    .. math:: t = t_0 + \min_s\left\{\left[T_{blocks}^p + T_{mem}^p\right]^{1/p} + T_{add}(s)\right\} + r\,n_{rows}

    ``T_blocks`` is waves of (blocks of 64 keys of one split, none faster than its latency, plus fill and drain), and
    never less than the arithmetic.
    """
    if engine.dram is not None:
        return _at_banks(work, engine, engine.dram)
    c = kernel_constants(work, engine)
    _, keys, width, heads = work.shape
    memory = _memory_time(work, engine, c)
    arithmetic = work.flops / (engine.peak(work.format) * c.compute_fraction)
    rows = work.flops / (4.0 * keys * width)
    partial = 2.0 * PARTIAL_BYTES * rows * width / (engine.bandwidth * c.memory_fraction)
    step, fill = c.kv_step * width / 128.0, c.prologue

    def total(split: Scalar) -> Seconds:
        blocks = maximum(heads * split / engine.units, 1.0) * (ceil(keys / 64.0 / split) * step + fill)
        add = where(split > 1.0, c.split_launch + split * partial, 0.0)
        return smooth_maximum(maximum(blocks, arithmetic), memory, c.corner) + add

    overhead = c.launch + c.row_cost * rows
    if not _is(c.pack_fraction, 0.0):
        overhead = overhead + _pack_time(work.compulsory_bytes, rows / heads, engine, c)
    sizes = (keys, heads, memory, arithmetic, partial, step, fill, c.split_launch, c.corner)
    fastest = least(total, DECODE_SPLITS, *sizes)
    return KernelTime(overhead + fastest, arithmetic, memory, overhead)


def _at_banks(work: Work, engine: Engine, dram: Dram) -> KernelTime:
    """Attention to the cache on units at the banks: what the commands take, every query head a pass of its own."""
    c = kernel_constants(work, engine)
    _, keys, width, _ = work.shape
    passes = work.flops / (4.0 * keys * width)
    commands = bank_attention(dram, passes, keys, width, storage(work.format).bytes)
    commands = maximum(commands, work.compulsory_bytes / engine.bandwidth)  # queries and outputs pass, too
    arithmetic = work.flops / engine.peak(work.format)  # numbers of a few bits arrive faster than units multiply
    return KernelTime(c.launch + maximum(commands, arithmetic), arithmetic, commands, c.launch)


def _moe(work: Work, engine: Engine) -> KernelTime:
    """Two grouped products, each the best tile of a library, and what routing adds to them."""
    c, routed = kernel_constants(work, engine), work.routed
    if routed is None:
        raise ValueError("work of fused experts says how its tokens are routed")
    rows, width, hidden, _ = work.shape
    rate = engine.peak(work.format) * c.compute_fraction / engine.units
    memory = _memory_time(work, engine, c)
    up = (1.0 + routed.gated) / (2.0 + routed.gated)

    def product(n: Scalar, k: Scalar) -> Seconds:
        steps = ceil(k / 64.0)

        def busy(height: float, tiles: Scalar, column: float) -> Seconds:
            step = maximum(128.0 * (height + c.tile_overhead) * column / rate, c.k_step)
            count = tiles * ceil(n / column)
            return waves(count, engine.units, c.wave_quantisation) * (steps * step + c.prologue)

        options = zip(MOE_HEIGHTS, routed.tiles, strict=True)
        return minimum(*(busy(h, tiles, column) for h, tiles in options for column in MOE_COLUMNS))

    first = smooth_maximum(product((1.0 + routed.gated) * width, hidden), memory * up, c.corner)
    second = smooth_maximum(product(hidden, width), memory * (1.0 - up), c.corner)
    overhead = c.launch + c.token_cost * sqrt(routed.tokens) + c.expert_cost * routed.experts
    if not _is(c.permute_fraction, 0.0):
        idle = c.idle_share * maximum(routed.tokens * routed.top_k - rows, 0.0)
        moved = 4.0 * (rows + routed.tokens) * hidden + idle * (4.0 * hidden + 6.0 * width)
        overhead = overhead + moved / (engine.bandwidth * c.permute_fraction)
    ideal = work.flops / (rate * engine.units)
    return KernelTime(overhead + first + second, ideal, memory, overhead)


def _elementwise(work: Work, engine: Engine) -> KernelTime:
    """Time of a streaming kernel: its traffic, or its rows passing through the units, each row by one unit."""
    c = kernel_constants(work, engine)
    memory = _memory_time(work, engine, c)
    compute = work.flops / engine.vector_peak()
    busy = maximum(memory, compute)
    if not _is(c.row_step, 0.0):
        rows = maximum(1.0, work.shape.m / (engine.units * c.unit_rows))
        busy = smooth_maximum(busy, rows * work.shape.n * (c.row_step / 1024.0), 2.0)
    return KernelTime(c.launch + busy, compute, memory, c.launch)


def _scan(work: Work, engine: Engine) -> KernelTime:
    c = kernel_constants(work, engine)
    memory = _memory_time(work, engine, c)
    compute = work.flops / (engine.vector_peak() * c.compute_fraction)
    return KernelTime(c.launch + smooth_maximum(memory, compute), compute, memory, c.launch)


_TIMES = {
    "gemm": _gemm,
    "attention": _attention,
    "decode_attention": _decode_attention,
    "elementwise": _elementwise,
    "scan": _scan,
    "moe": _moe,
    "latent_attention": _attention,
    "latent_decode": _decode_attention,
}
_MATRIX = frozenset(_TIMES) - {"elementwise", "scan"}
OPERATORS = tuple(_TIMES)
"""Operator classes with a time model."""
