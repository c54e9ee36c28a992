"""Multiplications by scales in a quantised product."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.formats import rescalings

__all__ = ["saved", "speedup"]

SIZES = (2048.0, 4096.0, 4096.0)


def saved(run: Run, group: float) -> float:
    """One scaling per operand and product over one per group."""
    del run
    return float(rescalings(*SIZES, 1.0) / rescalings(*SIZES, group))


def speedup(run: Run, group: float) -> float:
    """Steps of an element: products and scalings of operands over products and scalings of sums."""
    del run
    m, n, k = SIZES
    products = m * n * k
    return float((products + rescalings(*SIZES, 1.0)) / (products + rescalings(*SIZES, group)))
