"""Errors of predicted serving runs, by source, framework, device and format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.reports import GroupReport, Worst, errors_of
from perfmodel.calibration.rows import header_of
from perfmodel.calibration.serving import Prediction, blocks, framework_of, predict, speculated
from perfmodel.calibration.serving_aside import cold, set_aside, speculating
from perfmodel.calibration.serving_held_out import HeldOut
from perfmodel.calibration.serving_layers import LAYERS, layer_reports
from perfmodel.calibration.serving_memory import LEDGER, ledger_reports
from perfmodel.calibration.serving_replays import REPLAYED, REPLAYS, replay_reports
from perfmodel.calibration.serving_rows import HEADER, METRICS, ServingRow, serving_rows
from perfmodel.calibration.serving_tables import READERS, reader_of
from perfmodel.specs.architecture import Moe

__all__ = ["holds_runs", "is_serving", "serving_reports"]

Array = NDArray[np.float64]
Head = tuple[str, str, str, str, str, str, str]
"""File, operator, source, framework, device, format, metric."""
_WORST = 3


def is_serving(header: frozenset[str]) -> bool:
    """Whether a table with these columns holds serving runs."""
    return holds_runs(header) or any(header >= columns for columns in (LEDGER, REPLAYS, REPLAYED, LAYERS))


def serving_reports(files: Sequence[Path], held_out: str | None = None) -> list[GroupReport]:
    """Predict the rows of serving tables and report the errors.

    Parameters
    ----------
    files : tables that :func:`is_serving` knows.
    held_out : what constants of frameworks may not have seen: ``rows`` (of the model on the device) or ``device``;
        those of the shipped files by default.
    """
    tables = {path: serving_rows(path, reader_of(path)) for path in files if holds_runs(header_of(path))}
    predictor: Callable[[Sequence[ServingRow]], Prediction] = lambda rows: predict(blocks(rows))  # noqa: E731
    if held_out is not None and tables:
        predictor = HeldOut([row for rows, _ in tables.values() for row in rows], held_out).predict
    reports: list[GroupReport] = []
    for path in files:
        header = header_of(path)
        if header >= LEDGER:
            reports += ledger_reports(path)
        elif header >= LAYERS:
            reports += layer_reports(path)
        elif path not in tables:
            reports += replay_reports(path, header)
        else:
            rows, skipped = tables[path]
            made = predictor(rows)
            drafting = speculating(rows, made.tpot)
            reports += _of_file(str(path), rows, made, skipped, drafting)
            again = [speculated(rows[i]) for i in drafting]
            reports += _of_file(str(path), again, predictor(again), {})
    return reports


def holds_runs(header: frozenset[str]) -> bool:
    """Whether a table holds one run a row."""
    return header >= HEADER or any(header >= columns for columns, _ in READERS)


def _of_file(
    file: str,
    rows: Sequence[ServingRow],
    made: Prediction,
    skipped: Mapping[tuple[str, str, str, str], Mapping[str, int]],
    drafting: Sequence[int] = (),
) -> list[GroupReport]:
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault((row.origin, row.framework + _kind(row), row.device, row.dtype), []).append(i)
    flagged, late = set(drafting), set(cold(rows, made.tpot, made.ttft))
    reports = []
    for key in sorted({*groups, *skipped}):
        origin, framework, device, dtype = key
        members, reasons = groups.get(key, []), dict(skipped.get(key, {}))
        own = [rows[i] for i in members]
        for metric in METRICS:
            head = (file, "serving", origin, framework, device, dtype, metric)
            predicted, bound = getattr(made, metric)[members], getattr(made, f"{metric}_bound")[members]
            if own and not any(metric in row.measured for row in own):
                continue
            drafted, waited = ([p for p, i in enumerate(members) if i in some] for some in (flagged, late))
            aside = set_aside(own, metric, drafted, waited)
            reports.append(_report(head, own, predicted, bound, reasons, aside))
    return reports


def _kind(row: ServingRow) -> str:
    """What is told beside the framework: deployments of other kinds are groups of their own."""
    return ", disaggregated" if row.mode == "pools" else ", speculating" if "accepted" in row.columns else ""


def _report(
    head: Head, rows: Sequence[ServingRow], predicted: Array, bound: Array, skipped: dict[str, int],
    unlike: Mapping[int, str],
) -> GroupReport:  # fmt: skip
    metric, total = head[-1], len(rows) + sum(skipped.values())
    measured = np.array([row.measured.get(metric, np.nan) for row in rows])
    known = np.isfinite(measured)
    aside = {i: why for i, why in unlike.items() if known[i]}
    kept = known.copy()
    kept[list(aside)] = False
    reasons = dict(skipped)
    for why in aside.values():
        reasons[why] = reasons.get(why, 0) + 1
    if not known.all():
        reasons[f"no {metric} is stated"] = int((~known).sum())
    if not known.any():
        return GroupReport(*head, total, 0, reasons)
    error = predicted / measured - 1.0
    whole = {"rows": int(known.sum()), **errors_of(error[known])}
    if not kept.any():
        return GroupReport(*head, total, 0, reasons, subsets={"all rows": whole})
    better = np.greater if metric == "throughput" else np.less
    found = errors_of(error[kept])
    order = [i for i in np.argsort(-np.abs(np.log1p(np.where(known, error, 0.0)))) if kept[i]][:_WORST]
    return GroupReport(
        *head,
        total,
        int(kept.sum()),
        reasons,
        median_abs_error=found["median_abs_error"],
        p90_abs_error=found["p90_abs_error"],
        mean_error=found["mean_error"],
        tier=framework_of(rows[0].setup.framework).version,
        subsets={"all rows": whole, **_kinds(rows, error, kept)},
        worst=tuple(_worst(rows[i], float(measured[i]), float(predicted[i])) for i in order),
        below_bound=int(better(predicted[known], bound[known]).sum()),
        measured_below_bound=int(better(measured[known], bound[known]).sum()),
    )


def _kinds(rows: Sequence[ServingRow], error: Array, kept: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """Errors of dense models and of those with experts, where a group holds closed-loop runs."""
    if rows[0].mode != "closed":
        return {}
    experts = np.array([any(isinstance(run.layer.ffn, Moe) for run in r.setup.architecture.runs) for r in rows])
    parts = {"dense": kept & ~experts, "experts": kept & experts}
    return {name: {"rows": int(own.sum()), **errors_of(error[own])} for name, own in parts.items() if own.any()}


def _worst(row: ServingRow, measured: float, predicted: float) -> Worst:
    sizes = {**row.columns, "prompt": row.prompt, "output": row.output}
    return Worst(row.line, measured, predicted, sizes)
