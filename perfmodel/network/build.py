"""From facts to floats: the topology levels of a cluster."""

from __future__ import annotations

from perfmodel.errors import UnknownName
from perfmodel.network.bill import Bill, network_bill
from perfmodel.network.congestion import bandwidth_share
from perfmodel.network.library import Library, Protocol
from perfmodel.network.rings import rings_bandwidth
from perfmodel.network.topology import Network, NetworkLevel
from perfmodel.specs.collectives import FACTS, LibraryFacts, ProtocolFacts
from perfmodel.specs.facts import Fact
from perfmodel.specs.hardware import Cluster, Level

__all__ = ["build_bill", "build_network", "library_of"]


def build_network(cluster: Cluster, library: str | None = None, sums: str = "") -> Network:
    """Build the levels of ``cluster``; a single device has one level that nothing crosses.

    Parameters
    ----------
    library : communication library to use; the first that the cluster states by default.
    sums : library whose all-reduces software may prefer where ranks share device links; unused where none is stated.
    """
    if sums and sums in cluster.collectives:
        return build_network(cluster, library)._replace(sums=build_network(cluster, sums))
    chosen = library or next(iter(cluster.collectives), None)
    if chosen is not None and chosen not in cluster.collectives:
        raise UnknownName("communication library", chosen, cluster.collectives, remedy=f"of {cluster.name}")
    facts = cluster.collectives.get(chosen) if chosen else None
    levels: list[NetworkLevel] = []
    reach, below_bandwidth = 1.0, float("inf")
    for name, level in cluster.levels.items():
        bandwidth, occupancy = _bandwidth(level, reach, below_bandwidth), _occupancy(level, reach)
        reach *= level.members.value
        levels.append(
            NetworkLevel(
                name=name,
                reach=reach,
                bandwidth=bandwidth,
                latency=_said(facts, name, "latency", level.latency.value),
                efficiency=_said(facts, name, "efficiency", level.efficiency.value) * _uncongested(level),
                crowding=_said(facts, name, "crowding", 1.0),
                kind=level.kind,
                in_network_reduction=level.in_network_reduction.value if level.in_network_reduction else 0.0,
                rails=1.0 if level.switching and level.switching.topology == "rail" else 0.0,
                occupancy=occupancy,
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


def _uncongested(level: Level) -> float:
    """Share of the bandwidth that collisions on the paths of a leaf leave [1]."""
    switching = level.switching
    if switching is None or switching.paths is None or switching.flows is None:
        return 1.0
    return float(bandwidth_share(switching.routing, int(switching.flows.value), int(switching.paths.value)))


def build_bill(cluster: Cluster) -> Bill | None:
    """Price and power of all switched levels; ``None`` where no level says what its parts cost."""
    found, below = [], 1.0
    ports = cluster.nodes.value * cluster.node.accelerator.count
    for level in cluster.levels.values():
        s = level.switching
        if s is not None and s.radix is not None:
            rails = below if s.topology == "rail" else 1.0
            switch = Bill(_value(s.switch_price), _value(s.switch_power))
            found.append(
                network_bill(
                    ports, rails, s.radix.value, switch, Bill(_value(s.transceiver_price), _value(s.transceiver_power))
                )
            )
        below *= level.members.value
    return Bill(sum(b.price for b in found), sum(b.power for b in found)) if found else None


def _value(fact: Fact | None) -> float:
    return fact.value if fact is not None else 0.0


def _bandwidth(level: Level, devices_below: float, below: float) -> float:
    """Bandwidth per device: stated, interfaces its domain shares, a taper of the level below, or rings over its links.

    Rings enter and leave every domain of the level below once, by one of its devices.
    """
    if level.bandwidth is not None:
        return level.bandwidth.value
    if level.nics is not None:
        return level.nics.count.value * level.nics.bandwidth.value / devices_below
    if level.taper is not None:
        return level.taper.value * below
    if level.graph:
        links = tuple((*e.between, e.bandwidth.value) for e in level.graph)
        return float(rings_bandwidth(links)) / devices_below
    return below


def _occupancy(level: Level, devices_below: float) -> float:
    """Time that a message of every device of a domain keeps the interfaces they share busy [s]."""
    if level.nics is None or level.nics.message is None:
        return 0.0
    return level.nics.message.value * devices_below / level.nics.count.value
