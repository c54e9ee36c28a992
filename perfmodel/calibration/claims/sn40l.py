"""Time to bring a model to the fast memory, and which resource binds work of a given intensity."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.kernels import kernel_lower_bound
from perfmodel.operators.work import Work

__all__ = ["compute_bound", "switch", "switch_ratio"]


def switch(run: Run, plan: str) -> float:
    """All layers of the model from the memory behind the fast one [ms]."""
    return 1e3 * run.busy(plan, "weights to device")


def switch_ratio(run: Run, plan: str) -> float:
    """The same on another machine, over SN40L [1]."""
    return switch(run, plan) / switch(run, "sn40l")


def compute_bound(run: Run, intensity: float) -> float:
    """1 where computing takes longer than moving on an A100, for work of so many operations per byte."""
    engine = run.engine("a100-80gb-sxm")
    moved = 1e9
    work = Work("gemm", "bf16", flops=intensity * moved, compulsory_bytes=moved)
    return float(kernel_lower_bound(work, engine) > 1.0001 * moved / engine.bandwidth)
