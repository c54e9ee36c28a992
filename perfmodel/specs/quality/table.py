"""The table of published quality of compressed models, and the models it speaks of."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from perfmodel.specs.facts import Spec
from perfmodel.specs.load import parse
from perfmodel.specs.yamlfile import read

__all__ = ["Row", "Series", "Size", "rows_of", "series"]

FOLDER = Path(__file__).parent
RELATIVE = {"relative_loss_pct": (1.0, 0.0), "recovery_pct": (-1.0, 100.0)}
"""Metrics that are a loss or a recovery in per cent already: sign, and what no loss is."""


class Row(NamedTuple):
    """One published comparison of a compressed model with itself uncompressed.

    Parameters
    ----------
    model, method : as the source calls them.
    weights, activations, cache : bits of each; 16 is untouched, blank (NaN) is not stated.
    group : weights per scale as printed, blank if it is not.
    sparsity : what was removed, as printed.
    metric, dataset : what was measured.
    loss : relative loss, never negative [1].
    source : where it was read.
    """

    model: str
    method: str
    category: str
    weights: float
    activations: float
    cache: float
    group: str
    sparsity: str
    metric: str
    dataset: str
    loss: float
    source: str


class Size(Spec):
    """Models of one series and size."""

    parameters: int
    names: tuple[str, ...]


class Series(Spec):
    """Models trained alike that differ in size."""

    name: str
    family: tuple[str, ...]
    vocab: tuple[int, ...]
    positions: int | None = None
    sizes: tuple[Size, ...]


class _Models(Spec):
    series: tuple[Series, ...]


@lru_cache(maxsize=1)
def series() -> tuple[Series, ...]:
    """Every series that the table speaks of."""
    return parse(_Models, read(FOLDER / "models.yaml")).series


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _loss(r: Mapping[str, str]) -> float:
    baseline, value = float(r["baseline"]), float(r["value"])
    if r["metric"] in RELATIVE:
        sign, none = RELATIVE[r["metric"]]
        return max(sign * (value - none) / 100.0, 0.0)
    worse = baseline - value if r["higher_is_better"] == "1" else value - baseline
    return max(worse / baseline, 0.0)


@lru_cache(maxsize=1)
def _table() -> dict[str, tuple[Row, ...]]:
    found: dict[str, list[Row]] = {}
    with (FOLDER / "inference.csv").open(encoding="utf-8", newline="") as file:
        for r in csv.DictReader(file):
            if float(r["baseline"]) == 0.0 and r["metric"] not in RELATIVE:
                continue  # a distance from the uncompressed model (divergence) is no share of anything
            weights, activations, cache = (_number(r[n]) for n in ("weight_bits", "activation_bits", "kv_bits"))
            row = Row(r["model"], r["method"], r["category"], weights, activations, cache, r["group"], r["sparsity"],
                      r["metric"], r["dataset"], _loss(r), r["source"])  # fmt: skip
            found.setdefault(row.model, []).append(row)
    return {model: tuple(rows) for model, rows in found.items()}


def rows_of(model: str) -> tuple[Row, ...]:
    """Rows of a model by its name in the table."""
    return _table().get(model, ())
