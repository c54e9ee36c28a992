r"""Critical path and transfer of collective algorithms on a network of levels.

Notation: a group has :math:`m_l` members inside one domain of level l (:math:`m_0 = 1`, :math:`m_L = n`), so
:math:`n_l = m_l/m_{l-1}` domains are joined there; each device drives bandwidth :math:`b_l e_l` at level l, already
shared with every other device. All ranks of a domain take part in crossing its border (rails, several rings), so
a domain crosses at :math:`m_{l-1} b_l e_l`, and groups that run side by side do not disturb each other.

References
----------
.. [1] E. Chan et al., "Collective communication: theory, practice, and experience", CCPE 19(13), 2007.
.. [2] P. Sanders, J. Speck, J. L. Traeff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan",
   Parallel Computing 35(12), 2009.
.. [3] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH",
   IJHPCA 19(1), 2005.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from perfmodel.elementwise import Scalar, ceil, log2, maximum, minimum, where
from perfmodel.network.library import Path
from perfmodel.network.topology import Group, Network, NetworkLevel

__all__ = ["OPERATIONS", "PATHS"]


def _crossings(network: Network, group: Group) -> Iterator[tuple[NetworkLevel, Scalar, Scalar, Scalar]]:
    """(level, members of a domain below, members of a domain, bandwidth reached per device) nearest first."""
    below: Scalar = 1.0
    for level, members in zip(network.levels, group.members, strict=True):
        yield level, below, members, level.bandwidth * level.efficiency
        below = members


def _path(
    group: Group, latency: Scalar, transfer: Scalar, stored: Scalar | None = None, occupied: Scalar = 0.0
) -> Path:
    return Path(latency, transfer, where(group.size > 1.0, 1.0, 0.0), latency if stored is None else stored, occupied)


def _ring(network: Network, group: Group, rounds: float) -> Path:
    latency: Scalar = 0.0
    rate: Scalar = float("inf")
    for level, below, members, reached in _crossings(network, group):
        crossed = members > below
        latency = maximum(latency, where(crossed, level.latency, 0.0))
        rate = minimum(rate, where(crossed, below * reached, float("inf")))
    steps = rounds * (group.size - 1.0)
    return _path(group, steps * latency, steps / (group.size * rate))


def ring(network: Network, group: Group) -> Path:
    r"""One round of rings: :math:`(n-1)\max_l \alpha_l` and :math:`\frac{n-1}{n} / \min_l m_{l-1} b_l e_l`.

    A step passes on what the step before brought, so each waits for the slowest edge of the ring.
    """
    return _ring(network, group, 1.0)


def ring_twice(network: Network, group: Group) -> Path:
    """Scatter the sums, then gather them, along the same ring."""
    return _ring(network, group, 2.0)


def both_ways(network: Network, group: Group) -> Path:
    r"""A ring each way, half of the data on either: :math:`\lceil (n-1)/2 \rceil` steps, the bytes of one ring."""
    path = _ring(network, group, 1.0)
    return path._replace(latency=_halved(group, path.latency), stored=_halved(group, path.stored))


def both_ways_twice(network: Network, group: Group) -> Path:
    """Scatter the sums, then gather them, along a ring each way."""
    path = _ring(network, group, 2.0)
    return path._replace(latency=_halved(group, path.latency), stored=_halved(group, path.stored))


def _halved(group: Group, latency: Scalar) -> Scalar:
    return latency * ceil((group.size - 1.0) / 2.0) / maximum(group.size - 1.0, 1.0)


def _by_levels(network: Network, group: Group, rounds: float, steps_of: Callable[[Scalar], Scalar]) -> Path:
    latency: Scalar = 0.0
    transfer: Scalar = 0.0
    least: Scalar = 0.0
    for level, below, members, reached in _crossings(network, group):
        joined = members / below
        latency = latency + steps_of(joined) * level.latency
        transfer = transfer + (joined - 1.0) / (members * reached)
        least = maximum(least, _lacking(group, below, members, reached))
    return _path(group, rounds * latency, rounds * maximum(transfer, least))


def _lacking(group: Group, below: Scalar, members: Scalar, reached: Scalar) -> Scalar:
    """Time per byte in which a domain gets what it lacks through its links, where the group crosses them [s/B]."""
    return where(members > below, (1.0 - below / group.size) / (below * reached), 0.0)


def hierarchical(network: Network, group: Group) -> Path:
    r"""A ring per level, the outermost first on the smallest shards.

    .. math:: \sum_l (n_l-1)\alpha_l\quad\text{and}\quad\sum_l (n_l-1)/(m_l b_l e_l)

    No less than what a domain lacks takes on its links, which counts where an outer level is faster than an inner one.
    """
    return _by_levels(network, group, 1.0, lambda joined: joined - 1.0)


def hierarchical_twice(network: Network, group: Group) -> Path:
    """Scatter the sums level by level, then gather them back."""
    return _by_levels(network, group, 2.0, lambda joined: joined - 1.0)


def overlapping(network: Network, group: Group) -> Path:
    r"""Rings of all levels at the same time, piece by piece: a level carries what a domain lacks and no more.

    .. math:: \sum_l (n_l-1)\alpha_l\quad\text{and}\quad\max_l (1 - m_{l-1}/n)/(m_{l-1} b_l e_l)

    A single ring carries :math:`1 - 1/n` over every border instead. With one level both are the same.

    References
    ----------
    .. [1] C. Wu et al. (HO-Ring), arXiv:2310.06003.
    """
    return _overlapping(network, group, 1.0)


def overlapping_twice(network: Network, group: Group) -> Path:
    """Scatter the sums, then gather them, along the rings of all levels."""
    return _overlapping(network, group, 2.0)


def _overlapping(network: Network, group: Group, rounds: float) -> Path:
    latency: Scalar = 0.0
    transfer: Scalar = 0.0
    for level, below, members, reached in _crossings(network, group):
        latency = latency + (members / below - 1.0) * level.latency
        transfer = maximum(transfer, _lacking(group, below, members, reached))
    return _path(group, rounds * latency, rounds * transfer)


def recursive(network: Network, group: Group) -> Path:
    r"""Recursive doubling, most data between near ranks: :math:`\sum_l \log_2(n_l)\,\alpha_l`.

    The transfer is that of :func:`hierarchical`.
    """
    return _by_levels(network, group, 1.0, log2)


def recursive_twice(network: Network, group: Group) -> Path:
    """Recursive halving, then doubling [3]_."""
    return _by_levels(network, group, 2.0, log2)


def tree(network: Network, group: Group) -> Path:
    r"""Double binary tree [2]_: :math:`2\sum_l \log_2(n_l)\,\alpha_l`.

    Every domain sends and receives :math:`2(1 - m_{l-1}/n)` of the data, half of it in either tree.
    """
    latency: Scalar = 0.0
    stored: Scalar = 0.0
    transfer: Scalar = 0.0
    for level, below, members, reached in _crossings(network, group):
        depth = log2(members / below) * level.latency
        latency, stored = latency + depth, stored + depth * level.crowding
        share = 2.0 * (1.0 - below / group.size) / (below * reached)
        transfer = maximum(transfer, where(members > below, share, 0.0))
    return _path(group, 2.0 * latency, transfer, 2.0 * stored)


def in_network(network: Network, group: Group) -> Path:
    r"""Switches add (NVLS, SHARP): each domain sends its data once and receives the sum.

    .. math:: \sum_l 2\alpha_l\quad\text{and}\quad\sum_l 1/(m_{l-1} b_l s_l)

    Infinite across a level that does not add.
    """
    latency: Scalar = 0.0
    transfer: Scalar = 0.0
    for level, below, members, _ in _crossings(network, group):
        crossed, share = members > below, level.in_network_reduction
        adding = bool(share) if isinstance(share, (bool, int, float)) else True
        cost = 1.0 / (below * level.bandwidth * share) if adding else float("inf")
        latency = latency + where(crossed, 2.0 * level.latency, 0.0)
        transfer = transfer + where(crossed, cost, 0.0)
    return _path(group, latency, transfer)


def _exchange(network: Network, group: Group, copies: Callable[[Scalar], Scalar], each: bool) -> Path:
    """All pairs at once: what leaves a domain crosses its level; the slowest level decides.

    Where a level joins rails only, what is meant for another rail is first handed to it over the level below. Messages
    of devices that share an interface follow each other.
    """
    latency: Scalar = 0.0
    transfer: Scalar = 0.0
    occupied: Scalar = 0.0
    near: Scalar = float("inf")
    for level, below, members, reached in _crossings(network, group):
        messages = (members - below) if each else members / below - 1.0
        latency = latency + messages * level.latency
        occupied = occupied + messages * level.occupancy
        hop = 1.0 / reached + level.rails * (1.0 - 1.0 / below) / near
        leaving, near = (group.size - below) / group.size * hop, reached
        transfer = maximum(transfer, where(members > below, leaving, 0.0))
    return _path(group, latency, copies(group.size) * transfer, occupied=occupied)


def by_level(network: Network, group: Group) -> Path:
    r"""Exchange gathered level by level: :math:`\sum_l (n_l - 1)\alpha_l`, :math:`\max_l (1 - m_{l-1}/n)/b_l e_l`."""
    return _exchange(network, group, lambda n: 1.0, each=False)


def pairwise(network: Network, group: Group) -> Path:
    """A message to every other rank: as :func:`by_level` with ``n - 1`` latencies."""
    return _exchange(network, group, lambda n: 1.0, each=True)


def one_shot(network: Network, group: Group) -> Path:
    """All-reduce in one step: every rank reads the data of all others and adds them itself."""
    return _exchange(network, group, lambda n: n, each=True)


def two_shot(network: Network, group: Group) -> Path:
    """All-reduce in two direct steps: every rank adds one share, then reads the others' sums."""
    path = pairwise(network, group)
    return path._replace(transfer=2.0 * path.transfer)


