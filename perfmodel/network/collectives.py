r"""Collectives over a group of ranks on a network of levels.

Notation: a group has :math:`m_l` members inside one domain of level l (:math:`m_0 = 1`, :math:`m_L = n`) and
:math:`n_l = m_l/m_{l-1}` domains to join there; each device drives bandwidth :math:`b_l` at level l, already
shared with every other device, so groups that run side by side do not disturb each other.

Each collective takes the cheapest of its algorithms, as communication libraries do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from perfmodel.elementwise import Scalar, log2, maximum, minimum, where
from perfmodel.network.topology import Group, Network
from perfmodel.units import Bytes, Seconds

__all__ = [
    "ALGORITHMS",
    "all_gather",
    "all_gather_bound",
    "all_reduce",
    "all_reduce_bound",
    "all_to_all",
    "all_to_all_bound",
    "broadcast",
    "gather_lines",
    "gather_time",
    "point_to_point",
    "reduce_scatter",
]


def _steps(group: Group) -> tuple[tuple[Scalar, Scalar], ...]:
    """(members below, domains joined) for every level."""
    below = (1.0, *group.members[:-1])
    return tuple((b, m / b) for b, m in zip(below, group.members, strict=True))


def _ring_rate(network: Network, group: Group) -> Scalar:
    """Bandwidth of one ring through the whole group: the narrowest level it crosses [B/s]."""
    rate: Scalar = float("inf")
    for level, (below, joined) in zip(network.levels, _steps(group), strict=True):
        rate = minimum(rate, where(joined > 1.0, below * level.bandwidth * level.efficiency, float("inf")))
    return rate


class Line(NamedTuple):
    """Time of a collective over one group as a function of its size: ``start + size * slope`` [s, s/B]."""

    start: Seconds
    slope: Scalar

    def seconds(self, size: Bytes) -> Seconds:
        """Time for ``size`` bytes [s]."""
        return self.start + size * self.slope


def _ring_line(network: Network, group: Group) -> Line:
    r"""One ring through all ranks: :math:`(n-1)\alpha + \frac{n-1}{n} V / \min_l m_{l-1} b_l`."""
    latency: Scalar = 0.0
    rate: Scalar = float("inf")
    for level, (below, joined) in zip(network.levels, _steps(group), strict=True):
        crossed = joined > 1.0
        latency = maximum(latency, where(crossed, level.latency, 0.0))
        rate = minimum(rate, where(crossed, below * (level.bandwidth * level.efficiency), float("inf")))
    hops = group.size - 1.0
    return Line(hops * latency, hops / (group.size * rate))


def _hierarchical_line(network: Network, group: Group) -> Line:
    r"""Outermost level first on the smallest shards: :math:`\sum_l (n_l-1)(\alpha_l + V / (m_l b_l))`."""
    start: Scalar = 0.0
    slope: Scalar = 0.0
    for level, members, (_, joined) in zip(network.levels, group.members, _steps(group), strict=True):
        hops = joined - 1.0
        start = start + hops * level.latency
        slope = slope + hops / (members * (level.bandwidth * level.efficiency))
    return Line(start, slope)


def ring_all_gather(network: Network, group: Group, result: Bytes) -> Seconds:
    """All-gather along one ring through all ranks [s]."""
    return _ring_line(network, group).seconds(result)


def hierarchical_all_gather(network: Network, group: Group, result: Bytes) -> Seconds:
    """All-gather level by level, outermost first [s]."""
    return _hierarchical_line(network, group).seconds(result)


def gather_lines(network: Network, group: Group) -> tuple[Line, ...]:
    """Lines of the all-gather algorithms that the library has; :func:`gather_time` takes the cheapest at a size."""
    ring = _ring_line(network, group)
    return (ring,) if network.ring_only else (ring, _hierarchical_line(network, group))


def gather_time(lines: tuple[Line, ...], result: Bytes) -> Seconds:
    """All-gather of ``result`` bytes, or its mirror image, a reduce-scatter, over the group the lines belong to [s]."""
    return minimum(*(line.seconds(result) for line in lines))


def tree_all_reduce(network: Network, group: Group, size: Bytes) -> Seconds:
    r"""Double binary tree: :math:`2\sum_l \log_2(n_l)\,\alpha_l + 2V/\min_l m_{l-1} b_l`."""
    latency: Scalar = 0.0
    for level, (_, joined) in zip(network.levels, _steps(group), strict=True):
        latency = latency + log2(joined) * level.latency
    return 2.0 * latency + 2.0 * size / _ring_rate(network, group)


def in_network_all_reduce(network: Network, group: Group, size: Bytes) -> Seconds:
    r"""Switches add, so each rank sends once and receives once: :math:`\sum_l 2\alpha_l + V/(m_{l-1} b_l)`.

    Infinite where the group crosses a level that does not add.
    """
    total: Scalar = 0.0
    for level, (below, joined) in zip(network.levels, _steps(group), strict=True):
        share = level.in_network_reduction
        adding = bool(share) if isinstance(share, (bool, int, float)) else True
        hop = 2.0 * level.latency + size / (below * level.bandwidth * share) if adding else float("inf")
        total = total + where(joined > 1.0, hop, 0.0)
    return total


def all_gather(network: Network, group: Group, result: Bytes) -> Seconds:
    """Time until every rank holds ``result`` bytes, of which each held ``result / n`` [s]."""
    return gather_time(gather_lines(network, group), result)


def reduce_scatter(network: Network, group: Group, size: Bytes) -> Seconds:
    """Time until each rank holds the sum of its share of ``size`` bytes; the mirror image of an all-gather [s]."""
    return all_gather(network, group, size)


def all_reduce(network: Network, group: Group, size: Bytes) -> Seconds:
    """Time until every rank holds the sum of ``size`` bytes [s]."""
    two_halves = 2.0 * all_gather(network, group, size)
    return minimum(two_halves, tree_all_reduce(network, group, size), in_network_all_reduce(network, group, size))


def all_to_all(network: Network, group: Group, size: Bytes) -> Seconds:
    r"""Pairwise exchange; each rank sends ``size`` bytes in all, ``size / n`` to every rank [s].

    What leaves a domain of level l-1 crosses level l: :math:`V (n - m_{l-1})/n / b_l`; the slowest level decides.
    """
    n = group.size
    slowest: Scalar = 0.0
    latency: Scalar = 0.0
    for level, (below, joined) in zip(network.levels, _steps(group), strict=True):
        leaving = where(joined > 1.0, size * (n - below) / n / (level.bandwidth * level.efficiency), 0.0)
        slowest = maximum(slowest, leaving)
        latency = latency + (joined - 1.0) * level.latency
    return slowest + latency


def broadcast(network: Network, group: Group, size: Bytes) -> Seconds:
    """Scatter and all-gather, or a tree for small sizes [s]."""
    latency: Scalar = 0.0
    for level, (_, joined) in zip(network.levels, _steps(group), strict=True):
        latency = latency + log2(joined) * level.latency
    tree = latency + log2(group.size) * size / _ring_rate(network, group)
    return minimum(tree, 2.0 * all_gather(network, group, size))


def point_to_point(network: Network, group: Group, size: Bytes) -> Seconds:
    """Every rank of ``group`` sends ``size`` bytes to its successor at the same time [s].

    Successors are ``size`` of the group apart, so the widest level that the group crosses decides.
    """
    seconds: Scalar = 0.0
    for level, (_, joined) in zip(network.levels, _steps(group), strict=True):
        hop = level.latency + size / (level.bandwidth * level.efficiency)
        seconds = maximum(seconds, where(joined > 1.0, hop, 0.0))
    return seconds


def _least_latency(network: Network, group: Group) -> Seconds:
    r"""Data of one rank reaches all in no fewer than :math:`\log_2 n` of the quickest messages [s]."""
    quickest: Scalar = float("inf")
    for level, (_, joined) in zip(network.levels, _steps(group), strict=True):
        quickest = minimum(quickest, where(joined > 1.0, level.latency, float("inf")))
    return where(group.size > 1.0, log2(group.size) * minimum(quickest, 1e30), 0.0)


def _least_transfer(network: Network, group: Group, result: Bytes) -> Seconds:
    """Every domain must receive what it lacks through the links it has [s]."""
    n = group.size
    bound: Scalar = 0.0
    for level, (below, joined) in zip(network.levels, _steps(group), strict=True):
        need = result * (1.0 - below / n) / (below * level.bandwidth)
        bound = maximum(bound, where(joined > 1.0, need, 0.0))
    return bound


def all_gather_bound(network: Network, group: Group, result: Bytes) -> Seconds:
    r"""No algorithm is faster: every domain must receive what it lacks through the links it has [s].

    .. math:: \max_l \frac{V (1 - m_{l-1}/n)}{m_{l-1} b_l}\quad\text{and}\quad \log_2 n\;\alpha_{\min}

    References
    ----------
    .. [1] E. Chan et al., "Collective communication: theory, practice, and experience", CCPE 19(13), 2007.
    """
    return maximum(_least_transfer(network, group, result), _least_latency(network, group))


def all_reduce_bound(network: Network, group: Group, size: Bytes) -> Seconds:
    r"""Each domain must send what it contributes and receive what it lacks: twice the transfer of an all-gather [s].

    In-network reduction halves it, and one message is enough: each device sends its data once and receives the sum.
    """
    adding = any(level.in_network_reduction for level in network.levels)
    transfer = (1.0 if adding else 2.0) * _least_transfer(network, group, size)
    latency = _least_latency(network, group)
    return maximum(transfer, latency / maximum(log2(group.size), 1.0) if adding else latency)


def all_to_all_bound(network: Network, group: Group, size: Bytes) -> Seconds:
    r"""Each rank sends across every level what is meant for ranks outside its domain of the level below [s].

    .. math:: \max_l \frac{V (n - m_{l-1})}{n\, b_l}\quad\text{and}\quad \log_2 n\;\alpha_{\min}
    """
    bound = _least_latency(network, group)
    for level, (below, joined) in zip(network.levels, _steps(group), strict=True):
        leaving = size * (group.size - below) / group.size / level.bandwidth
        bound = maximum(bound, where(joined > 1.0, leaving, 0.0))
    return bound


ALGORITHMS: dict[str, tuple[Callable[..., Seconds], ...]] = {
    "all_gather": (ring_all_gather, hierarchical_all_gather),
    "all_reduce": (tree_all_reduce,),
}
"""Algorithms by collective, for tests and reports."""
