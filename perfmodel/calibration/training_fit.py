"""Constants of training frameworks, fitted to published runs: few, bounded, robust, the same for every row.

What a kernel or collective benchmark can tell (rates, bandwidths) stays as the device and cluster files state it; only
what belongs to the software moves, and only the constants that a framework's entry in ``training_sources.yaml`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.reports import errors_of
from perfmodel.calibration.training import Block, Prediction, blocks, framework_of, predict, stated_constants
from perfmodel.calibration.training_rows import TrainingRow, training_rows
from perfmodel.calibration.training_sources import FitEntry, sources
from perfmodel.calibration.training_validate import PARTS
from perfmodel.calibration.training_write import with_constants
from perfmodel.insight.notes import FULL
from perfmodel.specs.framework import constants_stated
from perfmodel.specs.locate import find_framework

__all__ = [
    "BOUNDS",
    "Fitted",
    "FrameworkFit",
    "Range",
    "fit_frameworks",
    "fit_memory",
    "fit_times",
    "held_out_predictions",
]

Array = NDArray[np.float64]


class Range(NamedTuple):
    """Where a constant may lie and where it is expected, in its base unit; ``loose`` is the width of that belief."""

    low: float
    high: float
    expected: float
    loose: float = 0.5


MILLI = 1e-3
BOUNDS: dict[str, Range] = {
    "launch_per_layer": Range(0.0, 3 * MILLI, 0.4 * MILLI),
    "launch_backward": Range(1.0, 2.2, 1.6),
    "launch_tensor": Range(0.0, 1.0, 0.15),
    "elementwise_scale": Range(0.5, 4.5, 1.0),
    "product_scale": Range(0.8, 1.4, 1.0, 0.15),
    "attention_scale": Range(0.6, 4.0, 1.0),
    "attention_backward": Range(0.6, 12.0, 1.4, 0.3),
    "misalignment": Range(0.0, 0.3, 0.14),
    "attention_misalignment": Range(0.0, 1.0, 0.65),
    "expert_scale": Range(0.3, 3.0, 1.0),
    "expert_launch": Range(0.0, 0.1 * MILLI, 0.01 * MILLI),
    "cast_scale": Range(0.0, 8.0, 1.0),
    "expert_exposed": Range(0.0, 1.5, 0.3),
    "tensor_exposed": Range(0.1, 3.5, 1.0, 0.3),
    "gradient_exposed": Range(0.0, 4.0, 0.5),
    "update_exposed": Range(0.0, 1.0, 0.5),
    "overlap_interference": Range(0.0, 1.0, 0.3),
    "gather_exposed": Range(0.0, 1.0, 0.2),
    "pipeline_exposed": Range(0.0, 3.0, 0.3),
    "step_overhead": Range(0.0, 400 * MILLI, 30 * MILLI),
    "hand_over": Range(0.0, 3 * MILLI, 0.3 * MILLI),
    "tensor_latency": Range(0.0, 0.2 * MILLI, 0.01 * MILLI),
    "tensor_latency_far": Range(0.0, 3 * MILLI, 0.3 * MILLI),
    "pipelined_launch": Range(0.0, 6 * MILLI, 2.8 * MILLI),
    "head_spread": Range(0.0, 1.0, 0.5),
    "pipelined_far": Range(0.0, 1.0, 0.1),
    "gradient_pieces": Range(1.0, 12.0, 9.0),
    "whole_exposed": Range(0.1, 2.0, 1.0),
    "collective_share": Range(0.02, 1.05, 0.9),
    "logit_bytes": Range(6.0, 60.0, 14.0),
    "kept_scale": Range(0.5, 2.5, 1.0),
    "states_scale": Range(0.8, 1.5, 1.0),
    "logit_memory": Range(2.0, 30.0, 12.0),
    "runtime_memory": Range(0.1e9, 12e9, 3e9),
    "kept_extra": Range(0.0, 40.0, 12.0),
    "gathered_inputs": Range(0.0, 1.0, 0.3),
}
"""Every constant that a fit may move."""
FOLDS = 4
STEP = 2e-3
"""Step of the differences, in widths of the bounds."""
SCALE = 0.04
"""Relative error at which a residual stops counting fully."""
MEMORY_SCALE = 0.02
"""The same for memory, which does not scatter but comes in kinds: a sweep of two versions has two modes, and the fit is
to find one, not the middle."""


@dataclass(frozen=True)
class Fitted:
    """Constants of one framework and how well they reproduce the rows they were fitted to."""

    values: Mapping[str, float]
    rows: int
    errors: Mapping[str, float]
    at_bound: tuple[str, ...] = ()


Constants = Callable[[Block], Mapping[str, float]]
Loss = Callable[[Mapping[str, float]], Array]


def _fit(names: Sequence[str], start: Mapping[str, float], residuals: Loss) -> tuple[dict[str, float], tuple[str, ...]]:
    """Bounded least squares with a soft-L1 loss and a weak prior at the expected values."""
    from scipy.optimize import least_squares

    ranges = [BOUNDS[n.partition("@")[0]] for n in names]
    low, high = np.array([r.low for r in ranges]), np.array([r.high for r in ranges])
    width = high - low
    begin = [start.get(n, start.get(n.partition("@")[0], r.expected)) for n, r in zip(names, ranges, strict=True)]
    centre = (np.array(begin) - low) / width
    belief = (np.array([r.expected for r in ranges]) - low) / width
    loose = np.array([r.loose for r in ranges])

    def cost(theta: Array) -> Array:
        """Residuals of one point, or of several along the first axis."""
        points = low + theta * width
        data = residuals({n: points[..., i, None] if points.ndim > 1 else points[i] for i, n in enumerate(names)})
        soft = np.sign(data) * np.sqrt(2.0 * (np.sqrt(1.0 + data**2) - 1.0))
        return np.concatenate([soft, (theta - belief) / loose], axis=-1)

    def slopes(theta: Array) -> Array:
        """Forward differences, inwards near the upper bound; all trial points are evaluated together."""
        step = np.where(theta > 0.99, -STEP, STEP)
        found = cost(np.vstack([theta, theta + np.diag(step)]))
        jacobian: Array = ((found[1:] - found[0]) / step[:, None]).T
        return jacobian

    found = least_squares(
        cost, np.clip(centre, 0.02, 0.98), slopes, bounds=(np.zeros(len(names)), np.ones(len(names))),
        ftol=1e-3, xtol=1e-3, max_nfev=25,
    )  # fmt: skip
    values = dict(zip(names, (low + found.x * width).tolist(), strict=True))
    stuck = tuple(n for n, t in zip(names, found.x, strict=True) if t < 0.005 or t > 0.995)
    return values, stuck


def chosen(values: Mapping[str, float], block: Block) -> dict[str, float]:
    """Constants of a block among ``values``.

    ``name@hopper`` or ``name@fp8`` hold for that family or format only, ``name@26.02`` from that release on.
    """
    plain = {name: value for name, value in values.items() if "@" not in name}
    for name, value in values.items():
        constant, _, where = name.partition("@")
        if where in (block.family, *block.formats) or (where[:1].isdigit() and where <= (block.release or "99.99")):
            plain[constant] = value
    return plain


def fit_times(
    rows: Sequence[TrainingRow],
    names: Sequence[str],
    constants: Callable[[Block], Mapping[str, float]],
    start: Mapping[str, float] | None = None,
) -> Fitted:
    """Fit constants to measured step times.

    Parameters
    ----------
    rows : runs of one framework; those without a time are left out.
    names : constants that may move.
    constants : all the others, block by block.
    start : where to begin; by default at what the first block states.
    """
    timed = [r for r in rows if r.step_time]
    prepared = blocks(timed)
    measured = np.log([r.step_time or 1.0 for r in timed])

    def ratio(values: Mapping[str, float]) -> Array:
        return np.log(predict(prepared, lambda b: {**constants(b), **chosen(values, b)}).seconds) - measured

    values, stuck = _fit(names, start or constants(prepared[0]), lambda v: ratio(v) / SCALE)
    return Fitted(values, len(timed), errors_of(np.exp(ratio(values)) - 1.0), stuck)


def fit_memory(
    rows: Sequence[TrainingRow], names: Sequence[str], constants: Callable[[Block], Mapping[str, float]]
) -> Fitted:
    """Fit constants of the memory ledger to measured peak memory."""
    known = [r for r in rows if r.memory]
    prepared = blocks(known)
    measured = np.log([r.memory or 1.0 for r in known])

    def ratio(values: Mapping[str, float]) -> Array:
        return np.log(predict(prepared, lambda b: {**constants(b), **chosen(values, b)}).memory) - measured

    values, stuck = _fit(names, constants(prepared[0]), lambda v: ratio(v) / MEMORY_SCALE)
    return Fitted(values, len(known), errors_of(np.exp(ratio(values)) - 1.0), stuck)


def _with(constants: Constants, values: Mapping[str, float]) -> Constants:
    """Constants of every block with some of them replaced."""
    return lambda block: {**constants(block), **chosen(values, block)}


def folds_of(rows: Sequence[TrainingRow], folds: int = FOLDS) -> NDArray[np.int64]:
    """Fold of every row: rows are dealt by model and layout, so that near-copies of a run stay together."""
    keys = [(r.model, r.sequence, *(r.columns[c] for c in ("devices", "tp", "pp", "cp"))) for r in rows]
    order = {key: i for i, key in enumerate(sorted(set(keys), key=lambda k: crc32(str(k).encode())))}
    return np.array([order[k] % folds for k in keys])


def held_out(
    entry: FitEntry, rows: Sequence[TrainingRow], base: Constants, start: Mapping[str, float] | None = None
) -> Prediction:
    """Predict rows of one framework with constants fitted to the rows of the other folds.

    Where those hold no run that may be fitted, a constant is what it is expected to be before any fit.
    """
    fold = folds_of(rows)
    seconds, memory = np.empty(len(rows)), np.empty(len(rows))
    for k in range(FOLDS):
        own = np.flatnonzero(fold == k).tolist()
        if not own:
            continue
        others = [r for r, f in zip(rows, fold, strict=True) if f != k and r.fit]
        made = predict(blocks([rows[i] for i in own]), _with(base, fitted_values(entry, others, base, start)))
        seconds[own], memory[own] = made.seconds, made.memory
    return Prediction(seconds, memory)


def fitted_values(
    entry: FitEntry, rows: Sequence[TrainingRow], base: Constants, start: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Constants of step times and of memory, fitted to ``rows``."""
    timed = [r for r in rows if r.step_time and not (entry.sweep and _set_aside(r))]
    weighed = [r for r in rows if r.memory]
    values = {n: BOUNDS[n.partition("@")[0]].expected for n in (*entry.times, *entry.memory)}
    if timed and entry.times:
        values |= fit_times(timed, entry.times, base, start).values
    if weighed and entry.memory:
        values |= fit_memory(weighed, entry.memory, base).values
    return values


