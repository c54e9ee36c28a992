"""Constants of serving frameworks, fitted to published closed-loop runs: few, bounded, robust, the same for every row.

Kernels and collectives stay as their own calibrations state them; what moves is what serving adds: launches, host time
per pass, per sequence and per request, what a first token waits for, and how often the queue is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.reports import errors_of
from perfmodel.calibration.serving import Block, blocks, predict, stated_constants
from perfmodel.calibration.serving_aside import cold, set_aside, speculating
from perfmodel.calibration.serving_rows import ServingRow, serving_rows
from perfmodel.calibration.serving_sources import sources
from perfmodel.calibration.serving_tables import reader_of
from perfmodel.calibration.training_write import with_constants
from perfmodel.specs.locate import find_framework

__all__ = [
    "BOUNDS",
    "ServingFit",
    "chosen",
    "fit_constants",
    "fit_serving",
    "held_out_errors",
    "rows_to_fit",
    "told_apart",
]

Array = NDArray[np.float64]
FITTED = ("tpot", "ttft", "throughput")


class Range(NamedTuple):
    """Where a constant may lie, where it is expected, in its base unit, and the width of that belief [1]."""

    low: float
    high: float
    expected: float
    loose: float = 0.4


BOUNDS: dict[str, Range] = {
    "host_per_iteration": Range(0.0, 3e-3, 0.4e-3),
    "launch_per_operation": Range(0.0, 120e-6, 60e-6),
    "prompt_launches": Range(1.0, 4.0, 1.5),
    "elementwise_scale": Range(1.0, 8.0, 2.0),
    "host_per_sequence": Range(0.0, 400e-6, 12e-6),
    "request_overhead": Range(0.0, 20e-3, 4e-3),
    "expert_passes": Range(0.0, 20.0, 4.0, 0.05),
    "host_per_piece": Range(0.0, 200e-6, 40e-6),
    "first_token": Range(0.0, 0.6, 50e-3),
    "first_token_experts": Range(
        0.0, 6e-3, 1e-3, 0.04
    ),  # few models tell; a wide belief does worse on devices left out
    "polling": Range(1.0, 40.0, 1.0),
}
"""Every constant that a fit may move."""
SCALES = {"tpot": 0.08, "ttft": 0.35, "throughput": 0.12}
"""Relative error at which a residual stops counting fully; prompts timed by themselves are as sure as tokens."""


STEP = 2e-3
"""Step by which slopes are taken, as a share of a constant's range [1]."""
LINES = 12
"""Times that lines are drawn anew, at most."""
CLOSE = 1e-3
"""Change of every constant at which a fit rests, as a share of its range [1]."""


class Fitted(NamedTuple):
    """Constants, the rows they were fitted to, and those at a bound."""

    values: dict[str, float]
    rows: int
    at_bound: tuple[str, ...]


class ServingFit(NamedTuple):
    """Outcome of fitting one framework: constants, errors in sample and on models the constants had not seen."""

    framework: str
    fitted: Fitted
    seen: Mapping[str, Mapping[str, float]]
    held_out: Mapping[str, Mapping[str, float]]


def chosen(values: Mapping[str, Any], block: Block) -> dict[str, Any]:
    """Constants of a block among ``values``; ``name@ampere`` holds for that family only."""
    plain = {name: value for name, value in values.items() if "@" not in name}
    return plain | {n.partition("@")[0]: v for n, v in values.items() if n.partition("@")[2] == block.family}


def told_apart(rows: Sequence[ServingRow]) -> list[ServingRow]:
    """Each measurement once: dumps list the same run under several dates."""
    found: dict[tuple[object, ...], ServingRow] = {}
    for row in rows:
        key = (row.setup, row.prompt, row.output, *row.columns.values(), *row.measured.values())
        found.setdefault(key, row)
    return list(found.values())


def rows_to_fit(rows: Sequence[ServingRow]) -> list[ServingRow]:
    """Rows of one framework that a fit may look at: measured once, and of the batch and the passes that they say."""
    return _told(told_apart([row for row in rows if row.mode not in ("pools", "best")]))


def _tells(row: ServingRow, metric: str) -> bool:
    """Whether a fit looks at a metric of a row: of closed loops the two times, which imply the rate."""
    return metric in row.measured and (metric != "throughput" or "tpot" not in row.measured)


def _scale(row: ServingRow, metric: str) -> float:
    """Relative error of a metric at which its residual stops counting fully [1]."""
    return SCALES["tpot"] if row.mode == "static" and metric == "ttft" else SCALES[metric]


