"""Rooflines of a model's passes as a screen and as data."""

from __future__ import annotations

from typing import Any

from perfmodel.insight.roofline import OperatorRow, Roofline
from perfmodel.report.bounds import labelled, table
from perfmodel.report.jsonable import plain
from perfmodel.report.screen import Line, Page
from perfmodel.report.words import columns_text, device_label, headline, percent, workload_line
from perfmodel.studies import Rooflines
from perfmodel.units import format_bandwidth, format_bytes, format_number, format_rate, format_seconds

__all__ = ["ROOFLINE", "lines", "roofline_data"]

ROOFLINE = "perfmodel.roofline/1"
SMALL = 0.005
"""Rows below this share are summed up in one."""
READ = (
    "m×n×k of products, queries × keys × width of attention; FLOP/B into each memory, kept as full as it can be; "
    "roof: what binds at full rates, and after a stroke in the kernel model where that differs; "
    "bound: no implementation is faster"
)


def lines(found: Rooflines, page: Page) -> list[Line]:
    """One table per pass."""
    plan = columns_text(found.columns)
    title = [headline(found.model), f"{found.system.name} · {plan} · {workload_line(found.workload)}"]
    screen = page.block("", title, "title")
    for one in found.passes:
        screen += [Line("", ""), *_pass(one, page)]
    return [*screen, Line("", ""), *page.block("read", READ, "quiet")]


def _pass(one: Roofline, page: Page) -> list[Line]:
    found = page.block(one.phase.upper(), f"{one.what}; {device_label(one.device)}", "title")
    rates = ", ".join(f"{name} {format_rate(rate, 'FLOP/s', 4)}" for name, rate in one.peaks.items())
    roofs = [
        f"{r.source} {format_bandwidth(r.bandwidth)} into {format_bytes(r.capacity)} of {r.memory}"
        for r in one.roofs
        if r.bandwidth
    ]
    found += page.block("roofs", "; ".join([rates, *roofs]))
    memories = [r.memory.partition("_")[0] for r in one.roofs]
    header = ("operator", "m×n×k", *memories, "roof", "time", "bound", "share")
    shown = [r for r in one.rows if r.share >= SMALL]
    rest = [r for r in one.rows if r.share < SMALL]
    rows = [header, *(_row(r, one) for r in shown)]
    if rest:
        seconds, bound = sum(r.seconds for r in rest), sum(r.bound_seconds for r in rest)
        blank = ("",) * (len(one.roofs) + 2)
        share = percent(sum(r.share for r in rest), 1)
        rows.append((f"{len(rest)} smaller", *blank, format_seconds(seconds), format_seconds(bound), share))
    found += labelled("", table(rows, 2), "wide")
    under = sum(r.seconds for r in one.rows if r.roof == "compute") / one.seconds
    text = (
        f"{format_seconds(one.seconds)} of operators, {format_number(one.seconds / one.bound_seconds)} × their bound; "
        f"{percent(under)} of it under the compute roof, {percent(1 - under)} under a memory's"
    )
    return [*found, *page.block("so", text, "verdict")]


def _row(r: OperatorRow, one: Roofline) -> tuple[str, ...]:
    name = r.operator.replace(", backward", " bwd") + ("" if r.engine == "main" else f" on {r.engine}")
    roof = r.roof if r.roof == r.limited_by else f"{r.roof}/{r.limited_by}"
    intensities = (format_number(r.intensity[f.memory]) if f.memory in r.intensity else "" for f in one.roofs)
    times = (format_seconds(r.seconds), format_seconds(r.bound_seconds), percent(r.share, 1))
    return (name, r.sizes.replace(" ", ""), *intensities, roof, *times)


def roofline_data(found: Rooflines) -> dict[str, Any]:
    """Every row of every pass, as numbers."""
    return {
        "schema": ROOFLINE,
        "model": found.model.name,
        "machine": found.system.name,
        "workload": found.workload.name,
        "columns": plain(found.columns),
        "passes": plain(found.passes),
    }
