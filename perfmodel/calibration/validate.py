"""Predictions against measurements, group by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perfmodel.calibration.fit import Pool, fit_groups, pools_of, predicted, shape_hash
from perfmodel.calibration.model import Array, Group, OperatorModel
from perfmodel.calibration.operators import model_named
from perfmodel.calibration.reports import GroupReport, Worst, errors_of
from perfmodel.calibration.rows import Table, files_of, header_of, read_tables
from perfmodel.calibration.serving_validate import is_serving, serving_reports
from perfmodel.calibration.store import Chosen, Fitted, Store, regime, shipped, store_of
from perfmodel.calibration.training_fit import held_out_predictions
from perfmodel.calibration.training_validate import is_training, stated, training_reports
from perfmodel.errors import PerfmodelError, SpecError

__all__ = ["GroupReport", "Predicted", "Worst", "predict_group", "validate"]

HELD_OUT_FOLDS, INNER_FOLDS = 4, 3
KNOWN_TABLES = "docs/measure.md has those of kernels and collectives, docs/serving.md those of serving runs"


class Predicted(NamedTuple):
    """Prediction of a group: seconds, 80 % interval, and the tier of its constants."""

    seconds: Array
    low: Array
    high: Array
    tier: str


def predict_group(group: Group, store: Store) -> Predicted:
    """Predict the rows of a group with the best constants of ``store``."""
    model = model_named(group.key.operator)
    chosen = store.choose(model, group.key)
    seconds = predicted(model, group, chosen.values)
    low, high = _interval(seconds, chosen)
    return Predicted(seconds, low, high, chosen.tier)


def _interval(seconds: Array, chosen: Chosen) -> tuple[Array, Array]:
    ends = np.array([chosen.interval.get(regime(t), (-0.6, 0.6)) for t in seconds]).reshape(-1, 2)
    return seconds * np.exp(ends[:, 0]), seconds * np.exp(ends[:, 1])


def validate(
    paths: Iterable[str | Path],
    *,
    device: str | Path | None = None,
    store: Store | None = None,
    held_out: str | None = None,
    worst: int = 3,
) -> list[GroupReport]:
    """Predict every row of the measurement files and report the errors.

    Parameters
    ----------
    paths : CSV files or folders of them.
    device : a device file that :func:`perfmodel.calibration.shipping.calibrate` wrote, for the rows of that device.
    store : constants to use; by default those of ``device`` and the shipped ones.
    held_out : what the constants may not have seen: ``rows`` (fits anew to three quarters of the shapes at a time) or
        ``device`` (fits anew to the other devices).
    worst : rows of every group to name, those with the largest errors.
    """
    files = files_of(paths)
    runs = [path for path in files if is_training(header_of(path))]
    served = [path for path in files if is_serving(header_of(path))]
    tables = read_tables([path for path in files if path not in (*runs, *served)], own=device)
    found = store or (shipped() if device is None else store_of(device))
    measured = [g for table in tables for g in table.groups if _possible(g)]
    if held_out == "rows":
        predict = _refitted(measured)
    elif held_out == "device":
        predict = _carried_over(measured)
    elif held_out is None:
        predict = lambda group: predict_group(group, found)  # noqa: E731
    else:
        raise SpecError("not something to hold out", field="held_out", found=held_out, allowed="rows, device")
    kernels = [report for table in tables for report in _reports(table, predict, worst)]
    return (
        kernels
        + training_reports(runs, held_out_predictions if held_out == "rows" else stated)
        + serving_reports(served, held_out)
    )


def _possible(group: Group) -> bool:
    """Whether the device can run these rows at all; others are no part of a fit."""
    try:
        predict_group(group.take(np.arange(len(group)) == 0), Store(()))
    except PerfmodelError:
        return False
    return True


def _carried_over(groups: list[Group]) -> Callable[[Group], Predicted]:
    """Predict every row with constants fitted to the other devices; pools without the device are fitted once."""
    pools = pools_of(groups)

    @cache
    def fitted(pool: Pool, left_out: str) -> list[Fitted]:
        return fit_groups([g for g in pools[pool] if g.key.device != left_out])

    @cache
    def others(device: str) -> Store:
        measured = {pool for pool, members in pools.items() if any(g.key.device == device for g in members)}
        return Store(tuple(f for pool in pools for f in fitted(pool, device if pool in measured else "")))

    return lambda group: predict_group(group, others(group.key.device))


def _refitted(groups: list[Group]) -> Callable[[Group], Predicted]:
    """Predict every row with constants fitted to the shapes of the other folds, the same folds on all devices."""
    folds = [shape_hash(g) % HELD_OUT_FOLDS for g in groups]
    stores = []
    for fold in range(HELD_OUT_FOLDS):
        kept = [g.take(f != fold) for g, f in zip(groups, folds, strict=True)]
        stores.append(Store(tuple(fit_groups([g for g in kept if len(g)], folds=INNER_FOLDS))))

    def predict(group: Group) -> Predicted:
        own, order, parts = shape_hash(group) % HELD_OUT_FOLDS, [], []
        for fold, store in enumerate(stores):
            if np.any(own == fold):
                order.append(np.flatnonzero(own == fold))
                parts.append(predict_group(group.take(own == fold), store))
        back = np.argsort(np.concatenate(order))
        seconds, low, high = (np.concatenate([p[i] for p in parts])[back] for i in range(3))
        return Predicted(seconds, low, high, "+".join(sorted({p.tier for p in parts})))

    return predict


def _reports(table: Table, predict: Callable[[Group], Predicted], worst: int) -> list[GroupReport]:
    if table.model is None:
        reason = {f"no reader for its columns; {KNOWN_TABLES}": table.rows}
        return [GroupReport(table.file, "", "", "", "", "", "time", table.rows, 0, reason)]
    merged: dict[tuple[str, str, str, str], list[Group]] = {}
    for group in table.groups:
        merged.setdefault((group.source, group.framework, group.label, group.dtype), []).append(group)
    keys = [*merged, *(k for k in table.skipped if k not in merged)]
    return [_report(table, table.model, key, merged.get(key, []), predict, worst) for key in keys]


def _report(
    table: Table,
    model: OperatorModel,
    key: tuple[str, str, str, str],
    groups: list[Group],
    predict: Callable[[Group], Predicted],
    worst: int,
) -> GroupReport:
    skipped = Counter(table.skipped.get(key, Counter()))
    source, framework, label, dtype = key
    rows = sum(map(len, groups)) + sum(skipped.values())
    head = (table.file, model.name, source, framework, label, dtype, "time", rows)
    done: list[tuple[Group, Predicted]] = []
    for group in groups:
        try:
            done.append((group, predict(group)))
        except PerfmodelError as reason:  # no unit for the format, say
            skipped[str(reason)] += len(group)
    if not done:
        return GroupReport(*head, 0, dict(skipped))
    groups, parts = [g for g, _ in done], [p for _, p in done]
    seconds = np.concatenate([p.seconds for p in parts])
    measured = np.concatenate([g.seconds for g in groups])
    low, high = np.concatenate([p.low for p in parts]), np.concatenate([p.high for p in parts])
    error = seconds / measured - 1.0
    columns = {name: np.concatenate([g.columns[name] for g in groups]) for name in groups[0].columns}
    chosen = {name: pick(columns) for name, pick in model.subsets.items()}
    errors = errors_of(error)
    return GroupReport(
        *head,
        len(measured),
        dict(skipped),
        median_abs_error=errors["median_abs_error"],
        p90_abs_error=errors["p90_abs_error"],
        mean_error=errors["mean_error"],
        tier="+".join(sorted({p.tier for p in parts})),
        inside=float(np.mean((measured >= low) & (measured <= high))),
        subsets={n: {"rows": int(w.sum()), **errors_of(error[w])} for n, w in chosen.items() if w.any()},
        worst=_worst(groups, columns, measured, seconds, error, worst),
    )


def _worst(
    groups: list[Group], columns: Mapping[str, Array], measured: Array, seconds: Array, error: Array, count: int
) -> tuple[Worst, ...]:
    lines = [line for g in groups for line in g.lines]
    order = np.argsort(-np.abs(np.log1p(error)))[:count]
    return tuple(
        Worst(lines[i], float(measured[i]), float(seconds[i]), {n: float(v[i]) for n, v in columns.items()})
        for i in order
    )
