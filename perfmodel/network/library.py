r"""What a communication library does: algorithms, the protocols it runs them with, and their constants.

An algorithm fixes two numbers of a group: the latencies on its critical path, :math:`A = \sum_l k_l \alpha_l`, and the
transfer per byte, :math:`W = \max_l w_l / (b_l e_l)`. A protocol turns them into a line in the size V:

.. math:: t(V) = t_0 + \lambda A + \frac{W}{r} V + \frac{\min(V, c)}{p} A

with the fixed cost :math:`t_0` (launch), the share :math:`\lambda` of a level's latency that a step takes, the share r
of the bandwidth that it reaches, and the bytes p (pace) that take a step as long again as its latency where pieces of
up to c bytes (chunk) are stored before they are passed on (p is infinite where nothing is). A protocol that keeps
several messages on their way hides latency behind transfer: the larger of the two counts. In a ring that is so once the
share of a rank, V/n, exceeds what one step sends at once (chunk): then a step takes the longer of its transfer and of
the latency with one such piece. A library takes the quickest
of its protocols, so a collective costs the lower envelope of a few lines: NCCL's LL, LL128 and Simple are three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum, where
from perfmodel.units import Bytes, Seconds

__all__ = ["IDEAL", "Library", "Line", "Path", "Protocol", "quickest"]

ENDLESS = float("inf")


class Line(NamedTuple):
    """Time of one protocol over one group: ``start + max(floor, size * slope)``, up to a size [s, s/B, s, B]."""

    start: Seconds
    slope: Scalar
    floor: Seconds = 0.0
    up_to: Bytes = ENDLESS
    name: str = ""

    def seconds(self, size: Bytes) -> Seconds:
        """Time for ``size`` bytes [s]."""
        moved = size * self.slope
        if not _is(self.floor, 0.0):
            moved = maximum(self.floor, moved)
        seconds = self.start + moved
        return seconds if _is(self.up_to, ENDLESS) else where(size <= self.up_to, seconds, ENDLESS)


class Path(NamedTuple):
    """What an algorithm takes over a group: latencies on the critical path [s], transfer per byte [s/B].

    ``active`` is 0 for a group of one rank, which communicates with nobody; ``stored`` are the latencies weighted by
    how long pieces wait at them [s]; ``occupied`` is how long the messages keep the interfaces busy beside their bytes,
    whatever the protocol [s].
    """

    latency: Seconds
    transfer: Scalar
    active: Scalar
    stored: Seconds
    occupied: Seconds = 0.0


class Protocol(NamedTuple):
    """One way of running an algorithm.

    Parameters
    ----------
    launch : fixed cost [s].
    latency : share of the level's latency that one step takes [1].
    rate : share of the achieved bandwidth of the levels [1].
    pace : bytes whose transfer makes a step as long again as its latency; infinite where transfers are pipelined [B].
    chunk : largest piece that one step sends before it waits; more follows in a pipeline [B].
    copy_share : bytes copied inside the device for every byte sent, relative to the links' rate [1].
    up_to : the library uses it for no more than this [B].
    overlapped : latency hides behind transfer.
    name : as the library calls it.
    """

    launch: Seconds = 0.0
    latency: Scalar = 1.0
    rate: Scalar = 1.0
    pace: Bytes = ENDLESS
    chunk: Bytes = ENDLESS
    copy_share: Scalar = 0.0
    up_to: Bytes = ENDLESS
    overlapped: bool = False
    name: str = ""

    def lines(self, path: Path, ranks: Scalar) -> tuple[Line, ...]:
        """Times along a path of an algorithm among ``ranks``; the smallest of the lines counts."""
        start = 0.0 if _is(self.launch, 0.0) else self.launch * path.active
        if not _is(path.occupied, 0.0):
            start = start + path.occupied
        hops = path.latency if _is(self.latency, 1.0) else self.latency * path.latency
        slope = path.transfer if _is(self.rate, 1.0) else path.transfer / self.rate
        if not _is(self.copy_share, 0.0):
            own = ranks / maximum(ranks - 1.0, 1.0)
            slope = slope * ((1.0 + self.copy_share * own) / (1.0 + self.copy_share))
        if self.overlapped:
            if _is(self.chunk, ENDLESS):
                return (Line(start, slope, hops, self.up_to, self.name),)
            filled = hops + ranks * self.chunk * slope
            return (
                Line(start + hops, slope, 0.0, self.up_to, self.name),
                Line(start, slope, filled, self.up_to, self.name),
            )
        start = start + hops
        if _is(self.pace, ENDLESS):
            return (Line(start, slope, 0.0, self.up_to, self.name),)
        stored = path.stored / self.pace
        whole = Line(start, slope + stored, 0.0, self.up_to, self.name)
        if _is(self.chunk, ENDLESS):
            return (whole,)
        return whole, Line(start + self.chunk * stored, slope, 0.0, self.up_to, self.name)


class Library(NamedTuple):
    """Protocols by algorithm; a collective takes the quickest of all that it can run on."""

    name: str
    protocols: Mapping[str, tuple[Protocol, ...]]

    def least_step(self) -> Scalar:
        """Smallest share of a level's latency that any step of any protocol takes [1]."""
        shares = [p.latency for found in self.protocols.values() for p in found]
        return minimum(*shares) if len(shares) > 1 else shares[0] if shares else 1.0


def quickest(lines: Iterable[Line], size: Bytes) -> Seconds:
    """Time of the quickest line at a size [s]."""
    times = [line.seconds(size) for line in lines]
    return minimum(*times) if len(times) > 1 else times[0]


def _is(value: Scalar, wanted: float) -> bool:
    """Whether a value is a plain number equal to ``wanted``: then the term is left out for speed."""
    return isinstance(value, (int, float)) and value == wanted


IDEAL = Library(
    "ideal",
    {
        name: (Protocol(),)
        for name in ("ring", "hierarchical", "tree", "in_network", "by_level", "neighbour", "broadcast_tree")
    },
)
"""Every algorithm at the latency and the efficiency of the levels, nothing on top: where no library is stated."""
