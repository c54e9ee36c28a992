"""Bits per weight of a 7B model."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.formats import mean_row, stored_bytes
from perfmodel.specs.number_formats import weight_format

__all__ = ["bits", "bound"]


def bits(run: Run, format: str) -> float:
    """Stored bits per weight of the layers' matrices."""
    architecture = run.estimate(run.asked("fp16")).model.architecture
    return float(8.0 * stored_bytes(weight_format(format), mean_row(architecture)))


def bound(run: Run, format: str) -> float:
    """Speed-up where reading weights is all there is."""
    return 16.0 / bits(run, format)
