"""Errors of predicted serving runs, by source, framework, device and format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.reports import GroupReport, Worst, errors_of
from perfmodel.calibration.rows import header_of
from perfmodel.calibration.serving import Block, Constants, Prediction, blocks, framework_of, predict, speculated
from perfmodel.calibration.serving_memory import LEDGER, ledger_reports
from perfmodel.calibration.serving_replays import REPLAYED, REPLAYS, replay_reports
from perfmodel.calibration.serving_rows import HEADER, METRICS, ServingRow, read_row, serving_rows
from perfmodel.calibration.serving_tables import READERS
from perfmodel.specs.architecture import Moe

__all__ = ["is_serving", "reader_of", "serving_reports", "set_aside"]

Array = NDArray[np.float64]
Head = tuple[str, str, str, str, str, str, str]
"""File, operator, source, framework, device, format, metric."""
_WORST = 3
_RUNNING = 0.6
"""Share of the clients' requests that must run at the same time for a row to tell of that batch."""
_SPECULATING = (0.3, 0.75)
"""Median of measured over predicted time per token of a cohort between which it must have speculated: below, no usual
length of accepted drafts explains it."""
_COHORT = 4
"""Rows of a cohort that tell whether it speculates."""
SPECULATED = "the cohort speculates without saying so: faster than its kernels, and its model has a draft head"
QUEUED = "the server ran fewer requests than the clients had open (Little's law): another batch"


def is_serving(header: frozenset[str]) -> bool:
    """Whether a table with these columns holds serving runs."""
    whole = any(header >= columns for columns in (HEADER, LEDGER, REPLAYS, REPLAYED))
    return whole or any(header >= columns for columns, _ in READERS)


def reader_of(path: Path) -> Callable[[int, Mapping[str, str]], ServingRow]:
    """Return what reads the rows of a serving table."""
    header = header_of(path)
    return read_row if header >= HEADER else next(read for columns, read in READERS if header >= columns)


def serving_reports(files: Sequence[Path], constants: Callable[[Block], Constants] | None = None) -> list[GroupReport]:
    """Predict the rows of serving tables and report the errors.

    Parameters
    ----------
    files : tables with the columns of :data:`perfmodel.calibration.serving_rows.HEADER`.
    constants : constants of a block's framework; by default those of its file.
    """
    reports: list[GroupReport] = []
    for path in files:
        header = header_of(path)
        if header >= LEDGER:
            reports += ledger_reports(path)
            continue
        if header >= REPLAYS or header >= REPLAYED:
            reports += replay_reports(path, header)
            continue
        rows, skipped = serving_rows(path, reader_of(path))
        made = predict(blocks(rows), constants)
        drafting = speculating(rows, made.tpot)
        reports += _of_file(str(path), rows, made, skipped, drafting)
        again = [speculated(rows[i]) for i in drafting]
        reports += _of_file(str(path), again, predict(blocks(again), constants), {})
    return reports


def running_share(row: ServingRow) -> float:
    """Share of the open requests that were being decoded, by Little's law; 1 where a latency is missing."""
    tpot, ttft = row.measured.get("tpot"), row.measured.get("ttft")
    if not tpot or not ttft:
        return 1.0
    return tpot * row.output / (ttft + tpot * row.output)


def set_aside(rows: Sequence[ServingRow], metric: str, drafting: Sequence[int] = ()) -> dict[int, str]:
    """Rows whose measurement is of something else than the row says, by place, with the physical reason.

    Parameters
    ----------
    rows : runs.
    metric : what is compared.
    drafting : places of rows whose cohorts speculate.
    """
    found = dict.fromkeys(drafting, SPECULATED)
    if metric != "throughput":
        found |= {i: QUEUED for i, row in enumerate(rows) if row.mode == "closed" and running_share(row) < _RUNNING}
    return found


def speculating(rows: Sequence[ServingRow], tpot: Array) -> list[int]:
    """Rows of cohorts that are faster than their kernels allow, decided by cohort, for models with a draft head."""
    cohorts: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if "tpot" in row.measured and row.drafts:
            cohorts.setdefault(row.cohort, []).append(i)
    low, high = _SPECULATING
    ratio = {c: np.median([rows[i].measured["tpot"] / tpot[i] for i in own]) for c, own in cohorts.items()}
    found = [own for cohort, own in cohorts.items() if low < ratio[cohort] < high and len(own) >= _COHORT]
    return [i for own in found for i in own]


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
    flagged = set(drafting)
    reports = []
    for key in sorted({*groups, *skipped}):
        origin, framework, device, dtype = key
        members, reasons = groups.get(key, []), dict(skipped.get(key, {}))
        own = [rows[i] for i in members]
        for metric in METRICS:
            head = (file, "serving", origin, framework, device, dtype, metric)
            predicted = getattr(made, metric)[members]
            if own and not any(metric in row.measured for row in own):
                continue
            aside = set_aside(own, metric, [place for place, i in enumerate(members) if i in flagged])
            reports.append(_report(head, own, predicted, reasons, aside))
    return reports


def _kind(row: ServingRow) -> str:
    """What is told beside the framework: deployments of other kinds are groups of their own."""
    return ", disaggregated" if row.mode == "pools" else ", speculating" if "accepted" in row.columns else ""


def _report(
    head: Head, rows: Sequence[ServingRow], predicted: Array, skipped: dict[str, int], unlike: Mapping[int, str]
) -> GroupReport:
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
    if not kept.any():
        return GroupReport(*head, total, 0, reasons)
    error = predicted / measured - 1.0
    found = errors_of(error[kept])
    whole = {"rows": int(known.sum()), **errors_of(error[known])}
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