def held_out_predictions(rows: Sequence[TrainingRow]) -> Prediction:
    """Predict rows of any frameworks with constants that have not seen them; fits each framework once per fold."""
    found = predict(blocks(rows))
    for entry in sources().fits:
        own = [i for i, r in enumerate(rows) if r.setup.framework == entry.framework]
        if not own or not entry.times:
            continue
        made = held_out(entry, [rows[i] for i in own], _with(stated_constants, _taken_over(entry)))
        found.seconds[own], found.memory[own] = made.seconds, made.memory
    return found


class FrameworkFit(NamedTuple):
    """Outcome of fitting one framework: constants, errors in sample and on rows the constants had not seen.

    ``parts`` holds the latter group by group: parts of a sweep, else devices and formats. ``held_out`` is empty where
    the runs are too much alike to be held out.
    """

    framework: str
    times: Fitted
    memory: Fitted | None
    held_out: Mapping[str, float]
    parts: Mapping[str, Mapping[str, float]] = {}


def fit_frameworks(paths: Sequence[Path], folder: Path, only: Sequence[str] = ()) -> list[FrameworkFit]:
    """Fit the frameworks of ``training_sources.yaml`` to training tables and write their files.

    Parameters
    ----------
    paths : tables of training runs.
    folder : where the framework files are written, under their names.
    only : frameworks to fit; all of them by default.
    """
    rows = [row for path in paths for row in training_rows(path)[0]]
    found = []
    for entry in sources().fits:
        if only and entry.framework not in only:
            continue
        own = [r for r in rows if r.setup.framework == entry.framework and r.fit]
        if not entry.times and entry.like:
            _carry_over(entry, folder)
        elif own:
            found.append(_fit_framework(entry, own, folder))
    return found