def star(network: Network, group: Group) -> Path:
    """All send to one rank at once, which adds and sends back: two messages, all bytes through its link.

    References
    ----------
    .. [1] Z. Li, W. Feng, M. Guizani, H. Yu, "TPI-LLM", arXiv:2410.00531.
    """
    latency: Scalar = 0.0
    transfer: Scalar = 0.0
    for level, below, members, reached in _crossings(network, group):
        crossed = members > below
        latency = maximum(latency, where(crossed, 2.0 * level.latency, 0.0))
        transfer = maximum(transfer, where(crossed, 2.0 * (group.size - below) / reached, 0.0))
    return _path(group, latency, transfer)


def broadcast_tree(network: Network, group: Group) -> Path:
    """Binomial tree of whole messages."""
    latency: Scalar = 0.0
    narrowest: Scalar = 0.0
    for level, below, members, reached in _crossings(network, group):
        latency = latency + log2(members / below) * level.latency
        narrowest = maximum(narrowest, where(members > below, 1.0 / (below * reached), 0.0))
    return _path(group, latency, log2(group.size) * narrowest)


def neighbour(network: Network, group: Group) -> Path:
    """Every rank sends to its successor at the same time; the slowest level that the group crosses decides."""
    latency: Scalar = 0.0
    transfer: Scalar = 0.0
    for level, below, members, reached in _crossings(network, group):
        crossed = members > below
        latency = maximum(latency, where(crossed, level.latency, 0.0))
        transfer = maximum(transfer, where(crossed, 1.0 / reached, 0.0))
    return _path(group, latency, transfer)


