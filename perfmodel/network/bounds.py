r"""What no algorithm and no library goes below on a network of levels.

Notation as in :mod:`perfmodel.network.algorithms`, with the full bandwidth :math:`b_l`, and with the quickest step that
the library has anywhere.

References
----------
.. [1] E. Chan et al., "Collective communication: theory, practice, and experience", CCPE 19(13), 2007.
"""

from __future__ import annotations

from perfmodel.elementwise import Scalar, log2, maximum, minimum, where
from perfmodel.network.library import IDEAL
from perfmodel.network.topology import Group, Network, NetworkLevel
from perfmodel.units import Bytes, Seconds

__all__ = [
    "all_gather_bound",
    "all_reduce_bound",
    "all_to_all_bound",
    "broadcast_bound",
    "least_step",
    "neighbour_bound",
    "sends_to_all",
]


def least_step(network: Network) -> Scalar:
    """Share of a level's latency that the quickest step of the library takes [1]."""
    return minimum((network.library or IDEAL).least_step(), 1.0)


def sends_to_all(network: Network) -> bool:
    """Whether ranks send to all others at once by what the library states: where latency is the length of the way."""
    return network.library is not None and "star" in network.library.protocols


def _least_latency(network: Network, group: Group) -> Seconds:
    r"""Data of one rank reaches all in no fewer than :math:`\log_2 n` of the quickest messages [s].

    A library with stars sends to all at once, as where latency is the length of the way: one message is the least.
    """
    quickest: Scalar = float("inf")
    for level, below, members in _levels(network, group):
        quickest = minimum(quickest, where(members > below, level.latency, float("inf")))
    rounds = minimum(log2(group.size), 1.0) if sends_to_all(network) else log2(group.size)
    return where(group.size > 1.0, rounds * minimum(quickest, 1e30) * least_step(network), 0.0)


def _levels(network: Network, group: Group) -> list[tuple[NetworkLevel, Scalar, Scalar]]:
    """(level, members of a domain below, members of a domain) nearest first."""
    return list(zip(network.levels, (1.0, *group.members[:-1]), group.members, strict=True))


def _least_transfer(network: Network, group: Group, result: Bytes) -> Seconds:
    """Every domain must receive what it lacks through the links it has [s]."""
    bound: Scalar = 0.0
    for level, below, members in _levels(network, group):
        need = result * (1.0 - below / group.size) / (below * level.bandwidth)
        bound = maximum(bound, where(members > below, need, 0.0))
    return bound


def all_gather_bound(network: Network, group: Group, result: Bytes) -> Seconds:
    r"""No algorithm is faster: every domain must receive what it lacks through the links it has [s].

    .. math:: \max_l \frac{V (1 - m_{l-1}/n)}{m_{l-1} b_l}\quad\text{and}\quad \log_2 n\;\alpha_{\min}
    """
    return maximum(_least_transfer(network, group, result), _least_latency(network, group))


def all_reduce_bound(network: Network, group: Group, size: Bytes) -> Seconds:
    r"""Each domain must send what it contributes and receive what it lacks: twice the transfer of an all-gather [s].

    In-network reduction halves it, and one message is enough: each device sends its data once and receives the sum.
    """
    adding = any(level.in_network_reduction for level in network.levels)
    transfer = (1.0 if adding else 2.0) * _least_transfer(network, group, size)
    latency = _least_latency(network, group)
    bound = maximum(transfer, latency / maximum(log2(group.size), 1.0) if adding else latency)
    return bound if network.sums is None else minimum(bound, all_reduce_bound(network.sums, group, size))


def all_to_all_bound(network: Network, group: Group, size: Bytes) -> Seconds:
    r"""Each rank sends across every level what is meant for ranks outside its domain of the level below [s].

    .. math:: \max_l \frac{V (n - m_{l-1})}{n\, b_l}\quad\text{and}\quad \log_2 n\;\alpha_{\min}
    """
    bound = _least_latency(network, group)
    for level, below, members in _levels(network, group):
        leaving = size * (group.size - below) / group.size / level.bandwidth
        bound = maximum(bound, where(members > below, leaving, 0.0))
    return bound


def broadcast_bound(network: Network, group: Group, size: Bytes) -> Seconds:
    r"""Every domain but that of the root must receive all there is through the links it has [s].

    .. math:: \max_l \frac{V}{m_{l-1} b_l}\quad\text{and}\quad \log_2 n\;\alpha_{\min}
    """
    bound = _least_latency(network, group)
    for level, below, members in _levels(network, group):
        bound = maximum(bound, where(members > below, size / (below * level.bandwidth), 0.0))
    return bound


def neighbour_bound(network: Network, group: Group, size: Bytes) -> Seconds:
    """Every rank sends ``size`` bytes to its successor, those at a border over the level that it is of [s]."""
    bound: Scalar = 0.0
    step = least_step(network)
    for level, below, members in _levels(network, group):
        message = maximum(size / level.bandwidth, level.latency * step)
        bound = maximum(bound, where(members > below, message, 0.0))
    return bound
