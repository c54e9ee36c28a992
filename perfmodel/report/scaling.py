"""A scaling study as a table for the screen, as comma-separated values and as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from perfmodel.insight.scaling import Size
from perfmodel.report.screen import Line, Page
from perfmodel.report.words import degrees_text, headline
from perfmodel.studies import ScaleStudy

__all__ = ["as_csv", "data", "lines"]

METRICS = ("step_seconds", "tokens_per_second", "mfu", "goodput", "expected_days", "expected_cost_usd")
"""What a study says of each size, beside the plan and its efficiency."""
SHOWN = 24
"""Rows of the screen; the others are in ``--csv`` and ``--json``."""


def _row(size: Size) -> dict[str, Any]:
    metrics = {name: size.plan.metrics.get(name) for name in METRICS}
    degrees = degrees_text(size.plan.degrees, levels=False)
    return {"devices": size.devices, "efficiency": size.efficiency, **metrics, "plan": degrees}


def data(found: ScaleStudy) -> dict[str, Any]:
    """The study as JSON: a row for each size that has a plan, and the sizes that have none."""
    study = found.found
    return {
        "model": found.model.name,
        "machine": found.system.name,
        "workload": found.workload.name,
        "sizes": [{**_row(s), "columns": dict(s.plan.columns)} for s in study.sizes],
        "without_plan": list(study.without),
        "plans_judged": study.judged,
        "seconds": study.seconds,
    }


def as_csv(found: ScaleStudy) -> str:
    """One line for each size that has a plan."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["devices", "efficiency", *METRICS, "plan"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(s) for s in found.found.sizes)
    return text.getvalue()


def lines(found: ScaleStudy, page: Page) -> list[Line]:
    """The study for the screen, evenly thinned where it is long."""
    study = found.found
    title = Line("", f"{headline(found.model)} on {found.system.name}, {found.workload.name}", "title")
    if not study.sizes:
        return [title, *page.block("verdict", f"no plan for any of {len(study.without):,} sizes", "bad")]
    every = -(-len(study.sizes) // SHOWN)
    shown = [s for i, s in enumerate(study.sizes) if i % every == 0 or i == len(study.sizes) - 1]
    head = ("devices", "s/step", "efficiency", "MFU", "goodput", "days", "cost", "plan")
    table = _aligned([head, *(_cells(s) for s in shown)])
    last = f"{len(study.sizes):,} sizes with a plan, {len(study.without):,} without; {study.judged:,} plans judged in "
    return [title, *(Line("", text) for text in table), *page.block("search", f"{last}{study.seconds:.1f} s", "quiet")]


def _cells(size: Size) -> tuple[str, ...]:
    m = size.plan.metrics
    days, cost = m.get("expected_days"), m.get("expected_cost_usd")
    return (
        f"{size.devices:,}",
        f"{size.plan.seconds:.3g}",
        f"{size.efficiency:.1%}",
        f"{m['mfu'] or 0.0:.1%}",
        f"{m['goodput'] or 0.0:.1%}",
        "" if days is None else f"{days:,.1f}",
        "" if cost is None else f"${cost:,.0f}",
        degrees_text(size.plan.degrees, levels=False),
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*(f"{c:>{w}}" for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
