"""From facts to floats: the topology levels of a cluster."""

from __future__ import annotations

from perfmodel.errors import UnknownName
from perfmodel.network.library import Library, Protocol
from perfmodel.network.topology import Network, NetworkLevel
from perfmodel.specs.collectives import FACTS, LibraryFacts, ProtocolFacts
from perfmodel.specs.hardware import Cluster, Level

__all__ = ["build_network", "library_of"]


def build_network(cluster: Cluster, library: str | None = None) -> Network:
    """Build the levels of ``cluster``; a single device has one level that nothing crosses.

    Parameters
    ----------
    library : communication library to use; the first that the cluster states by default.
    """
    chosen = library or next(iter(cluster.collectives), None)
    if chosen is not None and chosen not in cluster.collectives:
        raise UnknownName("communication library", chosen, cluster.collectives, remedy=f"of {cluster.name}")
    facts = cluster.collectives.get(chosen) if chosen else None
    levels: list[NetworkLevel] = []
    reach, below_bandwidth = 1.0, float("inf")
    for name, level in cluster.levels.items():
        bandwidth = _bandwidth(level, reach, below_bandwidth)
        reach *= level.members.value
        levels.append(
            NetworkLevel(
                name=name,
                reach=reach,
                bandwidth=bandwidth,
                latency=_said(facts, name, "latency", level.latency.value),
                efficiency=_said(facts, name, "efficiency", level.efficiency.value),
                crowding=_said(facts, name, "crowding", 1.0),
                kind=level.kind,
                in_network_reduction=level.in_network_reduction.value if level.in_network_reduction else 0.0,
            )
        )
        below_bandwidth = bandwidth
    if not levels:
        levels.append(NetworkLevel("device", 1.0, float("inf"), 0.0, 1.0))
    return Network(tuple(levels), library=library_of(chosen, facts) if chosen and facts else None)


def _said(facts: LibraryFacts | None, level: str, constant: str, otherwise: float) -> float:
    """What the library says of a level, else what the level says."""
    said = getattr(facts.levels[level], constant) if facts and level in facts.levels else None
    return otherwise if said is None else float(said.value)


def library_of(name: str, facts: LibraryFacts) -> Library:
    """Protocols of a library as plain numbers."""
    protocols = {
        str(algorithm): tuple(_protocol(title, stated) for title, stated in found.items())
        for algorithm, found in facts.protocols.items()
    }
    return Library(name, protocols)


def _protocol(name: str, facts: ProtocolFacts) -> Protocol:
    stated = {n: getattr(facts, n) for n in FACTS}
    values = {n: fact.value for n, fact in stated.items() if fact is not None}
    return Protocol(**values, overlapped=facts.overlapped, name=name)


def _bandwidth(level: Level, devices_below: float, below: float) -> float:
    """Bandwidth per device: stated, or the interfaces its domain shares, or a taper of the level below."""
    if level.bandwidth is not None:
        return level.bandwidth.value
    if level.nics is not None:
        return level.nics.count.value * level.nics.bandwidth.value / devices_below
    if level.taper is not None:
        return level.taper.value * below
    return below
