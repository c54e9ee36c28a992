"""What a validation says about one group of measured rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["GroupReport", "Worst", "errors_of"]


class Worst(NamedTuple):
    """A row with a large error."""

    line: int
    measured: float
    predicted: float
    sizes: Mapping[str, float]


@dataclass(frozen=True)
class GroupReport:
    """Errors of one source, framework, device and format; times in seconds, errors relative to the measured time.

    Parameters
    ----------
    metric : what is compared: ``time``.
    rows, predicted : rows in the file, and those with a prediction.
    skipped : other rows by reason.
    tier : where the constants come from.
    inside : share of the rows inside the stated 80 % interval.
    subsets : errors of named parts of the rows.
    below_bound, measured_below_bound : rows predicted, and rows measured, better than the physical lower bound of their
        plan; ``None`` where no bound is known. A measurement can only be so if its run was another than the row says.
    """

    file: str
    operator: str
    source: str
    framework: str
    device: str
    dtype: str
    metric: str
    rows: int
    predicted: int
    skipped: Mapping[str, int]
    median_abs_error: float | None = None
    p90_abs_error: float | None = None
    mean_error: float | None = None
    tier: str = ""
    inside: float | None = None
    subsets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    worst: tuple[Worst, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    """Other figures of merit: rank correlation, area under the ROC curve."""
    below_bound: int | None = None
    measured_below_bound: int | None = None

    def data(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        plain["worst"] = [w._asdict() for w in self.worst]
        return plain


def errors_of(error: NDArray[np.float64]) -> dict[str, float]:
    """Median and 90th percentile of the size of relative errors, and their mean."""
    size = np.abs(error)
    return {
        "median_abs_error": float(np.median(size)),
        "p90_abs_error": float(np.quantile(size, 0.9)),
        "mean_error": float(np.mean(error)),
    }
