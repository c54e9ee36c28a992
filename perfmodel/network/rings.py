"""Rings over the direct links of a node, where links are unequal: the best single one, and the best set of them.

A library sends pieces along several rings at once. Which set moves most is a linear programme: the rate of every ring
through all devices is a variable, the links bound the sum of the rings that use them, each way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise, permutations

from perfmodel.errors import SpecError
from perfmodel.units import BytesPerSecond

__all__ = ["MOST_DEVICES", "best_ring", "rings", "rings_bandwidth"]

MOST_DEVICES = 8
"""Devices of a graph whose rings are enumerated: 2,520 of them."""

Links = tuple[tuple[int, int, float], ...]
"""(device, device, bandwidth each way [B/s]) of every link."""


def rings(links: Links) -> Iterator[tuple[frozenset[int], ...]]:
    """Every ring through all devices, as its links; one of both directions."""
    known = {frozenset(link[:2]) for link in links}
    first, *others = sorted({end for link in known for end in link})
    for order in permutations(others):
        if order[0] > order[-1] and len(order) > 1:
            continue
        path = (first, *order, first)
        used = tuple(frozenset(pair) for pair in pairwise(path))
        if all(link in known for link in used):
            yield used


def best_ring(links: Links) -> BytesPerSecond:
    """Bandwidth of the widest single ring, one way: that of its narrowest link [B/s]; 0 where there is no ring."""
    width = _widths(links)
    return max((min(width[link] for link in ring) for ring in rings(links)), default=0.0)


@lru_cache(maxsize=64)
def rings_bandwidth(links: Links) -> BytesPerSecond:
    """What leaves a device at most along rings, all of them and both ways together [B/s].

    Raises
    ------
    SpecError
        If no ring passes all devices.
    """
    from scipy.optimize import linprog
    from scipy.sparse import lil_matrix

    width, found = _widths(links), list(rings(links))
    if not found:
        raise SpecError("no ring over these links passes all devices", field="graph", allowed="or give the bandwidth")
    row = {link: i for i, link in enumerate(width)}
    uses = lil_matrix((len(row), len(found)))
    for column, ring in enumerate(found):
        for link in ring:
            uses[row[link], column] += 1.0
    largest = max(width.values())
    limits = [w / largest for w in width.values()]
    solved = linprog([-1.0] * len(found), A_ub=uses.tocsr(), b_ub=limits, method="highs")
    return 2.0 * float(-solved.fun) * largest


def _widths(links: Links) -> Mapping[frozenset[int], float]:
    return {frozenset((a, b)): bandwidth for a, b, bandwidth in links}
