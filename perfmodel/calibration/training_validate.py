"""Errors of predicted training runs, by source, software, device and format; rankings, and what ran out of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.reports import GroupReport, Worst, errors_of
from perfmodel.calibration.training import Prediction, blocks, framework_of, predict
from perfmodel.calibration.training_classes import class_reports
from perfmodel.calibration.training_rows import HEADER, TrainingRow, training_rows

__all__ = ["PARTS", "is_training", "training_reports"]

Array = NDArray[np.float64]
Predict = Callable[[Sequence[TrainingRow]], Prediction]
Head = tuple[str, str, str, str, str, str]
"""File, operator, source, framework, device, format."""
_WORST, _LEAST_RANKED, _TOP = 3, 8, 5


def _large(c: Mapping[str, float]) -> bool:
    return c["devices"] >= 512


def _unsharded_pipeline(c: Mapping[str, float]) -> bool:
    """Pipelines whose replicas keep whole optimizer states, on several nodes."""
    replicas = c["devices"] / (c["tp"] * c["pp"] * c["cp"])
    return c["pp"] > 1 and c["optimizer_group"] == 1 and replicas > 1 and c["devices"] > 8


PARTS: dict[str, Callable[[TrainingRow], bool]] = {
    "A: no pipeline, tp up to 8, below 512": lambda r: (
        r.columns["pp"] == 1 and r.columns["tp"] <= 8 and not _large(r.columns)
    ),
    "A2: no pipeline, tp above 8, below 512": lambda r: (
        r.columns["pp"] == 1 and r.columns["tp"] > 8 and not _large(r.columns)
    ),
    "B: pipeline, below 512": lambda r: (
        r.columns["pp"] > 1 and not _large(r.columns) and not _unsharded_pipeline(r.columns)
    ),
    "C: pipeline, unsharded replicas, below 512": lambda r: (
        r.columns["pp"] > 1 and not _large(r.columns) and _unsharded_pipeline(r.columns)
    ),
    "D: 512 and more": lambda r: _large(r.columns),
    "core: tp up to 8, published MFU from 15 %": lambda r: r.columns["tp"] <= 8 and r.extra.get("mfu", 0.0) >= 15.0,
}
"""Parts of large sweeps that are reported on their own."""


def is_training(header: frozenset[str]) -> bool:
    """Whether a table with these columns holds training runs."""
    return header >= HEADER


def stated(rows: Sequence[TrainingRow]) -> Prediction:
    """Predict rows with the constants of their frameworks' files."""
    return predict(blocks(rows))


def training_reports(files: Sequence[Path], predicted: Predict = stated) -> list[GroupReport]:
    """Predict the rows of training tables and report the errors.

    Parameters
    ----------
    files : tables with the columns of :data:`perfmodel.calibration.training_rows.HEADER`.
    predicted : rows of all files -> their step times and memory; by default with the constants as stated.
    """
    tables = [(str(path), *training_rows(path)) for path in files]
    together = [(name, row) for name, rows, _ in tables for row in rows]
    if not together and not tables:
        return []
    made = predicted([row for _, row in together])
    reports: list[GroupReport] = []
    first = 0
    for name, rows, skipped in tables:
        own = slice(first, first + len(rows))
        reports += _of_file(name, rows, made.seconds[own], made.memory[own], skipped)
        first = own.stop
    everything = [(name, row, float(m)) for (name, row), m in zip(together, made.memory, strict=True)]
    return reports + _completion(everything) + class_reports(together, made.seconds, made.memory)


def _key(row: TrainingRow) -> tuple[str, str, str, str]:
    release = f" {row.setup.release}" if row.setup.release else ""
    return row.origin, row.setup.framework + release, row.gpu, row.precision


def _of_file(
    file: str,
    rows: Sequence[TrainingRow],
    seconds: Array,
    memory: Array,
    skipped: Mapping[tuple[str, str, str], Mapping[str, int]],
) -> list[GroupReport]:
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(_key(row), []).append(i)
    reports = []
    for (origin, framework, gpu, precision), members in groups.items():
        head: Head = (file, "training", origin, framework, gpu, precision)
        own = [rows[i] for i in members]
        times = np.array([r.step_time or np.nan for r in own])
        held = np.array([r.memory or np.nan for r in own])
        for metric, measured, predicted in (("step_time", times, seconds), ("memory", held, memory)):
            if np.isfinite(measured).any() or (metric == "step_time" and not np.isfinite(held).any()):
                reports.append(_report(head, metric, own, measured, predicted[members]))
        reports += _ranking(head, own, times, seconds[members])
    for (origin, gpu, precision), reasons in skipped.items():
        count = sum(reasons.values())
        reports.append(GroupReport(file, "training", origin, "", gpu, precision, "step_time", count, 0, dict(reasons)))
    return reports