def _weights(rows: Sequence[ServingRow]) -> Array:
    """Weight of every row: cohorts count with the fourth root of their size taken off."""
    counts: dict[tuple[str, ...], int] = {}
    for row in rows:
        counts[row.cohort] = counts.get(row.cohort, 0) + 1
    return np.array([counts[row.cohort] ** -0.25 for row in rows])


def _told(rows: Sequence[ServingRow]) -> list[ServingRow]:
    """Rows that tell of the batch and the passes they say: neither queued nor speculating."""
    if not rows:
        return []
    made = predict(blocks(rows))
    aside = set_aside(rows, "tpot", speculating(rows, made.tpot))
    late = set(cold(rows, made.tpot, made.ttft))
    known = [_without(row, "ttft") if i in late else row for i, row in enumerate(rows)]
    return [row for i, row in enumerate(known) if i not in aside and any(_tells(row, m) for m in FITTED)]


def _without(row: ServingRow, metric: str) -> ServingRow:
    """The row as if it did not state a metric."""
    return replace(row, measured={name: value for name, value in row.measured.items() if name != metric})


@dataclass(frozen=True)
class _Problem:
    """Log errors of the measured numbers of some rows, and how they change with the constants on a scale from 0 to 1.

    Parameters
    ----------
    rows : runs of one framework.
    names : constants that may move.
    """

    rows: Sequence[ServingRow]
    names: Sequence[str]

    @cached_property
    def ranges(self) -> list[Range]:
        """Where every constant may lie."""
        return [BOUNDS[n.partition("@")[0]] for n in self.names]

    @cached_property
    def belief(self) -> Array:
        """Expected constants on that scale."""
        return np.array([(r.expected - r.low) / (r.high - r.low) for r in self.ranges])

    @cached_property
    def _known(self) -> dict[str, NDArray[np.int64]]:
        return {m: np.array([i for i, r in enumerate(self.rows) if _tells(r, m)], dtype=np.int64) for m in FITTED}

    @cached_property
    def _logs(self) -> Array:
        return np.log([self.rows[i].measured[m] for m in FITTED for i in self._known[m]])

    @cached_property
    def _scales(self) -> Array:
        return np.array([_scale(self.rows[i], m) for m in FITTED for i in self._known[m]])

    @cached_property
    def _weights(self) -> Array:
        weights = _weights(self.rows)
        return np.concatenate([weights[self._known[m]] for m in FITTED])

    @cached_property
    def _blocks(self) -> list[Block]:
        return blocks(self.rows)

    def values(self, theta: Array) -> dict[str, Any]:
        """Constants at points of the scale, the last axis of ``theta``."""
        return {
            n: r.low + theta[..., i] * (r.high - r.low)
            for i, (n, r) in enumerate(zip(self.names, self.ranges, strict=True))
        }

    def line(self, theta: Array) -> tuple[Array, Array]:
        """Times at a point, and their slopes: what the constants add is nearly linear in them [s]."""
        steps = np.where(theta < 0.5, STEP, -STEP)
        points = np.concatenate([theta[None], theta + np.diag(steps)])
        values = {name: value[:, None] for name, value in self.values(points).items()}
        made = predict(self._blocks, _with(values), len(points))
        times = (made.tpot, made.ttft, 1.0 / made.throughput)
        found = np.concatenate([t[:, self._known[m]] for m, t in zip(FITTED, times, strict=True)], axis=1)
        return found[0], (found[1:] - found[0]) / steps[:, None]

    def residuals(self, times: Array, theta: Array) -> Array:
        """What least squares add up: log errors that count less where they are large, and the prior."""
        rates = len(self._known["throughput"])
        sign = np.concatenate([np.ones(len(times) - rates), -np.ones(rates)])
        data = (sign * np.log(np.maximum(times, 1e-9)) - self._logs) / self._scales
        soft = np.sign(data) * np.sqrt(2.0 * (np.sqrt(1.0 + data**2) - 1.0))
        loose = np.array([r.loose for r in self.ranges])
        return np.concatenate([soft * self._weights, (theta - self.belief) / loose])


