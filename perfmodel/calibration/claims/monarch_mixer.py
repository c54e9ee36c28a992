"""Layers with long convolutions beside layers with attention."""

from __future__ import annotations

import math

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.bounds.transforms import monarch_flops, monarch_traffic
from perfmodel.operators.gemm import gemm, long_convolution
from perfmodel.operators.streaming import elementwise
from perfmodel.operators.work import Work

__all__ = ["gain", "gain_growth", "power", "traffic_per_point"]

WIDTH, HEADS, SEQUENCES = 768.0, 12.0, 32.0


def power(run: Run, order: float) -> float:
    """Power of N in the operations, between 4096 and 16384 points."""
    del run
    return math.log2(monarch_flops(16384.0, order) / monarch_flops(4096.0, order)) / 2.0


def traffic_per_point(run: Run) -> float:
    """Elements moved per point of a vector that fits in one unit."""
    first = run.engine(run.claim.machine).memories[0]
    return float(monarch_traffic(4096.0, 2.0, first.capacity / first.parts / 2.0) / 4096.0)


def _dense(tokens: float, outputs: float, inputs: float, blocks: float = 1.0) -> Work:
    return gemm(tokens, outputs / blocks, inputs / blocks, batch=blocks)


def _stream(elements: float, reads: float) -> Work:
    return elementwise(elements, reads=reads, writes=1.0, flops_per_element=5.0)


def _attention(tokens: float) -> list[Work]:
    rows, d = SEQUENCES * tokens, WIDTH / HEADS
    heads, scores = SEQUENCES * HEADS, SEQUENCES * HEADS * tokens**2
    works = [_dense(rows, 3.0 * WIDTH, WIDTH), _dense(rows, WIDTH, WIDTH)]
    works += [_dense(rows, 4.0 * WIDTH, WIDTH), _dense(rows, WIDTH, 4.0 * WIDTH), _stream(rows * 4.0 * WIDTH, 1.0)]
    works += [gemm(tokens, tokens, d, batch=heads), gemm(tokens, d, tokens, batch=heads)]
    works += [_stream(scores, 1.0)] * 3  # scale, mask, softmax
    return works + [_stream(rows * WIDTH, 2.0)] * 4


def _mixer(tokens: float, fast: float) -> list[Work]:
    rows = SEQUENCES * tokens
    works = [_dense(rows, 3.0 * WIDTH, WIDTH), _dense(rows, WIDTH, WIDTH)]
    works += [long_convolution(SEQUENCES * WIDTH, tokens, WIDTH, fast=fast)] * 2
    works += [_dense(rows, 4.0 * WIDTH, WIDTH, 4.0), _dense(rows, WIDTH, 4.0 * WIDTH, 4.0)]
    works.append(_stream(rows * 4.0 * WIDTH, 1.0))
    return works + [_stream(rows * WIDTH, 2.0)] * 6


def gain(run: Run, tokens: float) -> float:
    """Time of a layer with attention over one with convolutions."""
    engine = run.engine(run.claim.machine)
    fast = engine.memories[0].capacity / engine.memories[0].parts / 2.0

    def seconds(works: list[Work]) -> float:
        return float(sum(kernel_time(work, engine).seconds for work in works))

    return seconds(_attention(tokens)) / seconds(_mixer(tokens, fast))


def gain_growth(run: Run, more: float, fewer: float) -> float:
    """Gain at one length over gain at a shorter one."""
    return gain(run, more) / gain(run, fewer)
