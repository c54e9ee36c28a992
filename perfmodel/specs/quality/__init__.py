"""Published quality of lossy techniques. Outside the table the answer is *unknown*, never a guess."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["Loss", "published_loss", "published_rows"]

TOLERANCE = 0.005
"""Relative difference in parameter count up to which a row speaks of the same model."""
SCALE_TOLERANCE = 0.5
"""The same for rows whose family is ``any``: results that are stated for a size, not for a model."""


class Loss(NamedTuple):
    """Relative loss of quality with its source: (value - baseline) / baseline of a lower-is-better metric [1]."""

    value: float
    metric: str
    source: str


class Row(NamedTuple):
    """One published comparison."""

    technique: str
    variant: str
    family: str
    parameters: int
    metric: str
    baseline: float
    value: float
    source: str


@lru_cache(maxsize=1)
def published_rows() -> tuple[Row, ...]:
    """Every row of the table."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Row(
                r["technique"],
                r["variant"],
                r["family"],
                int(r["parameters"]),
                r["metric"],
                float(r["baseline"]),
                float(r["value"]),
                r["source"],
            )
            for r in csv.DictReader(file)
        )


def published_loss(technique: str, variant: str, family: str, parameters: int) -> Loss | None:
    """Published loss of ``variant`` on the model of that family and size, or ``None`` where nothing is published.

    Examples
    --------
    >>> round(published_loss("packed_weights", "awq-int4-g128", "llama", 68976648192).value, 3)
    0.027
    >>> published_loss("packed_weights", "awq-int4-g128", "gpt2", 124439808) is None
    True
    """
    for row in published_rows():
        near = abs(parameters / row.parameters - 1.0) <= (SCALE_TOLERANCE if row.family == "any" else TOLERANCE)
        if (row.technique, row.variant) == (technique, variant) and row.family in (family, "any") and near:
            loss = max((row.value - row.baseline) / row.baseline, 0.0)
            return Loss(loss, row.metric, row.source)
    return None
