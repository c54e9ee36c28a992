"""Replicas of a service over the time of a trace, as lines and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from perfmodel.insight.traffic import Sizing, Step
from perfmodel.report.words import View, dollars, percent, plural
from perfmodel.units import format_number, format_seconds

__all__ = ["clock", "over_time", "sizing_sentences", "time_rows"]

MOST_ROWS = 24
BAR = 20


def sizing_sentences(view: View, found: Sizing) -> list[str]:
    """The trace, how many devices carry it, and what following the load saves."""
    skipped = f"; {plural(found.skipped, 'request')} without prompt or output left out" if found.skipped else ""
    if found.too_long:
        skipped += f"; {plural(found.too_long, 'request')} longer than the model's context left out"
    trace = (
        f"{found.requests:,} requests of {found.prompt:,.0f} + {found.output:,.0f} tokens on average "
        f"(variation {found.variation:.2f}) over {format_seconds(sum(s.seconds for s in found.steps))}{skipped}."
    )
    carry = "carries" if found.peak_devices == 1 else "carry"
    size = (
        f"{plural(found.peak_devices, view.noun)} {carry} every window; following the load takes "
        f"{format_number(found.mean_devices)} on average: {format_number(found.device_hours)} instead of "
        f"{format_number(found.fixed_device_hours)} {view.noun}-hours"
    )
    if found.cost_usd is not None and found.fixed_cost_usd:
        saved = 1.0 - found.cost_usd / found.fixed_cost_usd
        size += f", {dollars(found.cost_usd)} instead of {dollars(found.fixed_cost_usd)}"
        size += f" ({percent(saved)} saved)" if saved >= 0.005 else ""
    return [trace, size + "."]


def time_rows(found: Sizing, most: int | None = None) -> list[Step]:
    """Windows, neighbours joined where there are too many: the one that needs most devices stands for its group."""
    steps = list(found.steps)
    if most is None or len(steps) <= most:
        return steps
    each = -(-len(steps) // most)
    groups = [[s for _, s in g] for _, g in groupby(enumerate(steps), key=lambda pair: pair[0] // each)]
    return [
        max(group, key=lambda s: s.devices)._replace(start=group[0].start, seconds=sum(s.seconds for s in group))
        for group in groups
    ]


def clock(seconds: float) -> str:
    """Hours and minutes from the start of the trace, seconds where minutes would not tell windows apart.

    Examples
    --------
    >>> clock(7260.0), clock(90061.0)
    ('02:01', '25:01:01')
    """
    whole = round(seconds)
    text = f"{whole // 3600:02d}:{whole // 60 % 60:02d}"
    return text if whole % 60 == 0 else f"{text}:{whole % 60:02d}"


def over_time(found: Sizing, full: str, empty: str) -> list[str]:
    """One line per window: from when, demand, replicas, a bar of devices."""
    rows: Sequence[Step] = time_rows(found, MOST_ROWS)
    cells = [(clock(s.start), format_number(s.rate), " + ".join(map(str, s.replicas)), str(s.devices)) for s in rows]
    head = ("from", "requests/s", "replicas", "devices")
    widths = [max(len(c) for c in column) for column in zip(head, *cells, strict=True)]
    lines = ["  ".join(f"{c:>{w}}" for c, w in zip(head, widths, strict=True))]
    for step, row in zip(rows, cells, strict=True):
        filled = round(BAR * step.devices / found.peak_devices)
        lines.append(
            "  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True))
            + "  "
            + full * filled
            + empty * (BAR - filled)
        )
    return lines