def _carry_over(entry: FitEntry, folder: Path) -> None:
    """Write a framework none of whose runs may be fitted, with the fitted constants of another one."""
    text = find_framework(entry.framework).read_text(encoding="utf-8")
    source = f"carried over from {entry.like}; none of its own runs was fitted"
    text = with_constants(text, _taken_over(entry, folder), source=source, spread=CARRIED, kind="assumed")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{entry.framework}.yaml").write_text(text, encoding="utf-8")


CARRIED = 0.2
"""Relative half-width of constants carried over: errors of whole steps of two stacks that took no part in a fit."""


def _set_aside(row: TrainingRow) -> bool:
    """Runs whose time says little of the software: memory all but full, or a mode the table does not record."""
    c = row.columns
    replicas = c["devices"] / (c["tp"] * c["pp"] * c["cp"])
    unsharded = c["pp"] > 1 and c["optimizer_group"] == 1 and replicas > 1 and c["devices"] > 8
    swept = row.memory is not None and row.step_time is not None
    return swept and ((row.memory or 0.0) > FULL * 80e9 or (c["devices"] >= 512 and c["pp"] > 1) or unsharded)


def _taken_over(entry: FitEntry, folder: Path | None = None) -> dict[str, float]:
    """Constants that another framework's fit moved, as its file states them: the one just written, if there is one."""
    other = next((e for e in sources().fits if e.framework == entry.like), None)
    if other is None:
        return {}
    fresh = None if folder is None else folder / f"{other.framework}.yaml"
    stated = framework_of(str(fresh) if fresh and fresh.is_file() else other.framework)
    plain = {n: v for n, v in stated.constants.items() if n in other.times}
    for variant in stated.variants:
        where = variant.family or variant.format or variant.release
        plain |= {f"{n}@{where}": v for n, v in constants_stated(variant.facts).items()}
    return plain


