"""Bounds of an operator or a collective as a screen and as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perfmodel.insight.bounds import Boundary, CollectiveBounds, OperatorBounds
from perfmodel.report.jsonable import plain
from perfmodel.report.screen import Line, Page
from perfmodel.report.words import device_label
from perfmodel.units import format_bandwidth, format_bytes, format_number, format_rate, format_seconds

__all__ = ["BOUNDS", "collective", "collective_data", "operator", "operator_data", "table"]

BOUNDS = "perfmodel.bounds/1"


def table(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lay out rows in columns, the first ``left`` of them flush left and the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [f"{c:<{w}}" if i < left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def labelled(label: str, texts: Sequence[str], style: str = "") -> list[Line]:
    """Lines as they are, the first beside a label."""
    return [Line(label if i == 0 else "", text, style) for i, text in enumerate(texts)]


def _sizes(found: OperatorBounds) -> str:
    sizes = {n: v for n, v in found.problem.sizes.items() if n != "causal"}
    said = [f"{name.replace('_', '-')} {value:,.0f}" for name, value in sizes.items()]
    return " · ".join([*said, *(["causal"] if found.problem.sizes.get("causal") else [])])


def _capacity(b: Boundary) -> str:
    if b.parts > 1:
        return f"{b.parts:,.0f} × {format_bytes(b.capacity / b.parts)}"
    return format_bytes(b.capacity)


def operator(found: OperatorBounds, page: Page) -> list[Line]:
    """Operations, and for every memory the bytes that must and that can cross into it."""
    problem = found.problem
    lines = page.block("", f"{problem.operator} · {_sizes(found)}", "title")
    device = f"{device_label(found.device)} · {found.format}, {found.element_bytes:g} B per element"
    lines += page.block("", device, "title")
    units = "matrix" if problem.matrix else "vector"
    rate = format_rate(found.peak, "FLOP/s", 4)
    done = f"{format_rate(problem.flops, 'FLOP')}: {format_seconds(found.compute_seconds)} at {rate} ({units} units)"
    lines += [Line("", ""), *page.block("operations", done)]
    lines += page.block("compulsory", f"{format_bytes(problem.compulsory * found.element_bytes)}: each element once")
    lines += page.block("lower bound", f"{problem.statement} elements ({problem.source})")
    rows = [("into", "from", "capacity", "lower bound", "achievable", "gap", "FLOP/B", "time")]
    for b in found.boundaries:
        time = "" if b.seconds is None else format_seconds(b.seconds)
        rows.append(
            (
                b.memory,
                b.source,
                _capacity(b),
                format_bytes(b.lower_bound),
                format_bytes(b.achievable),
                f"{b.gap:.2f}",
                format_number(b.intensity),
                time,
            )
        )
    lines += [Line("", ""), *labelled("traffic", table(rows, 2))]
    lines += page.block("", [f"{b.memory}: {b.regime}; reached by {b.algorithm}" for b in found.boundaries], "quiet")
    lines += [*_others(found, page), Line("", "")]
    roof = "compute binds" if found.roof == "compute" else f"{found.roof} bandwidth binds"
    return [*lines, *page.block("verdict", f"{roof}: {format_seconds(found.seconds)} at full rates", "verdict")]


def _others(found: OperatorBounds, page: Page) -> list[Line]:
    """Traffic of every known loop into every memory."""
    names = list(dict.fromkeys(name for b in found.boundaries for name in b.algorithms))
    if len(names) < 2:
        return []
    rows = [("", *(b.memory for b in found.boundaries))]
    for name in names:
        moved = [b.algorithms.get(name) for b in found.boundaries]
        rows.append((name, *("does not fit" if m is None else format_bytes(m) for m in moved)))
    return [Line("", ""), *labelled("algorithms", table(rows))]


def operator_data(found: OperatorBounds) -> dict[str, Any]:
    """Everything on the screen, as numbers."""
    problem = found.problem
    return {
        "schema": BOUNDS,
        "operator": problem.operator,
        "sizes": plain(problem.sizes),
        "device": found.device,
        "format": found.format,
        "element_bytes": found.element_bytes,
        "flops": problem.flops,
        "peak_flops_per_s": found.peak,
        "compute_seconds": found.compute_seconds,
        "compulsory_bytes": problem.compulsory * found.element_bytes,
        "statement": problem.statement,
        "source": problem.source,
        "boundaries": plain(found.boundaries),
        "roof": found.roof,
        "seconds": found.seconds,
    }


def collective(found: CollectiveBounds, page: Page) -> list[Line]:
    """Latency, bandwidth and compute bounds, and what known algorithms take."""
    title = f"{found.collective} · {found.ranks:,} ranks · {format_bytes(found.size)}"
    lines = page.block("", title, "title")
    crossed = [
        f"{name}: {members:,.0f} ranks in a domain, {format_bandwidth(bandwidth)} per device, {format_seconds(latency)}"
        for name, members, bandwidth, latency in found.levels
    ]
    lines += [Line("", ""), *page.block("levels", crossed)]
    parts = [("latency", found.latency), ("bandwidth", found.transfer), ("addition", found.compute)]
    if found.topology:
        parts.append(("links of each domain", found.topology))
    said = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in parts if seconds)
    lines += page.block("lower bound", f"{format_seconds(found.bound)}: the largest of {said}", "verdict")
    lines += page.block("", "Chan et al., doi:10.1002/cpe.1206, with the quickest link of a rank", "quiet")
    rows: list[tuple[str, ...]] = [("", "latency", "transfer", "addition", "time", "over bound")]
    rows += [
        (r.algorithm, *(format_seconds(t) for t in (r.latency, r.transfer, r.compute, r.seconds)), f"{r.ratio:.2f} ×")
        for r in found.rows
    ]
    lines += [Line("", ""), *labelled("algorithms", table(rows))]
    if found.modelled is not None:
        lines += [Line("", ""), *labelled("library", table(_protocols(found)))]
        lines += page.block("", f"{found.library}; the links of the {found.bottleneck} level take longest", "quiet")
    note = "every message at the outermost level's bandwidth; the network model uses each level at its own, as achieved"
    return [*lines, *page.block("", note if len(found.levels) > 1 else "links at full bandwidth", "quiet")]


def _protocols(found: CollectiveBounds) -> list[tuple[str, ...]]:
    """Time of every protocol of the library over the bound, the one it takes first."""
    rows: list[tuple[str, ...]] = [("", "time", "over bound", "")]
    for i, (name, seconds) in enumerate(found.protocols.items()):
        chosen = "chosen" if i == 0 else ""
        rows.append((name, format_seconds(seconds), f"{seconds / found.bound:.2f} ×", chosen))
    return rows


def collective_data(found: CollectiveBounds) -> dict[str, Any]:
    """Everything on the screen, as numbers."""
    names = ("level", "members", "bandwidth", "latency_seconds")
    return {
        "schema": BOUNDS,
        "operator": found.collective,
        "ranks": found.ranks,
        "size_bytes": found.size,
        "levels": [dict(zip(names, level, strict=True)) for level in found.levels],
        "latency_seconds": found.latency,
        "transfer_seconds": found.transfer,
        "compute_seconds": found.compute,
        "topology_seconds": found.topology,
        "bound_seconds": found.bound,
        "algorithms": plain(found.rows),
        "modelled_seconds": found.modelled,
        "library": found.library,
        "protocols": [{"protocol": name, "seconds": seconds} for name, seconds in found.protocols.items()],
        "bottleneck_level": found.bottleneck,
    }
