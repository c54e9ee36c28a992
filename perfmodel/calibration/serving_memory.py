"""Memory that serving engines log at start, line by line, against the ledger of the same plan."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.reports import GroupReport, Worst, errors_of
from perfmodel.calibration.serving import blocks, stated_constants
from perfmodel.calibration.serving_rows import ServingRow, Setup, number, origin_of
from perfmodel.calibration.serving_sources import cluster_of, framework_of, model_of

__all__ = ["LEDGER", "ledger_reports"]

LEDGER = frozenset({"weights_gib", "non_torch_gib", "kv_cache_gib", "gpu_memory_utilization", "tp"})
"""Columns by which a table of logged memory is recognised."""
GIB = 2.0**30
ROOM = "KV capacity"
LINES = {
    "weights": "weights_gib",
    "activations": "activation_peak_gib",
    "runtime": "non_torch_gib",
    ROOM: "kv_cache_gib",
}
"""Lines of the ledger and the columns that log them; graphs are logged as a difference of free memory, which what their
capture frees turns negative."""
SLACK = 0.01
"""Share of the memory by which logged lines may miss their sum [1]."""
OTHER_SHARE = "its lines add up to another share of the memory than the row says"


class _Case(NamedTuple):
    """A configuration: the row as a plan, its share of the memory, what was logged [B], and whether it started."""

    row: ServingRow
    utilisation: float
    logged: Mapping[str, float]
    fits: bool


class _Made(NamedTuple):
    """Predicted lines [B], whether a request of full length fits, and whether what was logged adds up."""

    lines: Mapping[str, float]
    fits: bool
    adds_up: bool


def _size(text: str) -> float | None:
    """Bytes of a column in GiB, which may be negative; ``None`` where it says nothing."""
    try:
        size = float(text) * GIB
    except ValueError:
        return None
    return size if isfinite(size) else None


def _case(line: int, row: Mapping[str, str]) -> _Case:
    name = row.get("model", "")
    precision = next((p for p in ("fp8", "fp4", "int4") if re.search(p, name, re.IGNORECASE)), "")
    named = {**row, "precision": precision, "system": row.get("gpu", "")}
    longest = number(row, "max_model_len") or 2048.0
    tp = max(1.0, number(row, "tp"))
    framework = framework_of(row.get("engine", ""))
    setup = Setup(model_of(named), cluster_of(row.get("gpu", ""), int(tp)), framework, "bf16")
    columns = {"tp": tp, "ep": 1.0, "expert_tensor": 1.0, "pp": 1.0, "batch": 1.0}
    logged = {n: size for n, column in LINES.items() if (size := _size(row.get(column, ""))) is not None}
    shape = {"prompt": longest - 1.0, "output": 1.0, "columns": columns, "measured": {}}
    device, origin = row.get("gpu", ""), origin_of(row)
    given = ServingRow(line, origin, framework, device, precision or "bf16", (name,), setup, **shape)  # type: ignore[arg-type]
    return _Case(given, number(row, "gpu_memory_utilization") or 1.0, logged, row.get("outcome", "fits") == "fits")


def _read(path: Path) -> tuple[list[_Case], dict[str, int]]:
    """Configurations of a table, and the rows that have no model or machine, by reason."""
    cases: list[_Case] = []
    skipped: dict[str, int] = {}
    above: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as lines:
        for line, given in enumerate(csv.DictReader(lines), start=2):
            row = {n: above.get(n, "") if (v or "").strip() == "same" else v or "" for n, v in given.items() if n}
            above = row
            try:
                cases.append(_case(line, row))
            except Unpredictable as reason:
                skipped[str(reason)] = skipped.get(str(reason), 0) + 1
    return cases, skipped


def _predicted(case: _Case) -> _Made:
    """Lines of the plan's ledger, the room for the cache among them."""
    (block,) = blocks([case.row])
    constants = {**stated_constants(block), "memory_utilisation": case.utilisation}
    lines: dict[str, float] = {}
    for line in block.evaluate(constants).ledgers["first"]:
        lines[line.name] = lines.get(line.name, 0.0) + float(np.max(line.bytes))
    capacity = block.machine.main.capacity
    room = case.utilisation * capacity - sum(lines[n] for n in LINES if n != ROOM)
    share = sum(case.logged.values()) / capacity
    adds_up = len(case.logged) < len(LINES) or abs(share - case.utilisation) < SLACK
    return _Made({**lines, ROOM: room}, room >= lines["KV cache"], adds_up)


def ledger_reports(path: Path) -> list[GroupReport]:
    """Errors of every logged line, one group each, and whether the engine starts.

    Parameters
    ----------
    path : a table with the columns of :data:`LEDGER`.
    """
    cases, skipped = _read(path)
    made = [_predicted(case) for case in cases]
    return [_line_report(str(path), name, cases, made, skipped) for name in LINES]


def _line_report(
    file: str, name: str, cases: Sequence[_Case], made: Sequence[_Made], skipped: Mapping[str, int]
) -> GroupReport:
    """Errors of one line."""
    pairs = [(c, m) for c, m in zip(cases, made, strict=True) if c.logged.get(name)]
    kept = [(c, m) for c, m in pairs if name != ROOM or m.adds_up]
    reasons = {**skipped, f"{name}: not logged, the engine did not start": len(cases) - len(pairs)}
    reasons[OTHER_SHARE] = len(pairs) - len(kept)
    reasons = {why: count for why, count in reasons.items() if count}
    row = cases[0].row if cases else None
    subject = (row.origin.partition("(")[0].strip(), row.framework, row.device) if row else ("unnamed", "", "")
    head = (file, "serving", *subject, name, "memory", len(cases) + sum(skipped.values()), len(kept), reasons)
    if not kept:
        return GroupReport(*head)
    error = {c.row.line: m.lines[name] / c.logged[name] - 1.0 for c, m in pairs}
    found = errors_of(np.array([error[c.row.line] for c, _ in kept]))
    worst = sorted(kept, key=lambda pair: -abs(error[pair[0].row.line]))[:3]
    right = float(np.mean([m.fits == c.fits for c, m in zip(cases, made, strict=True)]))
    return GroupReport(
        *head,
        median_abs_error=found["median_abs_error"],
        p90_abs_error=found["p90_abs_error"],
        mean_error=found["mean_error"],
        tier="ledger of the plan",
        subsets={"all rows": {"rows": float(len(pairs)), **errors_of(np.array(list(error.values())))}},
        worst=tuple(Worst(c.row.line, c.logged[name], m.lines[name], c.row.columns) for c, m in worst),
        scores={"starting_or_not_told_right": right} if name == ROOM else {},
    )
