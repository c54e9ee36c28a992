"""The same kernels on two cores that differ in the clock of core and caches."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.gemm import gemm
from perfmodel.operators.streaming import elementwise

__all__ = ["first_cache", "in_caches", "on_memory"]

SLOW = "hf-core-4ghz"
SIDE = 4096.0


def in_caches(run: Run) -> float:
    """A matrix product, whose blocks stay in the caches."""
    work = gemm(SIDE, SIDE, SIDE, format="fp64", element_bytes=8.0, weight_bytes=8.0)
    slow, fast = (kernel_time(work, run.engine(name)).seconds for name in (SLOW, str(run.asked().hw)))
    return float(slow / fast)


def on_memory(run: Run, stalled: float) -> float:
    """A program whose stalls take as long as a stream from memory does, and the rest as the product."""
    stream = elementwise(1e9, reads=1.0, writes=0.0, flops_per_element=0.0)
    slow, fast = (kernel_time(stream, run.engine(name)).seconds for name in (SLOW, str(run.asked().hw)))
    return float(1.0 / (stalled * fast / slow + (1.0 - stalled) / in_caches(run)))


def first_cache(run: Run) -> float:
    """Bandwidth of the nearest memory [GB/s]."""
    return float((run.engine(str(run.asked().hw)).memories[0].bandwidth or 0.0) / 1e9)
