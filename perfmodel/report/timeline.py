"""A timeline as Chrome trace events, as SVG and as lines of text; no drawing library."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from perfmodel.insight.timeline import Interval, Timeline
from perfmodel.units import format_seconds

__all__ = ["LETTERS", "as_json", "as_svg", "as_text", "legend"]

COLOURS = {
    "forward": "#4c78a8",
    "backward": "#f58518",
    "weight gradients": "#54a24b",
    "bubble": "#eeeeee",
    "sync": "#b279a2",
    "update": "#e45756",
    "network": "#9d9d9d",
}
LETTERS = {"forward": "F", "backward": "B", "weight gradients": "W", "bubble": ".", "sync": "S", "update": "U"}
LANES = ("compute", "network", "sync")
WIDE, LEFT, HIGH, THIN, GAP = 1200.0, 60.0, 16.0, 4.0, 4.0
"""Pixels of an SVG: length of a step, labels, lanes of passes and of the network, space between stages."""


def as_json(found: Timeline) -> str:
    """Chrome trace events (chrome://tracing, Perfetto): a process per stage, a thread per lane, microseconds."""
    events: list[dict[str, Any]] = []
    for stage in range(found.stages):
        events.append({"name": "process_name", "ph": "M", "pid": stage, "args": {"name": f"stage {stage}"}})
        for number, lane in enumerate(LANES):
            events.append({"name": "thread_name", "ph": "M", "pid": stage, "tid": number, "args": {"name": lane}})
    events += [
        {"name": i.name, "cat": i.kind, "ph": "X", "pid": i.stage, "tid": LANES.index(i.lane),
         "ts": i.start * 1e6, "dur": (i.end - i.start) * 1e6}
        for i in found.intervals
    ]  # fmt: skip
    return json.dumps({"displayTimeUnit": "ms", "otherData": {"step_seconds": found.seconds}, "traceEvents": events})


def as_svg(found: Timeline) -> str:
    """Stages below each other, each with its passes and a thin lane for either kind of traffic."""
    tall = HIGH + 2.0 * THIN + GAP
    length = found.seconds + max(found.offsets)
    scale, height = (WIDE - LEFT) / length, 24.0 + tall * found.stages + 24.0
    top = {"compute": 0.0, "network": HIGH, "sync": HIGH + THIN}
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE:g}" height="{height:g}" '
        'font-family="sans-serif" font-size="11">',
        f'<text x="2" y="14">one step: {escape(format_seconds(found.seconds))}</text>',
    ]
    text += [f'<text x="2" y="{36.0 + tall * i:g}">stage {i}</text>' for i in range(found.stages)]
    for i in _visible(found.intervals, 0.5 / scale):
        high = HIGH if i.lane == "compute" else THIN
        text.append(
            f'<rect x="{LEFT + scale * i.start:.2f}" y="{24.0 + tall * i.stage + top[i.lane]:g}" '
            f'width="{scale * (i.end - i.start):.2f}" height="{high:g}" fill="{COLOURS[i.kind]}">'
            f"<title>{escape(i.name)}: {escape(format_seconds(i.end - i.start))}</title></rect>"
        )
    for n, (kind, colour) in enumerate(COLOURS.items()):
        x, y = LEFT + 130.0 * n, height - 16.0
        text.append(f'<rect x="{x:g}" y="{y:g}" width="10" height="10" fill="{colour}"/>')
        text.append(f'<text x="{x + 14.0:g}" y="{y + 9.0:g}">{kind}</text>')
    return "\n".join([*text, "</svg>"]) + "\n"


def _visible(intervals: Sequence[Interval], least: float) -> Iterator[Interval]:
    """Intervals, those of a stage and kind that follow each other within less than a line's width drawn as one."""
    held: dict[tuple[int, str, str], Interval] = {}
    for i in intervals:
        key = (i.stage, i.lane, i.kind)
        last = held.get(key)
        if last is not None and i.start - last.end < least and i.end - i.start < 2.0 * least:
            held[key] = last._replace(end=i.end, name=i.kind)
            continue
        if last is not None:
            yield last
        held[key] = i
    yield from held.values()


def as_text(found: Timeline, width: int = 96) -> list[str]:
    """One line per stage, a letter for what takes most of each column's time."""
    length = found.seconds + max(found.offsets)
    label, cell = len(str(found.stages - 1)) + 1, length / width
    spent: list[list[dict[str, float]]] = [[{} for _ in range(width)] for _ in range(found.stages)]
    for i in found.intervals:
        if i.lane != "compute":
            continue
        for column in range(int(i.start / cell), min(int(i.end / cell) + 1, width)):
            inside = min(i.end, (column + 1) * cell) - max(i.start, column * cell)
            here = spent[i.stage][column]
            here[i.kind] = here.get(i.kind, 0.0) + inside
    return [
        f"{stage:>{label - 1}} " + "".join(LETTERS[max(c, key=lambda k: c[k])] if c else " " for c in row).rstrip()
        for stage, row in enumerate(spent)
    ]


def legend(found: Timeline) -> str:
    """What the letters of the text mean."""
    kinds = {i.kind for i in found.intervals if i.lane == "compute"}
    return ", ".join(f"{letter} {kind}" for kind, letter in LETTERS.items() if kind in kinds)