def _report(head: Head, metric: str, rows: Sequence[TrainingRow], measured: Array, predicted: Array) -> GroupReport:
    known = np.isfinite(measured)
    missing = int((~known).sum())
    reason = "the run did not complete" if any(r.failed for r in rows) else f"no {metric.replace('_', ' ')} is stated"
    skipped = {reason: missing} if missing else {}
    if not known.any():
        return GroupReport(*head, metric, len(rows), 0, skipped)
    error = predicted[known] / measured[known] - 1.0
    kept = [r for r, k in zip(rows, known, strict=True) if k]
    chosen = {name: np.array([test(r) for r in kept]) for name, test in PARTS.items()} if len(kept) > 200 else {}
    found = errors_of(error)
    order = np.argsort(-np.abs(error))[:_WORST]
    return GroupReport(
        *head,
        metric,
        len(rows),
        len(kept),
        skipped,
        median_abs_error=found["median_abs_error"],
        p90_abs_error=found["p90_abs_error"],
        mean_error=found["mean_error"],
        tier=framework_of(rows[0].setup.framework).version,
        subsets={n: {"rows": int(w.sum()), **errors_of(error[w])} for n, w in chosen.items() if w.any()},
        worst=tuple(
            Worst(kept[i].line, float(measured[known][i]), float(predicted[known][i]), dict(kept[i].columns))
            for i in order
        ),
    )


def _ranking(head: Head, rows: Sequence[TrainingRow], times: Array, seconds: Array) -> list[GroupReport]:
    """How well plans of one model on one number of devices are put in order."""
    groups: dict[tuple[str, float, int], list[int]] = {}
    for i, row in enumerate(rows):
        if np.isfinite(times[i]) and row.columns["devices"] < 512:
            groups.setdefault((row.model, row.columns["devices"], row.global_batch), []).append(i)
    large = {k: g for k, g in groups.items() if len(g) >= _LEAST_RANKED}
    if not large or sum(map(len, large.values())) < 200:
        return []
    tau, regret = [], []
    for members in large.values():
        measured, predicted = times[members], seconds[members]
        tau.append(kendall(measured, predicted))
        top = np.argsort(predicted, kind="stable")[:_TOP]
        regret.append(float(measured[top].min() / measured.min() - 1.0))
    count = sum(map(len, large.values()))
    scores = {
        "groups": float(len(large)),
        "kendall_tau": float(np.mean(tau)),
        "best_of_top_5_median": float(np.median(regret)),
        "best_of_top_5_worst": float(np.max(regret)),
        "best_within_17_percent": float(np.mean(np.array(regret) <= 0.17)),
    }
    return [GroupReport(*head, "ranking", len(rows), count, {}, scores=scores)]


def kendall(a: Array, b: Array) -> float:
    """Kendall's tau-b of two orders.

    Examples
    --------
    >>> round(kendall(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])), 3)
    0.333
    """
    x, y = np.sign(a[:, None] - a[None, :]), np.sign(b[:, None] - b[None, :])
    norm = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / norm) if norm else 0.0


def _completion(rows: Sequence[tuple[str, TrainingRow, float]]) -> list[GroupReport]:
    """How well predicted memory tells runs that failed from runs that completed, structural failures apart."""
    groups: dict[tuple[str, str], list[tuple[str, TrainingRow, float]]] = {}
    for file, row, memory in rows:
        groups.setdefault((row.setup.framework, row.gpu), []).append((file, row, memory))
    reports = []
    for (framework, gpu), members in groups.items():
        sound = [m for m in members if m[1].columns["pp"] < m[1].setup.architecture.layers]
        failed = np.array([m[1].failed for m in sound])
        if min(failed.sum(), (~failed).sum()) < _LEAST_RANKED:
            continue
        value = np.array([m[2] for m in sound])
        files = " + ".join(dict.fromkeys(m[0] for m in members))
        head = (files, "training", members[0][1].origin, framework, gpu, members[0][1].precision)
        aside = len(members) - len(sound)
        skipped = {"as many stages as layers or more": aside} if aside else {}
        scores: dict[str, Any] = {"roc_auc": roc_auc(value, failed), "failed": float(failed.sum())}
        reports.append(GroupReport(*head, "completed", len(members), len(sound), skipped, scores=scores))
    return reports


def roc_auc(value: Array, positive: NDArray[np.bool_]) -> float:
    """Probability that a positive case has the larger value, ties counting half.

    Examples
    --------
    >>> roc_auc(np.array([1.0, 2.0, 3.0]), np.array([False, True, True]))
    1.0
    """
    high, low = value[positive], np.sort(value[~positive])
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.sum() / (2.0 * len(high) * len(low)))