PATHS: Mapping[str, Callable[[Network, Group], Path]] = {
    "ring": ring,
    "ring_twice": ring_twice,
    "both_ways": both_ways,
    "both_ways_twice": both_ways_twice,
    "hierarchical": hierarchical,
    "hierarchical_twice": hierarchical_twice,
    "overlapping": overlapping,
    "overlapping_twice": overlapping_twice,
    "recursive": recursive,
    "recursive_twice": recursive_twice,
    "tree": tree,
    "in_network": in_network,
    "by_level": by_level,
    "pairwise": pairwise,
    "one_shot": one_shot,
    "two_shot": two_shot,
    "star": star,
    "broadcast_tree": broadcast_tree,
    "neighbour": neighbour,
}
"""Critical path and transfer by algorithm."""

OPERATIONS: Mapping[str, Mapping[str, str]] = {
    "all_gather": {
        "ring": "ring",
        "both_ways": "both_ways",
        "hierarchical": "hierarchical",
        "overlapping": "overlapping",
        "recursive": "recursive",
    },
    "all_reduce": {
        "ring": "ring_twice",
        "both_ways": "both_ways_twice",
        "hierarchical": "hierarchical_twice",
        "overlapping": "overlapping_twice",
        "recursive": "recursive_twice",
        "tree": "tree",
        "in_network": "in_network",
        "one_shot": "one_shot",
        "two_shot": "two_shot",
        "star": "star",
    },
    "all_to_all": {"by_level": "by_level", "pairwise": "pairwise"},
    "broadcast": {
        "broadcast_tree": "broadcast_tree",
        "ring": "ring_twice",
        "both_ways": "both_ways_twice",
        "hierarchical": "hierarchical_twice",
        "overlapping": "overlapping_twice",
        "recursive": "recursive_twice",
    },
    "point_to_point": {"neighbour": "neighbour"},
}
"""Paths that a collective may take, by the algorithm whose protocols run them. A reduce-scatter mirrors an all-gather;
a broadcast may scatter and gather."""
