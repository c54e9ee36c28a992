"""Topology as data: levels, and groups of ranks described by how many members share a domain of each level."""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, clamp, floor, maximum, minimum, where
from perfmodel.network.library import Library
from perfmodel.units import BytesPerSecond, Seconds

__all__ = [
    "Dim",
    "Group",
    "Network",
    "NetworkLevel",
    "device_links",
    "group_along",
    "on_device_links",
    "one_level",
    "replicas",
    "subgroup",
]


class NetworkLevel(NamedTuple):
    """One topology level.

    Parameters
    ----------
    name : as the cluster file calls it.
    reach : devices inside one domain of this level.
    bandwidth : per device and direction, usable by all devices at once [B/s].
    latency : one message between neighbours of this level [s].
    efficiency : share of ``bandwidth`` that large collectives reach [1].
    kind : package, scaleup, nic, fabric or wan.
    in_network_reduction : share of ``bandwidth`` that all-reduces reach where switches add, else 0 [1].
    crowding : how much longer a stored piece takes over this level than its latency alone tells [1].
    rails : 1 where only devices of equal place in their domains are joined, others being reached through them, else 0.
    occupancy : time by which every message that each device sends at once keeps the interfaces busy beside its bytes:
        devices that share an interface wait for each other [s].
    """

    name: str
    reach: Scalar
    bandwidth: BytesPerSecond
    latency: Seconds
    efficiency: Scalar
    kind: str = "scaleup"
    in_network_reduction: Scalar = 0.0
    crowding: Scalar = 1.0
    rails: Scalar = 0.0
    occupancy: Seconds = 0.0


class Network(NamedTuple):
    """Levels, nearest first; whether gathers go along rings only; the library that runs collectives on them.

    ``sums`` is the network as another library sees it that may run all-reduces whose ranks share device links;
    ``overlapping`` rings run on all levels at the same time.
    """

    levels: tuple[NetworkLevel, ...]
    ring_only: bool = False
    library: Library | None = None
    sums: Network | None = None
    overlapping: bool = False

    def in_job(self, share: float, *, ring_only: bool = False) -> Network:
        """The same network as a job's library uses it: ``share`` of the efficiency of collectives run alone."""
        levels = tuple(level._replace(efficiency=level.efficiency * share) for level in self.levels)
        return self._replace(levels=levels, ring_only=ring_only)


class Dim(NamedTuple):
    """One way of laying ranks out; a technique that adds ranks declares it.

    Parameters
    ----------
    name : of the dimension.
    degree : ranks along it.
    splits : states it divides: ``weights``, ``experts``, ``layers``, ``batch``, ``tokens``, ``sequence``, ``kv``.
    near : placement; small is inside the node.
    synchronous : ``False`` when its replicas drift apart (regions that train locally).
    """

    name: str
    degree: Scalar
    splits: frozenset[str]
    near: float
    synchronous: bool = True


class Group(NamedTuple):
    """Ranks that communicate: members inside one domain of each level, nearest first; the last is the size."""

    members: tuple[Scalar, ...]

    @property
    def size(self) -> Scalar:
        """Number of ranks."""
        return self.members[-1]


def device_links(network: Network, group: Group) -> Scalar:
    """Ranks of a group in one domain of device links; 1 where there are none."""
    near = [m for level, m in zip(network.levels, group.members, strict=True) if level.kind in ("package", "scaleup")]
    return near[-1] if near else 1.0


def on_device_links(network: Network, group: Group) -> Scalar:
    """Whether all ranks of a group lie in one domain of device links [0 or 1]."""
    if not any(level.kind in ("package", "scaleup") for level in network.levels):
        return 0.0
    return where(device_links(network, group) >= group.size, 1.0, 0.0)


def group_along(network: Network, dims: tuple[Dim, ...], names: frozenset[str]) -> Group:
    """Group of the ranks that differ only along the dims in ``names``.

    The stride of a dim is the product of the degrees nearer than it; inside a domain of ``reach`` devices lie
    ``clamp(reach / stride, 1, degree)`` of its ranks.
    """
    ordered = sorted(dims, key=lambda d: d.near)
    members: list[Scalar] = [1.0] * len(network.levels)
    stride: Scalar = 1.0
    size: Scalar = 1.0
    for dim in ordered:
        if dim.name in names:
            for i, level in enumerate(network.levels):
                members[i] = members[i] * clamp(floor(level.reach / stride), 1.0, dim.degree)
            size = size * dim.degree
        stride = stride * dim.degree
    return Group((*members[:-1], size)) if members else Group((size,))


def subgroup(group: Group, size: Scalar, skip: Scalar = 1.0) -> Group:
    """The ``size`` nearest ranks of ``group``, taking one of every ``skip`` nearest.

    A sharding over 64 ranks whose 8 nearest already hold the same sum communicates among ``subgroup(group, 64, 8)``.
    """
    size = minimum(size, group.size)
    skip = minimum(skip, size)
    return Group(tuple(maximum(minimum(m, size) / skip, 1.0) for m in group.members))


def one_level(group: Group, level: int) -> Group:
    """One rank of each of the domains that a level joins: the ranks of a group that an exchange step over it joins."""
    below = group.members[level - 1] if level else 1.0
    joined = group.members[level] / below
    return Group((*(1.0 for _ in group.members[:level]), *(joined for _ in group.members[level:])))


def replicas(network: Network, dims: tuple[Dim, ...], *states: str) -> Group:
    """Replica group: the synchronous dims that split neither one of the states nor the layers they belong to."""
    names = frozenset(d.name for d in dims if d.synchronous and not d.splits & {*states, "layers"})
    return group_along(network, dims, names)
