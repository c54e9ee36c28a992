"""What a fit to measurements says: constants of one operator class, format and framework on one device.

Numbers are in base units (s, B, FLOP/s, 1); what each constant means stands in ``perfmodel.machine.kernels``.
"""

from __future__ import annotations

from pydantic import Field

from perfmodel.specs.facts import Spec

__all__ = ["POOLED", "CalibrationFile", "CalibrationGroup"]

POOLED = "any"
"""Variant of the constants that stand for every framework of a device and format."""


class CalibrationGroup(Spec):
    """Constants fitted to the timings of one framework or kernel."""

    operator: str
    format: str
    """As measured: a scaled variant of a format has kernels, and constants, of its own."""
    variant: str = POOLED
    """Framework, followed by the kernel where one framework has several."""
    origin: str = ""
    """Who measured: a short name of the publication or repository."""
    rows: int = 0
    date: str = ""
    median_error: float | None = None
    """Median of the absolute relative errors of the fitted rows [1]."""
    p90_error: float | None = None
    mean_error: float | None = None
    constants: dict[str, float]
    interval: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """80 % interval of ln(measured / predicted) of rows left out of the fit, by regime of predicted time."""
    undetermined: tuple[str, ...] = ()
    """Constants that these rows leave to the prior."""


class CalibrationFile(Spec):
    """All groups of one device."""

    device: str
    family: str = ""
    sources: dict[str, str]
    groups: tuple[CalibrationGroup, ...]
