"""From facts to floats: the topology levels of a cluster."""

from __future__ import annotations

from perfmodel.network.topology import Network, NetworkLevel
from perfmodel.specs.hardware import Cluster, Level

__all__ = ["build_network"]


def build_network(cluster: Cluster) -> Network:
    """Build the levels of ``cluster``; a single device has one level that nothing crosses."""
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
                latency=level.latency.value,
                efficiency=level.efficiency.value,
                kind=level.kind,
                in_network_reduction=level.in_network_reduction.value if level.in_network_reduction else 0.0,
            )
        )
        below_bandwidth = bandwidth
    if not levels:
        levels.append(NetworkLevel("device", 1.0, float("inf"), 0.0, 1.0))
    return Network(tuple(levels))


def _bandwidth(level: Level, devices_below: float, below: float) -> float:
    """Bandwidth per device: stated, or the interfaces its domain shares, or a taper of the level below."""
    if level.bandwidth is not None:
        return level.bandwidth.value
    if level.nics is not None:
        return level.nics.count.value * level.nics.bandwidth.value / devices_below
    if level.taper is not None:
        return level.taper.value * below
    return below
