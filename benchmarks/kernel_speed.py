"""Kernel shapes timed per second on one core, by operator class.

Method: random sizes over the ranges that serving meets, a million at a time, on one device; one process pinned to one
thread (``OMP_NUM_THREADS=1``), one warm-up, the best of five runs in processor seconds. Counting the work of the
shapes is part of the job.

Run with ``python benchmarks/kernel_speed.py [--hw h100-sxm] [--shapes 1000000]``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from perfmodel.machine.build import build_machine
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.attention import attention, decode_attention
from perfmodel.operators.gemm import gemm
from perfmodel.operators.moe import expected_loads, moe
from perfmodel.operators.work import Work
from perfmodel.specs.system import load_system

Sizes = Callable[[float, float], NDArray[np.float64]]
EXPERTS, TOP_K = 64.0, 8.0


def matrix_product(draw: Sizes) -> Work:
    """Tokens by any two widths."""
    return gemm(draw(1, 32768), draw(32, 32768), draw(128, 32768))


def prefill(draw: Sizes) -> Work:
    """Grouped heads, new tokens behind cached ones."""
    heads, new = 4.0 * draw(1, 16), draw(1, 16384)
    return attention(draw(1, 64), heads, heads / 4.0, 128.0, 128.0, new, new + draw(1, 16384), window=draw(128, 65536))


def decode(draw: Sizes) -> Work:
    """Grouped heads on a long cache."""
    heads = draw(1, 16)
    return decode_attention(draw(1, 1024), 4.0 * heads, heads, 128.0, 128.0, draw(1, 131072))


def latent_decode(draw: Sizes) -> Work:
    """Absorbed latent attention."""
    return decode_attention(draw(1, 1024), draw(1, 128), 1.0, 576.0, 512.0, draw(1, 131072), latent=True)


def experts(draw: Sizes) -> Work:
    """Fused experts with even routing."""
    tokens = draw(1, 32768)
    active = EXPERTS * (1.0 - (1.0 - TOP_K / EXPERTS) ** tokens)
    loads = expected_loads(TOP_K * tokens, active)
    return moe(tokens, draw(1024, 8192), draw(256, 8192), loads, experts=EXPERTS, top_k=TOP_K)


OPERATORS = {
    "gemm": matrix_product,
    "attention": prefill,
    "decode": decode,
    "MLA decode": latent_decode,
    "moe": experts,
}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hw", default="h100-sxm")
    parser.add_argument("--shapes", type=int, default=1_000_000)
    options = parser.parse_args()
    engine = build_machine(load_system(options.hw)).main
    for name, job in OPERATORS.items():
        rng, kept = np.random.default_rng(0), list[NDArray[np.float64]]()

        def draw(low: float, high: float, rng: np.random.Generator = rng, kept: Any = kept) -> NDArray[np.float64]:
            kept.append(np.floor(low * (high / low) ** rng.uniform(size=options.shapes)))
            return kept[-1]

        kernel_time(job(draw), engine)
        seconds = min(timed(job, kept, engine) for _ in range(5))
        print(f"{name:12s} {options.shapes / seconds / 1e6:6.2f} million shapes per second")


def timed(job: Callable[[Sizes], Work], kept: Sequence[NDArray[np.float64]], engine: Engine) -> float:
    """Processor seconds of the job for sizes drawn before."""
    drawn = iter(kept)
    start = time.process_time()
    kernel_time(job(lambda low, high: next(drawn)), engine)
    return time.process_time() - start


if __name__ == "__main__":
    main()
