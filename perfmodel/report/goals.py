"""Accuracy that kernel predictions are built for, and how many groups of measurements reach it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

__all__ = ["GOALS", "Goal", "Level", "goal_table", "told", "within"]

Report = Mapping[str, Any]
FEWEST = 10
"""Rows of a group, or of a part of it, that say something about a 90th percentile."""


class Level(NamedTuple):
    """Largest errors: median and 90th percentile of their size, size of their mean; ``None`` asks nothing."""

    median: float
    p90: float | None = None
    bias: float | None = None


class Goal(NamedTuple):
    """What the groups of one class of kernels should reach on rows that no fit has seen.

    Parameters
    ----------
    title : name in tables.
    operator : operator class of the groups.
    format : what their number format begins with.
    part : subset of their rows; all of them if empty.
    must, aim : least accuracy, and the accuracy that the model is built for.
    """

    title: str
    operator: str
    must: Level
    aim: Level
    format: str = ""
    part: str = ""


_CACHED = "cache beyond the last-level cache"
GOALS: tuple[Goal, ...] = (
    Goal("matrix products", "gemm", Level(0.08, 0.30, 0.05), Level(0.055, 0.20, 0.02)),
    Goal(
        "matrix products, weights beyond the cache",
        "gemm",
        Level(0.06, 0.18, 0.03),
        Level(0.04, 0.12, 0.015),
        part="weights beyond the cache",
    ),
    Goal("attention, prefill", "attention", Level(0.12, 0.45, 0.08), Level(0.08, 0.30, 0.03)),
    Goal("attention, decode", "decode_attention", Level(0.10, 0.32, 0.05), Level(0.065, 0.22, 0.02)),
    Goal(
        "attention, decode beyond the cache",
        "decode_attention",
        Level(0.08, 0.32, 0.05),
        Level(0.05, 0.18, 0.02),
        part=_CACHED,
    ),
    Goal("latent attention, context", "mla", Level(0.08, 0.28), Level(0.05, 0.17), format="context"),
    Goal("latent attention, generation", "mla", Level(0.10, 0.45), Level(0.06, 0.28), format="generation"),
    Goal("fused experts", "moe", Level(0.15, 0.50, 0.06), Level(0.09, 0.30, 0.03)),
    Goal("norms, elementwise", "elementwise", Level(0.15, 0.70), Level(0.08, 0.40)),
)
"""Goals on rows held out of the fit, one group per source, framework, device and format; set from what fits of few
constants reached on held-out rows, and from the scatter of one shape between twin devices (4 to 6 % in the median)."""


def _parts(goal: Goal, reports: Iterable[Report]) -> Iterator[tuple[Report, Report]]:
    """Groups of a goal with the errors of the part that it looks at."""
    for r in reports:
        if r["operator"] != goal.operator or not r["dtype"].startswith(goal.format):
            continue
        part = r["subsets"].get(goal.part) if goal.part else r
        if part and part.get("predicted", part["rows"]) >= FEWEST and part["median_abs_error"] is not None:
            yield r, part


def within(part: Report, level: Level) -> bool:
    """Whether errors are no larger than a level asks."""
    sizes = (part["median_abs_error"], part["p90_abs_error"], abs(part["mean_error"]))
    return all(limit is None or size <= limit for size, limit in zip(sizes, level, strict=True))


def told(level: Level | Sequence[float | None]) -> str:
    """Errors in words, in percent."""
    return " / ".join("-" if x is None else f"{100.0 * x:.3g}" for x in level) + " %"


def goal_table(reports: Sequence[Report]) -> list[str]:
    """Markdown table of goals: median / 90th percentile / mean error of the median group, and groups within."""
    rows = []
    for goal in GOALS:
        found = list(_parts(goal, reports))
        if not found:
            continue
        sizes = zip(*((p["median_abs_error"], p["p90_abs_error"], abs(p["mean_error"])) for _, p in found), strict=True)
        middle = [float(f"{median(size):.3g}") for size in sizes]
        must, aim = (sum(within(p, level) for _, p in found) for level in (goal.must, goal.aim))
        count = sum(r["predicted"] for r, _ in found)
        inside = sum(r["inside"] * r["predicted"] for r, _ in found) / count
        cells = (goal.title, told(goal.must), told(goal.aim), told(middle), f"{must}/{len(found)}")
        rows.append("| " + " | ".join((*cells, f"{aim}/{len(found)}", f"{inside:.0%}")) + " |")
    if not rows:
        return []
    head = ("class", "least", "aim", "median group", "groups within least", "within aim", "inside 80 % interval")
    words = f"Median / 90th percentile / size of the mean error; groups and parts of {FEWEST} rows or more."
    return [words, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows]
