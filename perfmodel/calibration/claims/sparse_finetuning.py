"""Bytes of masked sparse weights."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.formats import stored_bytes
from perfmodel.specs.number_formats import weight_format

__all__ = ["bound"]


def bound(run: Run, format: str, dense_bytes: float) -> float:
    """Dense bytes over stored bytes."""
    del run
    return float(dense_bytes / stored_bytes(weight_format(format), 4096.0))
