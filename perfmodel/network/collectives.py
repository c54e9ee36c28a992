r"""Collectives over a group of ranks: the quickest protocol of the library that the machine runs.

Algorithms stand in :mod:`perfmodel.network.algorithms`, protocols in :mod:`perfmodel.network.library`, lower bounds
in :mod:`perfmodel.network.bounds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from perfmodel.elementwise import minimum, where
from perfmodel.network.algorithms import OPERATIONS, PATHS
from perfmodel.network.library import IDEAL, Line, Protocol, quickest
from perfmodel.network.topology import Group, Network, on_device_links
from perfmodel.units import Bytes, Seconds

__all__ = [
    "all_gather",
    "all_reduce",
    "all_to_all",
    "broadcast",
    "gather_lines",
    "gather_time",
    "lines_of",
    "narrowest_level",
    "point_to_point",
    "reduce_scatter",
    "times_by_protocol",
]


def lines_of(network: Network, group: Group, operation: str) -> tuple[Line, ...]:
    """Time of every protocol that can run an operation (a key of ``OPERATIONS``) over the group.

    What the library of the network says nothing of, or only up to some size, takes the ideal protocols.
    """
    found = _lines(network, group, operation, network.library.protocols) if network.library else ()
    if any(line.up_to == float("inf") for line in found):
        return found
    return found + _lines(network, group, operation, IDEAL.protocols)


def _lines(
    network: Network, group: Group, operation: str, protocols: Mapping[str, tuple[Protocol, ...]]
) -> tuple[Line, ...]:
    return tuple(line for _, lines in _named(network, group, operation, protocols) for line in lines)


def _named(
    network: Network, group: Group, operation: str, protocols: Mapping[str, tuple[Protocol, ...]]
) -> Iterator[tuple[str, tuple[Line, ...]]]:
    """Algorithm and protocol, and their lines."""
    if network.overlapping and "ring" in protocols:
        protocols = {**protocols, "overlapping": protocols["ring"]}
    for algorithm, name in OPERATIONS[operation].items():
        along_rings = algorithm in ("ring", "overlapping")
        if algorithm not in protocols or (network.ring_only and operation == "all_gather" and not along_rings):
            continue
        path = PATHS[name](network, group)
        for protocol in protocols[algorithm]:
            yield " ".join((algorithm.replace("_", " "), protocol.name)).strip(), protocol.lines(path, group.size)


def times_by_protocol(network: Network, group: Group, operation: str, size: Bytes) -> dict[str, Seconds]:
    """Time of an operation by every protocol that the library has for it, the quickest first [s]."""
    library = network.library or IDEAL
    found = {name: quickest(lines, size) for name, lines in _named(network, group, operation, library.protocols)}
    if not found:
        found = {name: quickest(lines, size) for name, lines in _named(network, group, operation, IDEAL.protocols)}
    possible = {name: seconds for name, seconds in found.items() if seconds < float("inf")}
    return dict(sorted(possible.items(), key=lambda pair: pair[1]))


def narrowest_level(network: Network, group: Group) -> str:
    """Level whose links take longest to carry what an all-gather moves across them; empty for one rank."""
    slowest, found, below = 0.0, "", 1.0
    for level, members in zip(network.levels, group.members, strict=True):
        seconds = (1.0 - below / group.size) / (below * level.bandwidth * level.efficiency)
        if members > below and seconds > slowest:
            slowest, found = seconds, level.name
        below = members
    return found


def gather_lines(network: Network, group: Group) -> tuple[Line, ...]:
    """Lines of the all-gathers that the library has; :func:`gather_time` takes the quickest at a size."""
    return lines_of(network, group, "all_gather")


def gather_time(lines: tuple[Line, ...], result: Bytes) -> Seconds:
    """All-gather of ``result`` bytes, or its mirror image, a reduce-scatter, over the group the lines belong to [s]."""
    return quickest(lines, result)


def all_gather(network: Network, group: Group, result: Bytes) -> Seconds:
    """Time until every rank holds ``result`` bytes, of which each held ``result / n`` [s]."""
    return quickest(lines_of(network, group, "all_gather"), result)


def reduce_scatter(network: Network, group: Group, size: Bytes) -> Seconds:
    """Time until each rank holds the sum of its share of ``size`` bytes; the mirror image of an all-gather [s]."""
    return all_gather(network, group, size)


def all_reduce(network: Network, group: Group, size: Bytes) -> Seconds:
    """Time until every rank holds the sum of ``size`` bytes; by the quicker library where there are two [s]."""
    usual = quickest(lines_of(network, group, "all_reduce"), size)
    if network.sums is None:
        return usual
    other = quickest(lines_of(network.sums, group, "all_reduce"), size)
    return where(on_device_links(network, group) > 0.0, minimum(usual, other), usual)


def all_to_all(network: Network, group: Group, size: Bytes) -> Seconds:
    """Each rank sends ``size`` bytes in all, ``size / n`` to every rank [s]."""
    return quickest(lines_of(network, group, "all_to_all"), size)


def broadcast(network: Network, group: Group, size: Bytes) -> Seconds:
    """Time until every rank holds the ``size`` bytes of one of them [s]."""
    return quickest(lines_of(network, group, "broadcast"), size)


def point_to_point(network: Network, group: Group, size: Bytes) -> Seconds:
    """Every rank of ``group`` sends ``size`` bytes to its successor at the same time [s].

    Successors are ``size`` of the group apart, so the widest level that the group crosses decides.
    """
    return quickest(lines_of(network, group, "point_to_point"), size)
