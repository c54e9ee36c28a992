"""Bytes of matrices and models whose weights are vectors of a codebook."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.formats import mean_matrix, mean_row, stored_bytes
from perfmodel.specs.number_formats import weight_format

__all__ = ["bits", "compression", "memory"]


def compression(run: Run, format: str, inputs: int, outputs: int) -> float:
    """Bytes of a 16-bit matrix over its stored bytes."""
    del run
    return float(2.0 / stored_bytes(weight_format(format), inputs, inputs * outputs))


def bits(run: Run, plan: str) -> float:
    """Average stored bits per weight of the layers' matrices."""
    found = run.estimate(run.asked(plan))
    record = weight_format(found.plan.columns["packed_weights"])
    architecture = found.model.architecture
    return 8.0 * float(stored_bytes(record, mean_row(architecture), mean_matrix(architecture)))


def memory(run: Run, plan: str, bits: float | None = None) -> float:
    """Weights of a plan's ledger; with ``bits`` those of the layers' matrices in as many instead [GB]."""
    found = run.estimate(run.asked(plan))
    held = sum(line.bytes for line in found.plan.ledgers[0].lines if line.name == "weights")
    if bits is not None:
        record, a = weight_format(found.plan.columns["packed_weights"]), found.model.architecture
        matrices = a.parameters - a.embedding_parameters - a.head_parameters - a.extra
        held += matrices * (bits / 8.0 - float(stored_bytes(record, mean_row(a), mean_matrix(a))))
    return float(held) / 1e9
