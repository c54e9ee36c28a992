"""One training step, stage by stage: which pass runs when, what waits, what the network carries meanwhile.

The passes of every stage run in the order of the plan's schedule, with the times that the step is composed of; what
comes once a step follows in the order of its composition. Nothing is fitted to the total: passes, bubbles and what
follows add up to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from perfmodel.phases.compose import Exposure, Node
from perfmodel.phases.pipeline import Order, Pass, interleaved_order, plain_order, simulate
from perfmodel.phases.training import Step, every_stage, pass_shares, pieces_of
from perfmodel.techniques.settled import Settled
from perfmodel.units import Seconds

__all__ = ["Interval", "Timeline", "timeline_of"]

KINDS = {"F": "forward", "B": "backward", "W": "weight gradients"}


class Interval(NamedTuple):
    """Something that one stage does, or waits for, on one lane.

    Parameters
    ----------
    stage : pipeline stage, from 0.
    lane : ``compute``; ``network`` beside the passes; ``sync`` beside the last of them.
    kind : ``forward``, ``backward``, ``weight gradients``, ``bubble``, ``sync``, ``update``, ``network``.
    name : of the pass or the term.
    start, end : since the first stage began [s].
    """

    stage: int
    lane: str
    kind: str
    name: str
    start: Seconds
    end: Seconds


class Timeline(NamedTuple):
    """Intervals of every stage; each stage takes ``seconds`` from its offset on.

    Offsets are 0 but where stages go through the optimizer step one after another, each already on the next
    step while those behind it finish.
    """

    seconds: Seconds
    offsets: tuple[Seconds, ...]
    intervals: tuple[Interval, ...]

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.offsets)


def timeline_of(step: Step) -> Timeline:
    """Draw one evaluated training step (numbers, not arrays)."""
    s, (passes, bubble, *after) = step.settled, step.tree.children
    stages, pipeline = round(float(s.stages)), float(passes.elapsed() + bubble.elapsed())
    runs = simulate(_orders(s), _seconds(step), round(float(s.layout.virtual_stages)))
    staggered = s.layout.schedule is not None and s.layout.schedule.staggered
    offsets = tuple(run[0].start if staggered else 0.0 for run in runs)
    shares = _network_shares(step)
    found: list[Interval] = []
    for i, run in enumerate(runs):
        end = offsets[i] + pipeline
        found += _stage(i, run, offsets[i], end)
        found += [
            Interval(i, "network", "network", f"beside {KINDS[p.kind]} {p.micro_batch}", p.start, p.start + used)
            for p in run
            if (used := (p.end - p.start) * shares.get(p.kind, 0.0)) > 0.0
        ]
        found += _once(i, after, end)
    return Timeline(float(step.seconds), offsets if stages > 1 else (0.0,), tuple(found))


def _orders(s: Settled) -> list[Order]:
    """Passes of every stage in order."""
    p, m, v = (round(float(n)) for n in (s.stages, s.micro_batches, s.layout.virtual_stages))
    if s.layout.schedule is not None:
        return [[(kind, j, 0) for kind, j in s.layout.schedule.order(p, m, i)] for i in range(p)]
    return [interleaved_order(p, m, v, i) if v > 1 else plain_order(p, m, i) for i in range(p)]


def _seconds(step: Step) -> list[Mapping[str, Seconds]]:
    """Seconds of each pass on each stage: one stage is the busiest, the others share the rest evenly."""
    s, passes = step.settled, step.tree.children[0]
    p, v = round(float(s.stages)), float(s.layout.virtual_stages)
    busiest = float(passes.elapsed() / s.micro_batches)
    rest = min((float(every_stage(s, pieces_of(s, step.terms))) - busiest) / (p - 1), busiest) if p > 1 else 0.0
    forward, inputs, weights = (float(share) for share in pass_shares(s, step.terms))
    apart = s.layout.schedule is not None
    share = {"F": forward, "B": inputs if apart else inputs + weights, "W": weights}
    last = float(s.last_layers) >= float(s.first_layers)  # the head makes the last of equal stages the busiest
    slow = p - 1 if last else 0
    return [{kind: (busiest if i == slow else rest) * part / v for kind, part in share.items()} for i in range(p)]


def _network_shares(step: Step) -> dict[str, float]:
    """Share of a pass during which its communication keeps the links busy, at most all of it."""
    slots = pieces_of(step.settled, step.terms).layer.children  # type: ignore[attr-defined]
    found = {}
    for kind, slot in zip("FB", slots, strict=True):
        elapsed = float(slot.elapsed())
        busy = sum(row.busy for row in slot.exposed() if row.resource == "network")
        found[kind] = min(busy / elapsed, 1.0) if elapsed > 0.0 else 0.0
    return found


def _stage(i: int, run: Sequence[Pass], begin: Seconds, end: Seconds) -> list[Interval]:
    """Passes of a stage and the bubbles between them, up to the end of the slowest."""
    found, now = [], begin
    for p in run:
        if p.end <= p.start:
            continue
        if p.start > now:
            found.append(Interval(i, "compute", "bubble", "pipeline bubble", now, p.start))
        found.append(Interval(i, "compute", KINDS[p.kind], f"{KINDS[p.kind]} {p.micro_batch}", p.start, p.end))
        now = p.end
    if end > now:
        found.append(Interval(i, "compute", "bubble", "pipeline bubble", now, end))
    return found


def _once(i: int, after: Sequence[Node], begin: Seconds) -> list[Interval]:
    """What comes once a step: what it adds, one after another, and the part of it that hides beside the passes."""
    found, now, hidden = [], begin, begin
    rows: list[Exposure] = [row for node in after for row in node.exposed()]
    for row in rows:
        kind = "sync" if row.resource == "network" else "update"
        if row.exposed > 0.0:
            found.append(Interval(i, "compute", kind, row.name, now, now + row.exposed))
            now += row.exposed
        beside = min(row.busy - row.exposed, hidden) if kind == "sync" else 0.0
        if beside > 0.0:
            found.append(Interval(i, "sync", kind, row.name, hidden - beside, hidden))
            hidden -= beside
    return found