def fit_constants(rows: Sequence[ServingRow], names: Sequence[str]) -> Fitted:
    """Bounded least squares on log errors with a soft-L1 loss and a weak prior at the expected values.

    Times are nearly linear in the constants: lines through all rows are fitted, and drawn again where that fit lies.

    Parameters
    ----------
    rows : runs of one framework.
    names : constants that may move; the others stay as the framework's file states them.
    """
    from scipy.optimize import least_squares

    problem, bounds = _Problem(rows, names), (np.zeros(len(names)), np.ones(len(names)))
    best, least, theta = np.empty(0), np.inf, np.clip(problem.belief, 0.02, 0.98)
    for _ in range(LINES):
        times, slopes = problem.line(theta)
        cost = float(np.sum(problem.residuals(times, theta) ** 2))
        if cost >= least:
            if np.abs(theta - best).max() < CLOSE:
                break
            theta = 0.5 * (theta + best)  # bent on the way: half as far
            continue
        best, least = theta, cost

        def straight(point: Array, at: Array = theta, t: Array = times, slope: Array = slopes) -> Array:
            return problem.residuals(t + (point - at) @ slope, point)

        theta = least_squares(straight, np.clip(theta, 1e-6, 1.0 - 1e-6), bounds=bounds).x
        if np.abs(theta - best).max() < CLOSE:
            break
    stuck = tuple(n for n, t in zip(names, best, strict=True) if t < 0.005 or t > 0.995)
    return Fitted({n: float(v) for n, v in problem.values(best).items()}, len(rows), stuck)


def _errors(rows: Sequence[ServingRow], constants: Callable[[Block], Mapping[str, float]]) -> dict[str, Array]:
    made = predict(blocks(rows), constants)
    pairs = {m: [(i, r.measured[m]) for i, r in enumerate(rows) if _tells(r, m)] for m in FITTED}
    return {m: np.array([getattr(made, m)[i] / t - 1.0 for i, t in own]) for m, own in pairs.items()}


def _with(values: Mapping[str, Any]) -> Callable[[Block], Mapping[str, Any]]:
    return lambda block: {**stated_constants(block), **chosen(values, block)}


def held_out_errors(rows: Sequence[ServingRow], names: Sequence[str], folds: int = 4) -> dict[str, Array]:
    """Relative errors of rows predicted with constants fitted without any row of the same model and device."""
    keys = [(row.cohort[2], row.device) for row in rows]
    order = {k: i % folds for i, k in enumerate(sorted(set(keys), key=lambda k: crc32(str(k).encode())))}
    parts: dict[str, list[Array]] = {m: [] for m in FITTED}
    for fold in range(folds):
        own = [r for r, k in zip(rows, keys, strict=True) if order[k] == fold]
        others = [r for r, k in zip(rows, keys, strict=True) if order[k] != fold]
        if own and others:
            found = _errors(own, _with(fit_constants(others, names).values))
            for metric in FITTED:
                parts[metric].append(found[metric])
    return {m: np.concatenate(p) if p else np.empty(0) for m, p in parts.items()}


def fit_serving(paths: Sequence[Path], folder: Path, only: Sequence[str] = ()) -> list[ServingFit]:
    """Fit the frameworks of ``serving_sources.yaml`` to serving tables and write their files.

    Parameters
    ----------
    paths : tables of closed-loop runs.
    folder : where the framework files are written, under their names.
    only : frameworks to fit; all of them by default.
    """
    everything = [row for path in paths for row in serving_rows(path, reader_of(path))[0]]
    rows = everything
    found = []
    for entry in sources().fits:
        own = [r for r in rows if r.setup.framework == entry.framework]
        if own and (not only or entry.framework in only):
            found.append(_fit_framework(entry.framework, entry.names, rows_to_fit(own), folder))
    return found


def _fit_framework(name: str, names: Sequence[str], rows: list[ServingRow], folder: Path) -> ServingFit:
    fitted = fit_constants(rows, names)
    seen = {m: errors_of(e) for m, e in _errors(rows, _with(fitted.values)).items() if len(e)}
    held = {m: errors_of(e) for m, e in held_out_errors(rows, names).items() if len(e)}

    def words(errors: Mapping[str, Mapping[str, float]]) -> str:
        return ", ".join(f"{m} {e['median_abs_error']:.1%} / {e['p90_abs_error']:.1%}" for m, e in errors.items())

    told = f"bounded robust fit to {fitted.rows} published runs, median / 90th percentile: {words(seen)}"
    if held:
        told += f"; on models and devices not seen {words(held)}"
    surest = next((held[m] for m in ("tpot", "throughput", "ttft") if m in held), None)
    spread = max(0.1, surest["p90_abs_error"]) if surest else 0.5
    text = find_framework(name).read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    text = with_constants(text, fitted.values, source=told, spread=spread)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return ServingFit(name, fitted, seen, held)
