"""From terms to elapsed time by a few fixed rules, and back: what part of the elapsed time each term exposes.

``elapsed`` accepts numbers, arrays and symbols. ``exposed`` walks one plan; its exposed seconds sum to ``elapsed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import NamedTuple, Protocol

import numpy as np

from perfmodel.elementwise import Scalar, maximum, minimum, sqrt, where
from perfmodel.machine.power import Use
from perfmodel.techniques.base import Term
from perfmodel.units import Seconds

__all__ = ["HOST", "Beside", "Exposure", "Idle", "Longest", "Node", "Serial", "Slot", "Times", "add_up"]


HOST = "host cpu"
"""Resource of the host's launches."""


class Exposure(NamedTuple):
    """Share of one term in the elapsed time [s]; ``busy`` counts what runs hidden, too."""

    name: str
    resource: str
    exposed: float
    busy: float
    bound: float = 0.0

    def scaled(self, factor: float) -> Exposure:
        """All times multiplied by ``factor``."""
        return self._replace(exposed=self.exposed * factor, busy=self.busy * factor, bound=self.bound * factor)


class Node(Protocol):
    """Part of the composition tree."""

    def elapsed(self) -> Seconds:
        """Wall time [s]."""
        ...

    def exposed(self) -> list[Exposure]:
        """Rows whose exposed seconds sum to ``elapsed`` (numbers only)."""
        ...

    def bound(self) -> Seconds:
        """No implementation is quicker: the bounds of the terms, lanes perfectly side by side [s]."""
        ...

    def use(self) -> Use:
        """Seconds for which compute units, memory and links are busy, hidden or not [s]."""
        ...


def add_up(values: Sequence[Scalar]) -> Scalar:
    """Sum, smallest shapes first, so that few additions run at full size."""
    total: Scalar = 0.0
    for value in sorted(values, key=np.size):
        total = total + value
    return total


def _use_of(terms: Sequence[Term]) -> Use:
    """Seconds for which terms keep compute units, memory and links busy [s], and what other engines draw [J]."""
    links = add_up([t.seconds for t in terms if t.resource == "network"])
    compute, memory, joules = (add_up([getattr(t, part) for t in terms]) for part in ("compute", "memory", "joules"))
    return Use(compute, memory, links, joules)


@dataclass(frozen=True)
class Serial:
    """Children one after the other."""

    children: tuple[Node, ...]

    def elapsed(self) -> Seconds:
        """Sum of the children [s]."""
        return self._elapsed

    @cached_property
    def _elapsed(self) -> Seconds:
        return add_up([c.elapsed() for c in self.children])

    def exposed(self) -> list[Exposure]:
        """All rows of the children."""
        return [row for c in self.children for row in c.exposed()]

    def bound(self) -> Seconds:
        """Sum of the children [s]."""
        return add_up([c.bound() for c in self.children])

    def use(self) -> Use:
        """Sum of the children [s]."""
        return reduce(Use.plus, (c.use() for c in self.children), Use())


@dataclass(frozen=True)
class Times:
    """``count`` repetitions of a child."""

    count: Scalar
    child: Node

    def elapsed(self) -> Seconds:
        """``count`` times the child [s]."""
        return self._elapsed

    @cached_property
    def _elapsed(self) -> Seconds:
        return self.count * self.child.elapsed()

    def exposed(self) -> list[Exposure]:
        """Rows of the child, scaled."""
        return [row.scaled(self.count) for row in self.child.exposed()]

    def bound(self) -> Seconds:
        """``count`` times the child [s]."""
        return self.count * self.child.bound()

    def use(self) -> Use:
        """``count`` times the child [s]."""
        return self.child.use().scaled(self.count)


@dataclass(frozen=True)
class Longest:
    """The slowest of its children decides (pipeline stages in steady state)."""

    children: tuple[Node, ...]

    def elapsed(self) -> Seconds:
        """Maximum of the children [s]."""
        return self._elapsed

    @cached_property
    def _elapsed(self) -> Seconds:
        return maximum(*(c.elapsed() for c in self.children))

    def exposed(self) -> list[Exposure]:
        """Rows of the slowest child."""
        return max(self.children, key=lambda c: c.elapsed()).exposed()

    def bound(self) -> Seconds:
        """Largest of the children [s]."""
        return maximum(*(c.bound() for c in self.children))

    def use(self) -> Use:
        """Use of the slowest child [s]."""
        slowest, found = self.children[0].elapsed(), self.children[0].use()
        for child in self.children[1:]:
            longer = child.elapsed() > slowest
            found = Use(*(where(longer, b, a) for a, b in zip(found, child.use(), strict=True)))
            slowest = maximum(slowest, child.elapsed())
        return found


@dataclass(frozen=True)
class Idle:
    """Waiting that no term causes: a pipeline bubble."""

    name: str
    seconds: Seconds

    def elapsed(self) -> Seconds:
        """The wait [s]."""
        return self.seconds

    def exposed(self) -> list[Exposure]:
        """One row on resource ``idle``."""
        return [Exposure(self.name, "idle", self.seconds, 0.0)]

    def bound(self) -> Seconds:
        """Nothing has to wait."""
        return 0.0

    def use(self) -> Use:
        """Nothing is busy."""
        return Use()


