"""Tables of how well kernels, collectives and training runs are predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from perfmodel.report.goals import goal_table
from perfmodel.report.serving_goals import serving_goal_table
from perfmodel.specs.calibration import CalibrationGroup

__all__ = ["fit_lines", "lines", "render"]


Report = Mapping[str, Any]
"""One group as ``perfmodel.calibration.validate.GroupReport.data`` gives it."""

_HEAD = (
    "operator",
    "metric",
    "device",
    "format",
    "framework",
    "source",
    "rows",
    "median",
    "90 %",
    "bias",
    "inside",
    "constants",
)


def _percent(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{100.0 * value:+.1f} %" if signed else f"{100.0 * value:.1f} %"


def _row(r: Report) -> tuple[str, ...]:
    return (
        r["operator"],
        r["metric"].replace("_", " "),
        r["device"],
        r["dtype"],
        r["framework"],
        r["source"],
        f"{r['predicted']}/{r['rows']}",
        _percent(r["median_abs_error"]),
        _percent(r["p90_abs_error"]),
        _percent(r["mean_error"], signed=True),
        "-" if r["inside"] is None else f"{r['inside']:.0%}",
        r["tier"],
    )


def lines(reports: Sequence[Report], worst: int = 0) -> list[str]:
    """Aligned table for a screen, parts, the ``worst`` rows of every group and the skipped rows below it."""
    table = [_HEAD, *(_row(r) for r in reports if r["operator"])]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEAD))]
    result = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
    return [*result, *_parts(reports), *_worst(reports, worst), *_bounds(reports), *_skips(reports)]


_UNITS = {"memory": (2.0**-30, "GiB"), "throughput": (1.0, "tokens/s")}
"""Factor and unit in which a metric is shown; times in microseconds."""


def _worst(reports: Iterable[Report], count: int) -> list[str]:
    """Rows with the largest errors, group by group."""
    result = []
    for r in reports:
        rows = r["worst"][:count]
        if rows:
            head = (r["operator"], r["device"], r["dtype"], r["framework"], r["source"])
            result.append(f"largest errors of {', '.join(name for name in head if name)}:")
        for w in rows:
            sizes = ", ".join(f"{name} {value:g}" for name, value in w["sizes"].items())
            scale, unit = _UNITS.get(r["metric"], (1e6, "us"))
            times = f"measured {scale * w['measured']:,.4g} {unit}, predicted {scale * w['predicted']:,.4g} {unit}"
            error = _percent(w["predicted"] / w["measured"] - 1.0, signed=True)
            result.append(f"  line {w['line']}: {times} ({error}): {sizes}")
    return result


def _parts(reports: Iterable[Report]) -> list[str]:
    """Parts of the rows that are reported on their own, and figures that are no errors."""
    result = []
    for r in reports:
        head = (
            [r["framework"], r["metric"]] if r["operator"] == "training" else [r["device"], r["dtype"], r["framework"]]
        )
        head += [r["metric"]] if r["operator"] == "serving" else []
        for name, part in r["subsets"].items():
            errors = f"median {_percent(part['median_abs_error'])}, 90 % {_percent(part['p90_abs_error'])}"
            errors += f", bias {_percent(part['mean_error'], signed=True)}"
            result.append(f"{' '.join(head)}, {name}: {part['rows']:.0f} rows, {errors}")
        if r["scores"]:
            figures = ", ".join(f"{n.replace('_', ' ')} {v:.3g}" for n, v in r["scores"].items())
            result.append(f"{r['framework']} {r['metric']}: {figures}")
    return result


def _bounds(reports: Iterable[Report]) -> list[str]:
    """Rows better than the physical lower bound of their plan: of predictions none may be; of measurements, where."""
    known = [r for r in reports if r.get("below_bound") is not None]
    if not known:
        return []
    rows = sum(next(iter(r["subsets"].values()))["rows"] for r in known)
    text = [f"predictions below the lower bound of their plan: {sum(r['below_bound'] for r in known)} of {rows:.0f}"]
    for r in known:
        if r["measured_below_bound"]:
            head = " ".join((r["device"], r["dtype"], r["framework"], r["metric"]))
            text.append(
                f"measured below the lower bound of the plan as recorded: {head}: {r['measured_below_bound']} rows"
            )
    return text


def _skips(reports: Iterable[Report]) -> list[str]:
    """Rows without a prediction by reason; rows of several metrics count once."""
    most: dict[tuple[str, ...], int] = {}
    for r in reports:
        head = (r["source"], r["framework"], r["device"], r["dtype"])
        for reason, count in r["skipped"].items():
            key = (r["file"], reason, *head)
            most[key] = max(most.get(key, 0), count)
    counts: Counter[tuple[str, str]] = Counter()
    for (file, reason, *_), count in most.items():
        counts[file, reason] += count
    return [f"not predicted: {count} rows of {file}: {reason}" for (file, reason), count in counts.items()]


def fit_lines(groups: Iterable[CalibrationGroup]) -> list[str]:
    """One line per fitted group."""
    result = []
    for g in groups:
        loose = f"; left to the prior: {', '.join(g.undetermined)}" if g.undetermined else ""
        result.append(
            f"{g.operator} {g.format} {g.variant}: {g.rows} rows, median error {_percent(g.median_error)}, "
            f"90th percentile {_percent(g.p90_error)}, mean {_percent(g.mean_error, signed=True)}{loose}"
        )
    return result


def framework_lines(fits: Iterable[Any]) -> list[str]:
    """One line per fitted training framework."""
    result = []
    for f in fits:
        seen, unseen = f.times.errors, f.held_out
        bound = f"; at a bound: {', '.join(f.times.at_bound)}" if f.times.at_bound else ""
        text = f"{_percent(seen['median_abs_error'])}, 90th percentile {_percent(seen['p90_abs_error'])}"
        if unseen:
            text += f"; on runs not seen {_percent(unseen['median_abs_error'])} and {_percent(unseen['p90_abs_error'])}"
        result.append(f"{f.framework}: {f.times.rows} runs, median error {text}{bound}")
        for name, part in f.parts.items():
            errors = f"{_percent(part['median_abs_error'])} and {_percent(part['p90_abs_error'])}"
            result.append(f"  not seen, {name}: {part['rows']:.0f} runs, {errors}")
    return result


def serving_lines(fits: Iterable[Any]) -> list[str]:
    """One line per fitted serving framework: errors in sample, and on models and devices not seen."""
    result = []
    for f in fits:
        bound = f"; at a bound: {', '.join(f.fitted.at_bound)}" if f.fitted.at_bound else ""
        for name, errors in (("seen", f.seen), ("not seen", f.held_out)):
            told = ", ".join(
                f"{m} {_percent(e['median_abs_error'])} / {_percent(e['p90_abs_error'])}" for m, e in errors.items()
            )
            result.append(f"{f.framework}, {name}: {f.fitted.rows} runs, median / 90th percentile {told}{bound}")
    return result


def render(reports: Sequence[Report], command: str) -> str:
    """Markdown report: which command made it, the distribution over groups by operator, then every group."""
    text = [
        "# How well measurements are predicted",
        "",
        f"Made by `{command}`.",
        "",
        *_summary(reports),
        "",
        *goal_table(reports),
        "",
        *serving_goal_table(reports),
        "",
    ]
    text += ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    text += ["| " + " | ".join(_row(r)) + " |" for r in reports if r["operator"]]
    parts = _parts(r for r in reports if r["operator"] in ("training", "serving"))
    if parts:
        text += [
            "",
            "## Parts of runs of training and serving, with and without rows set aside; rankings and completion",
            "",
            *(f"- {p}" for p in parts),
        ]
    bounds = _bounds(reports)
    if bounds:
        text += [
            "",
            "## Lower bounds: peak rates, and least traffic at full bandwidth",
            "",
            *(f"- {b}" for b in bounds),
        ]
    skipped = _skips(reports)
    if skipped:
        text += ["", "## Rows without a prediction", "", *(f"- {line}" for line in skipped)]
    return "\n".join(text) + "\n"


def _summary(reports: Sequence[Report]) -> list[str]:
    """Distribution over groups of ten rows or more."""
    operators = list(dict.fromkeys(r["operator"] for r in reports if r["operator"] and r["predicted"]))
    result = [
        "Error = predicted / measured - 1 of the time; groups of ten rows or more.",
        "",
        "| operator | groups | rows | median error: median group | worst quarter | 90th percentile: median group | "
        "worst quarter | mean error: median group |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for operator in operators:
        own = [r for r in reports if r["operator"] == operator and r["predicted"] >= 10]
        if not own:
            continue
        middle = sorted(r["median_abs_error"] or 0.0 for r in own)
        tail = sorted(r["p90_abs_error"] or 0.0 for r in own)
        bias = sorted(abs(r["mean_error"] or 0.0) for r in own)
        cells = (median(middle), _upper(middle), median(tail), _upper(tail), median(bias))
        rows = sum(r["predicted"] for r in own)
        result.append(f"| {operator} | {len(own)} | {rows} | " + " | ".join(map(_percent, cells)) + " |")
    return result


def _upper(ordered: Sequence[float]) -> float:
    """Return the value at the border of the largest quarter."""
    return ordered[min(len(ordered) - 1, (3 * len(ordered)) // 4)]
