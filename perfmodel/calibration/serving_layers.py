"""One transformer layer timed operator by operator: the sum of a phase against a layer of the same pass."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.reports import GroupReport, Worst, errors_of
from perfmodel.calibration.serving import blocks, predict
from perfmodel.calibration.serving_rows import ServingRow, Setup, number, origin_of
from perfmodel.calibration.serving_sources import cluster_of
from perfmodel.specs.architecture import Architecture
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model

__all__ = ["LAYERS", "layer_reports"]

LAYERS = frozenset({"phase", "d_model", "n_heads", "batch", "seq_len", "kv_len", "op", "time_us"})
"""Columns by which a table of the operators of a layer is recognised."""
FRAMEWORK, MODEL = "bare", "gpt-3-175b"
"""Operators by themselves, of the layer that such tables time."""


def _layers(architecture: Architecture, count: int) -> Architecture:
    """The first layers of a model."""
    return replace(architecture, runs=(architecture.runs[0]._replace(count=count),))


def _seconds(row: Mapping[str, str], count: int) -> float:
    """Time of a pass through so many layers [s]."""
    architecture = load_model(find_model(MODEL)).architecture
    if number(row, "d_model") != architecture.hidden:
        raise Unpredictable(f"a layer {row.get('d_model')} wide is of no model that is known here")
    tp, decode = max(1.0, number(row, "tp")), row.get("phase") == "decode"
    cluster = cluster_of(row.get("device", ""), int(tp))
    setup = Setup(_layers(architecture, count), cluster, FRAMEWORK, "bf16")
    columns = {"tp": tp, "ep": 1.0, "expert_tensor": 1.0, "pp": 1.0, "batch": max(1.0, number(row, "batch"))}
    prompt = max(1.0, number(row, "kv_len") - 1.0 if decode else number(row, "seq_len"))
    one = ServingRow(0, "", FRAMEWORK, "", "", (), setup, prompt, 2.0, columns, {}, mode="static")
    made = predict(blocks([one]))
    return float((made.tpot if decode else made.ttft)[0])


def layer_reports(path: Path) -> list[GroupReport]:
    """Errors of the sum over the operators of a layer, one group per device and phase.

    Parameters
    ----------
    path : a table with the columns of :data:`LAYERS`.
    """
    groups: dict[tuple[str, ...], list[tuple[int, dict[str, str]]]] = {}
    with path.open(newline="", encoding="utf-8-sig") as lines:
        for line, given in enumerate(csv.DictReader(lines), start=2):
            row = {n: v or "" for n, v in given.items() if n}
            if row.get("op", "").casefold().startswith("total"):
                continue  # what the rows above it add up to
            names = ("device", "tp", "phase", "batch", "seq_len", "kv_len", "dtype")
            groups.setdefault((origin_of(row), *(row.get(n, "") for n in names)), []).append((line, row))
    return [_report(str(path), own) for own in groups.values()]


def _report(file: str, rows: Sequence[tuple[int, Mapping[str, str]]]) -> GroupReport:
    line, row = rows[0]
    metric = "tpot" if row.get("phase") == "decode" else "ttft"
    subject = (origin_of(row), f"{FRAMEWORK}, one layer", row.get("device", ""), row.get("dtype", ""))
    head = (file, "serving", *subject, metric, len(rows))
    measured = sum(number(r, "time_us") for _, r in rows) * 1e-6
    try:
        if not measured:
            raise Unpredictable("no time is stated")
        made = _seconds(row, 2) - _seconds(row, 1)
    except Unpredictable as reason:
        return GroupReport(*head, 0, {str(reason): len(rows)})
    found = errors_of(np.array([made / measured - 1.0]))
    return GroupReport(
        *head,
        len(rows),
        {},
        median_abs_error=found["median_abs_error"],
        p90_abs_error=found["p90_abs_error"],
        mean_error=found["mean_error"],
        tier="sum of the operators of a layer",
        subsets={"all rows": {"rows": 1.0, **found}},
        worst=(Worst(line, measured, made, {"operators": float(len(rows))}),),
    )