@dataclass(frozen=True)
class Slot:
    r"""Lanes side by side, ``items`` of the slot in flight.

    .. math:: \max(s \cdot \text{busiest lane},\ s \cdot \text{busiest shared resource},\ \text{serial terms
    of one item})

    With one item and no prefetching lane this is the sum; prefetching lanes leave their excess exposed; two items on
    two engines interleave. ``interference`` is the share of hidden communication that still slows the main lane.

    With ``host_late``, lanes of the host that launches the work join by
    :math:`(a^4 + b^4)^{1/4}`:
    where both take about as long, now one waits and now the other.
    """

    terms: tuple[Term, ...]
    items: Scalar = 1.0
    interference: Scalar = 0.0
    host_late: bool = False
    one_memory: bool = False
    """Lanes share the device's memory: a slot lasts no less than its terms keep that busy."""

    @cached_property
    def _lanes(self) -> dict[str, Scalar]:
        lanes: dict[str, list[Scalar]] = {"main": []}
        for term in self.terms:
            lanes.setdefault(term.lane, []).append(term.seconds)
        return {name: add_up(seconds) for name, seconds in lanes.items()}

    def _shared(self) -> list[Scalar]:
        """Busy time of every resource that two lanes use."""
        users: dict[str, set[str]] = {}
        for term in self.terms:
            users.setdefault(term.resource, set()).add(term.lane)
        return [
            add_up([t.seconds for t in self.terms if t.resource == resource])
            for resource, lanes in users.items()
            if len(lanes) > 1
        ]

    def elapsed(self) -> Seconds:
        """Wall time of all items [s]."""
        return self._elapsed

    @cached_property
    def _elapsed(self) -> Seconds:
        device = self._device()
        host = self._host()
        if not host:
            return device
        lanes = self._lanes
        return _fourth_power(device, self.items * maximum(0.0, *(lanes[name] for name in host)))

    def _host(self) -> set[str]:
        """Lanes of the host that join smoothly."""
        return {t.lane for t in self.terms if t.resource == HOST} if self.host_late else set()

    def _device(self) -> Seconds:
        """Wall time if the host were never late [s]."""
        lanes = {name: lane for name, lane in self._lanes.items() if name not in self._host()}
        paths = self.paths()
        return paths[0] if len(paths) == 1 else maximum(*paths) + self._slowdown(lanes)

    def paths(self) -> tuple[Seconds, ...]:
        """What the wall time is the longest of, but for interference: lanes, shared resources, one item in turn [s]."""
        lanes = {name: lane for name, lane in self._lanes.items() if name not in self._host()}
        if len(lanes) == 1:
            return (self.items * lanes["main"],)
        serial = add_up([t.seconds for t in self.terms if not t.prefetch])
        return (*(self.items * lane for lane in (*lanes.values(), *self._shared())), serial)

    def _slowdown(self, lanes: dict[str, Scalar]) -> Scalar:
        """Hidden communication takes compute units and bandwidth from the main lane; host launches do not."""
        hidden: Scalar = 0.0
        for name in {t.lane for t in self.terms if t.resource == "network"} - {"main"}:
            hidden = maximum(hidden, minimum(lanes[name], lanes["main"]))
        return self.interference * self.items * hidden

    def exposed(self) -> list[Exposure]:
        """Main lane in full; of the others only what sticks out, in proportion."""
        lanes = self._lanes
        slowdown = self._slowdown(lanes)
        main, device = self.items * lanes["main"], self._device()
        host = self._host()
        rest = {n: self.items * v for n, v in lanes.items() if n != "main" and n not in host}
        rows, left = [], device - main - slowdown
        if left < 0.0:  # interleaving hides part of the main lane behind another engine
            main, left = main + left, 0.0
        shown = {"main": main}
        if rest:
            shown[max(rest, key=lambda n: rest[n])] = left
        if host:
            shown[max(host, key=lambda n: lanes[n])] = self.elapsed() - device
        for term in self.terms:
            lane = self.items * lanes[term.lane]
            part = shown.get(term.lane, 0.0)
            share = term.seconds * self.items / lane if lane else 0.0
            rows.append(
                Exposure(term.name, term.resource, part * share, term.seconds * self.items, term.bound * self.items)
            )
        if slowdown:
            rows.append(Exposure("overlap interference", "main", slowdown, 0.0))
        return rows

    def bound(self) -> Seconds:
        """The longest lane of bounds, or one item through those that wait for each other [s]."""
        lanes: dict[str, list[Scalar]] = {"main": []}
        for term in self.terms:
            lanes.setdefault(term.lane, []).append(term.bound)
        serial = add_up([t.bound for t in self.terms if not t.prefetch])
        return maximum(serial, *(self.items * add_up(found) for found in lanes.values()))

    def use(self) -> Use:
        """What its terms use, once per item [s]."""
        return _use_of(self.terms).scaled(self.items)


def _fourth_power(a: Scalar, b: Scalar) -> Scalar:
    """``(a**4 + b**4)**(1/4)`` without powers, which arrays pay dearly."""
    a, b = a * a, b * b
    return sqrt(sqrt(a * a + b * b))


@dataclass(frozen=True)
class Beside:
    """Terms that run beside ``window`` seconds counted elsewhere; only what sticks out is paid."""

    window: Seconds
    terms: tuple[Term, ...]
    hidden_share: Scalar = 1.0

    def _busy(self) -> Scalar:
        return add_up([t.seconds for t in self.terms])

    def elapsed(self) -> Seconds:
        """What the window cannot hide [s]."""
        return self._elapsed

    @cached_property
    def _elapsed(self) -> Seconds:
        busy = self._busy()
        return maximum(busy - self.window, (1.0 - self.hidden_share) * busy)

    def exposed(self) -> list[Exposure]:
        """The excess, in proportion."""
        busy, out = self._busy(), self.elapsed()
        share = out / busy if busy else 0.0
        return [Exposure(t.name, t.resource, t.seconds * share, t.seconds, t.bound) for t in self.terms]

    def bound(self) -> Seconds:
        """All of it may hide [s]."""
        return 0.0

    def use(self) -> Use:
        """What its terms use [s]."""
        return _use_of(self.terms)
