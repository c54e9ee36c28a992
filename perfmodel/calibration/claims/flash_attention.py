"""Standard attention kernel by kernel, and FlashAttention, on one GPU."""

from __future__ import annotations

import math

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.attention import attention
from perfmodel.operators.backward import backward_of
from perfmodel.operators.bounds import attention as counts
from perfmodel.operators.gemm import gemm
from perfmodel.operators.layers import Call
from perfmodel.operators.streaming import elementwise
from perfmodel.operators.work import Work

__all__ = [
    "crossovers_missed",
    "flash_time",
    "flash_traffic",
    "floor",
    "layer_ratio",
    "operations_ratio",
    "slope_in_memory",
    "slope_in_tokens",
    "standard_time",
    "standard_traffic",
    "time_ratio",
    "traffic_ratio",
]

N, D, HEADS, BATCH, BYTES = 1024.0, 64.0, 16.0, 64.0, 2.0
FORWARD, BACKWARD = 2.25, 1.25
"""Passes of pointwise kernels over the scores: mask (forward only) and dropout with a mask of one byte."""
FORMAT = "fp16"


def _flash(n: float, d: float, fast: float) -> float:
    return float(counts.flash1(n, d, counts.published_tile(d, fast)))


def slope_in_tokens(run: Run) -> float:
    """Power of N between 32768 and 65536 tokens, d = 64 and M = 16384."""
    del run
    return math.log2(_flash(65536.0, D, 16384.0) / _flash(32768.0, D, 16384.0))


def slope_in_memory(run: Run) -> float:
    """Power of 1/M between 2^14 and 2^15 elements, 65536 tokens."""
    del run
    return math.log2(_flash(65536.0, D, 2.0**14) / _flash(65536.0, D, 2.0**15))


def floor(run: Run) -> float:
    """Accesses over compulsory ones where keys and values fit (FlashAttention-2)."""
    del run
    rows = counts.flash2_rows(D, 4.0 * N * D)
    return float(counts.flash2(N, N, D, rows) / counts.attention_compulsory(N, N, D))


def crossovers_missed(run: Run) -> float:
    """How many of N 1K to 1M, d 32 to 256 and M in powers of two above d^2 move more than standard attention."""
    del run
    missed = 0
    for n in (2.0**e for e in range(10, 21)):
        for d in (32.0, 64.0, 128.0, 256.0):
            for fast in (d * d * 2.0**e for e in range(1, 7)):
                flash = counts.flash2(n, n, d, counts.flash2_rows(d, fast))
                missed += flash >= counts.attention_materialised(n, n, d)
    return float(missed)


def operations_ratio(run: Run) -> float:
    """Seven products (the backward pass forms the scores again) over six."""
    forward = attention(1.0, 1.0, 1.0, D, D, N, N, causal=False)
    flash = forward.flops + sum(c.work.flops for c in backward_of(Call("attention", forward, 1.0)))
    products = sum(w.flops for w in _standard(1.0, N, D, 0.0, 0.0) if w.operator == "gemm")
    del run
    return float(flash / products)


def standard_traffic(run: Run) -> float:
    """Forward and backward of all heads [GB]."""
    del run
    forward = counts.attention_materialised(N, N, D, FORWARD)
    return float(BATCH * HEADS * BYTES * (forward + counts.attention_materialised_backward(N, N, D, BACKWARD)) / 1e9)


def flash_traffic(run: Run) -> float:
    """Forward and backward of all heads, tiles of M/4d in the memory of one unit [GB]."""
    first = run.engine(run.claim.machine).memories[0]
    tile = counts.published_tile(D, first.capacity / first.parts / BYTES)
    moved = counts.flash1(N, D, tile) + counts.flash1_backward(N, D, tile)
    return float(BATCH * HEADS * BYTES * moved / 1e9)


def traffic_ratio(run: Run) -> float:
    """Standard over FlashAttention."""
    return standard_traffic(run) / flash_traffic(run)


def _standard(heads: float, n: float, d: float, forward: float, backward: float) -> list[Work]:
    """Kernels of standard attention; pointwise passes over the scores are kernels of their own."""

    def scores(reads: float, writes: float) -> Work:
        return elementwise(heads * n * n, reads=reads, writes=writes, flops_per_element=5.0)

    works = [gemm(n, n, d, batch=heads, format=FORMAT), scores(1.0, 1.0), gemm(n, d, n, batch=heads, format=FORMAT)]
    works += [gemm(n, d, n, batch=heads, format=FORMAT)] * 3 + [gemm(n, n, d, batch=heads, format=FORMAT)]
    works.append(scores(2.0, 1.0))
    return works + [scores(w, w) for w in (forward, backward) if w]


def _seconds(run: Run, works: list[Work]) -> float:
    engine = run.engine(run.claim.machine)
    return float(sum(kernel_time(work, engine).seconds for work in works))


def _fused(heads: float, n: float, d: float) -> list[Work]:
    forward = attention(heads, 1.0, 1.0, d, d, n, n, causal=False, format=FORMAT)
    return [forward, *(c.work for c in backward_of(Call("attention", forward, 1.0)))]


def standard_time(run: Run) -> float:
    """Forward and backward of all heads [ms]."""
    return _seconds(run, _standard(BATCH * HEADS, N, D, FORWARD, BACKWARD)) * 1e3


def flash_time(run: Run) -> float:
    """Forward and backward of all heads [ms]."""
    return _seconds(run, _fused(BATCH * HEADS, N, D)) * 1e3


def time_ratio(run: Run) -> float:
    """Standard over FlashAttention."""
    return standard_time(run) / flash_time(run)


def layer_ratio(run: Run, hidden: float, heads: float, sequence: float, pointwise: float = 1.0) -> float:
    """Training time of one transformer layer with standard attention over that with FlashAttention, batch 8."""
    sequences, d = 8.0, hidden / heads
    tokens = sequences * sequence
    dense = []
    for n, k in ((3 * hidden, hidden), (hidden, hidden), (4 * hidden, hidden), (hidden, 4 * hidden)):
        call = Call("matrix multiply", gemm(tokens, n, k, format=FORMAT), 1.0)
        dense += [call.work, *(c.work for c in backward_of(call))]
    streams = [elementwise(tokens * hidden, reads=r, writes=1.0, flops_per_element=5.0) for r in (1, 1, 2, 2, 4, 4)] * 3
    shared = _seconds(run, dense + streams)
    standard = _seconds(run, _standard(sequences * heads, sequence, d, FORWARD * pointwise, BACKWARD * pointwise))
    return (shared + standard) / (shared + _seconds(run, _fused(sequences * heads, sequence, d)))
