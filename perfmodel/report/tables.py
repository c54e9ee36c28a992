"""The tables of an answer as rows of text; the screen and the reports lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from perfmodel.report.words import GIB, View, apportion, columns_text, percent, resource_text
from perfmodel.solver.result import Answer, EvaluatedPlan, ScalingRow, StageLedger, TermRow
from perfmodel.specs.workload import TrainingWorkload
from perfmodel.units import format_number, format_seconds

__all__ = [
    "HIDDEN",
    "TierLedger",
    "TimeRow",
    "fact_counts",
    "front_rows",
    "fullest_ledger",
    "ledger_rows",
    "pass_rows",
    "scaling_rows",
    "time_rows",
]

HIDDEN = 0.001
"""Rows below this share are summed up in one."""


class TimeRow(NamedTuple):
    """Where part of the time goes."""

    name: str
    seconds: float
    share: float
    resource: str


class TierLedger(NamedTuple):
    """What fills one memory of a device; the lines add up to ``total`` as printed."""

    stage: str
    tier: str
    lines: tuple[tuple[str, str], ...]
    total: str
    capacity: str
    share: float


def time_rows(view: View, plan: EvaluatedPlan, most: int | None = None) -> list[TimeRow]:
    """Terms of a step, or of the time per output token: the decode pass and the prefills that interrupt it."""
    if isinstance(view.workload, TrainingWorkload):
        return pass_rows(view, plan.terms, most)
    if plan.pools is not None:
        return _apart(view, plan, most)
    stall = plan.metrics.get("stall_share") or 0.0
    rows = [TimeRow("prefill of other requests", plan.seconds * stall, stall, "compute")] if stall >= HIDDEN else []
    scale = plan.seconds * (1.0 - stall) / plan.timed_seconds if plan.timed_seconds else 1.0
    scaled = [r._replace(seconds=r.seconds * scale, share=r.share * (1.0 - stall)) for r in plan.terms]
    return sorted([*rows, *pass_rows(view, scaled, most)], key=lambda r: (r.name.startswith("smaller"), -r.seconds))


def _apart(view: View, plan: EvaluatedPlan, most: int | None) -> list[TimeRow]:
    """Terms of the time per output token where decode has devices of its own."""
    scale = plan.seconds / plan.timed_seconds if plan.timed_seconds else 1.0
    return pass_rows(view, [r._replace(seconds=r.seconds * scale) for r in plan.terms], most)


def pass_rows(view: View, terms: Sequence[TermRow], most: int | None = None) -> list[TimeRow]:
    """Terms as they are, largest first, the smallest in one row."""
    visible = [t for t in terms if t.share >= HIDDEN]
    shown = visible if most is None or len(visible) <= most else visible[: most - 1]
    rest = [t for t in terms[len(shown) :] if t.seconds > 0]
    rows = [TimeRow(t.name, t.seconds, t.share, resource_text(view, t.resource)) for t in shown]
    if sum(t.share for t in rest) >= HIDDEN / 2:
        rows.append(TimeRow("smaller terms", sum(t.seconds for t in rest), sum(t.share for t in rest), ""))
    return rows


def fullest_ledger(plan: EvaluatedPlan) -> StageLedger | None:
    """Ledger of the fullest stage."""
    return max(plan.ledgers, key=lambda g: g.fullest[1], default=None)


def ledger_rows(ledger: StageLedger) -> list[TierLedger]:
    """One row per memory tier, fullest first."""
    rows = []
    for tier, total in sorted(ledger.totals.items(), key=lambda i: -i[1] / ledger.capacities[i[0]]):
        capacity = ledger.capacities[tier]
        lines = sorted((line for line in ledger.lines if line.tier == tier), key=lambda line: -line.bytes)
        decimals = 1 if capacity >= 10 * GIB else 3
        shown = [line for line in lines if line.bytes / GIB >= 0.5 * 10**-decimals] or lines[:1]
        texts = apportion([line.bytes / GIB for line in shown], decimals)
        summed = sum(float(t.replace(",", "")) for t in texts)
        named = [(line.name, text) for line, text in zip(shown, texts, strict=True)]
        rows.append(
            TierLedger(
                ledger.stage,
                tier,
                tuple((name, text) for name, text in named if text.strip("0.") or len(named) == 1),
                f"{summed:,.{decimals}f}",
                f"{capacity / GIB:,.{decimals}f}",
                total / capacity,
            )
        )
    return rows


def scaling_rows(found: Answer, most: int | None = None) -> tuple[tuple[str, str, str, bool], ...]:
    """(devices, seconds per step, efficiency, chosen); at most so many around the chosen one."""
    rows = list(found.scaling)
    if most is not None and len(rows) > most:
        middle = next((i for i, r in enumerate(rows) if r.chosen), 0)
        start = min(max(middle - (most - 1) // 2, 0), len(rows) - most)
        rows = rows[start : start + most]
    return tuple(_scaling(row) for row in rows)


def _scaling(row: ScalingRow) -> tuple[str, str, str, bool]:
    return f"{row.devices:,}", format_number(row.seconds), percent(row.efficiency), row.chosen


def front_rows(view: View, found: Answer, most: int | None = None) -> tuple[tuple[str, str, str], ...]:
    """(x, y, plan) of the front of speed against efficiency, thinned to so many points."""
    del view
    points = list(found.pareto)
    if most is not None and len(points) > most:
        step = (len(points) - 1) / (most - 1)
        points = [points[round(i * step)] for i in range(most)]
    return tuple((format_number(p.x), format_number(p.y), columns_text(p.plan)) for p in points)


def fact_counts(view: View) -> dict[str, int]:
    """How many facts of the machine are of which kind."""
    from perfmodel.specs.overrides import paths

    counts: dict[str, int] = {}
    for fact in paths(view.system).values():
        counts[fact.kind] = counts.get(fact.kind, 0) + 1
    order = ("datasheet", "measured", "fitted", "assumed")
    return {k: counts[k] for k in order if k in counts}


def seconds_text(row: TimeRow) -> str:
    """Seconds of a row."""
    return format_seconds(row.seconds)
