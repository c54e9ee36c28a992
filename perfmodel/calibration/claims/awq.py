"""Decode and prefill of 4-bit weights beside 16-bit ones."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.formats import stored_bytes
from perfmodel.operators.gemm import gemm
from perfmodel.specs.number_formats import weight_format

__all__ = ["kernel_ratio", "token_ms", "weights_read"]


def token_ms(run: Run, plan: str) -> float:
    """Time of one decode pass [ms]."""
    return run.metric(f"{plan}.pass_seconds") * 1e3


def weights_read(run: Run, plan: str) -> float:
    """Weights that one token reads: all but the embedding table [GB]."""
    found = run.estimate(run.asked(plan))
    weights = sum(line.bytes for line in found.plan.ledgers[0].lines if line.name == "weights")
    return float(weights - 2.0 * found.model.architecture.embedding_parameters) / 1e9


def kernel_ratio(run: Run) -> float:
    """16-bit over 4-bit product of one vector with the matrices of a 7B model, mean over the matrices."""
    engine, packed = run.engine(run.claim.machine), weight_format("awq-int4-g128")
    ratios = []
    for n, k in ((12288, 4096), (4096, 4096), (22016, 4096), (4096, 11008)):
        plain = kernel_time(gemm(1.0, n, k), engine).seconds
        ratios.append(plain / kernel_time(gemm(1.0, n, k, weight_bytes=stored_bytes(packed, k)), engine).seconds)
    return float(sum(ratios) / len(ratios))
