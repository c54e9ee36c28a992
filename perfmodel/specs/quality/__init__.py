"""Published quality of lossy techniques. Outside the tables the answer is *unknown*, never a guess.

``published.csv`` holds comparisons of training techniques, looked up by technique and setting; ``inference.csv`` those
of compressed models, looked up by method and bits in :mod:`perfmodel.specs.quality.formats`.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from perfmodel.specs.quality.loss import Loss

__all__ = ["Loss", "published_loss", "published_rows"]

TOLERANCE = 0.005
"""Relative difference in parameter count up to which a row speaks of the same model."""
SCALE_TOLERANCE = 0.5
"""The same for rows whose family is ``any``: results that are stated for a size, not for a model."""


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
    >>> round(published_loss("local_steps", "streaming-h100", "qwen3", 4022468096).value, 4)
    0.0044
    >>> published_loss("local_steps", "streaming-h100", "gpt2", 124439808) is None
    True
    """
    for row in published_rows():
        near = abs(parameters / row.parameters - 1.0) <= (SCALE_TOLERANCE if row.family == "any" else TOLERANCE)
        if (row.technique, row.variant) == (technique, variant) and row.family in (family, "any") and near:
            loss = max((row.value - row.baseline) / row.baseline, 0.0)
            return Loss(loss, row.metric, row.source)
    return None