def _fit_framework(entry: FitEntry, rows: list[TrainingRow], folder: Path) -> FrameworkFit:
    path = find_framework(entry.framework)
    taken = _taken_over(entry, folder)
    base = _with(stated_constants, taken)
    memory = fit_memory(rows, entry.memory, base) if entry.memory and any(r.memory for r in rows) else None
    rows = [r for r in rows if not (entry.sweep and _set_aside(r))]
    times = fit_times(rows, entry.times, base)
    measured = np.array([r.step_time or np.nan for r in rows])
    unseen = held_out(entry.model_copy(update={"memory": ()}), rows, base, times.values).seconds / measured - 1.0
    parts = _parts(entry, rows, unseen)
    unseen = unseen[np.isfinite(unseen)]
    held = errors_of(unseen) if len(unseen) else {}
    source = (
        f"bounded robust fit to {times.rows} published runs: median error {times.errors['median_abs_error']:.1%}, 90th "
        f"percentile {times.errors['p90_abs_error']:.1%}"
    )
    if len(unseen):
        source += f"; on runs not seen {held['median_abs_error']:.1%} and {held['p90_abs_error']:.1%}"
    if memory is not None:
        middle, tail = memory.errors["median_abs_error"], memory.errors["p90_abs_error"]
        source += f"; memory of {memory.rows} runs: {middle:.1%} and {tail:.1%}"
    values = {**taken, **times.values, **(memory.values if memory else {})}
    text = path.read_text(encoding="utf-8")
    text = with_constants(text, values, source=source, spread=max(0.05, (held or times.errors)["p90_abs_error"]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{entry.framework}.yaml").write_text(text, encoding="utf-8")
    return FrameworkFit(entry.framework, times, memory, held, parts)


def _parts(entry: FitEntry, rows: Sequence[TrainingRow], error: Array) -> dict[str, Mapping[str, float]]:
    """Errors group by group: parts of a sweep, else devices and formats."""
    groups: dict[str, list[int]] = {}
    for i in np.flatnonzero(np.isfinite(error)).tolist():
        own = f"{rows[i].gpu} {rows[i].precision}".strip()
        for name in [n for n, test in PARTS.items() if test(rows[i])] if entry.sweep else [own]:
            groups.setdefault(name, []).append(i)
    return {name: {"rows": float(len(i)), **errors_of(error[i])} for name, i in groups.items()}
