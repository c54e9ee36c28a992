"""Sparse weights that are multiplied dense: bytes, kernels, serving."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.formats import stored_bytes
from perfmodel.operators.gemm import gemm
from perfmodel.specs.number_formats import weight_format

__all__ = ["bound", "break_even", "kernel_speedup", "serving_gain"]

MATRICES = (
    (21504.0, 7168.0), (7168.0, 7168.0), (28672.0, 7168.0), (7168.0, 28672.0),
    (27648.0, 9216.0), (9216.0, 9216.0), (36864.0, 9216.0), (9216.0, 36864.0),
    (36864.0, 12288.0), (12288.0, 12288.0), (49152.0, 12288.0), (12288.0, 49152.0),
)  # fmt: skip
"""Outputs and inputs of the matrices of OPT-30B, 66B and 175B."""
BATCHES = (8.0, 16.0, 32.0, 64.0)
ROW = 9216.0


def bound(run: Run, format: str) -> float:
    """Dense bytes over stored bytes."""
    del run
    return float(2.0 / stored_bytes(weight_format(format), ROW))


def break_even(run: Run) -> float:
    """Density at which a stored weight with its position takes as much as all weights without."""
    del run
    record = weight_format("flash-llm-80")
    return 2.0 / float(stored_bytes(record, ROW)) * record.density


def kernel_speedup(run: Run, format: str) -> float:
    """Mean over matrices and batches of dense over sparse time, unpacking beside the loads."""
    engine, record = run.engine(run.claim.machine), weight_format(format)
    ratios = []
    for n, k in MATRICES:
        unpack = n * k * record.density * record.unpack.value / engine.vector_peak()
        for m in BATCHES:
            dense = kernel_time(gemm(m, n, k, format="fp16"), engine).seconds
            sparse = kernel_time(gemm(m, n, k, weight_bytes=stored_bytes(record, k), format="fp16"), engine).seconds
            ratios.append(dense / max(sparse, unpack))
    return float(sum(ratios) / len(ratios))


def serving_gain(run: Run) -> float:
    """Largest gain in output tokens per second and device among the models."""

    def rate(plan: str) -> float:
        best = run.solve(run.asked(plan))
        return float(best.metrics["output_tokens_per_second_per_device"] or 0.0) if best else float("nan")

    return max(rate(f"{model}_sparse") / rate(f"{model}_dense") for model in ("opt66", "opt175"))
