r"""Load of the fullest path when flows leave a leaf over equal paths, and what it leaves of the bandwidth.

``F`` equal flows over ``S`` paths would ideally load each with :math:`F/S`. A collective ends with its last flow, so
the fullest path decides: the bandwidth that remains is the ideal load over the expected largest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from perfmodel.units import Fraction as Share

__all__ = ["ROUTES", "bandwidth_share", "hashed_load", "single_load", "split_factor", "split_load"]


def split_factor(flows: int, paths: int) -> int:
    """Fewest equal subflows per flow that fill all paths evenly: ``S / gcd(F, S)``."""
    return paths // math.gcd(flows, paths)


def single_load(flows: int, paths: int) -> float:
    r"""Largest load when planned flows stay whole: :math:`\lceil F/S \rceil` flows."""
    return float(-(-flows // paths))


def split_load(flows: int, paths: int) -> float:
    """Largest load when every flow is cut into the fewest subflows that spread evenly, in flows: the ideal."""
    pieces = split_factor(flows, paths)
    return single_load(flows * pieces, paths) / pieces


def hashed_load(flows: int, paths: int) -> float:
    r"""Expected largest load when a hash throws every flow on a path, in flows (ECMP).

    Path by path: of n flows left for s paths, j take the next one with the chance of a binomial of 1/s. So

    .. math:: P_s(n) = \sum_{j \le k} \binom{n}{j} s^{-j} (1 - 1/s)^{n-j}\,P_{s-1}(n - j),\quad
        E[\max] = \sum_k \big(1 - P_S(F)\big)

    with the chance :math:`P_S(F)` that no path holds more than k.
    """
    chances = [_binomials(flows, 1.0 / left) for left in range(2, paths + 1)]
    expected = 0.0
    for most in range(flows):
        within = (np.arange(flows + 1) <= most).astype(float)
        for chance in chances:
            total = np.zeros(flows + 1)
            for j in range(most + 1):
                total[j:] += chance[j:, j] * within[: flows + 1 - j]
            within = total
        expected += 1.0 - within[flows]
        if within[flows] >= 1.0 - 1e-15:
            break
    return float(expected)


def _binomials(most: int, chance: float) -> NDArray[np.float64]:
    """Chance of j successes in n trials, for n (rows) and j (columns) from 0 to ``most``."""
    table = np.zeros((most + 1, most + 1))
    table[0, 0] = 1.0
    for n in range(1, most + 1):
        table[n] = (1.0 - chance) * table[n - 1]
        table[n, 1:] += chance * table[n - 1, :-1]
    return table


def _spray_load(flows: int, paths: int) -> float:
    return flows / paths


ROUTES: dict[str, Callable[[int, int], float]] = {
    "spray": _spray_load,
    "split": split_load,
    "single": single_load,
    "ecmp": hashed_load,
}
"""Largest load in flows, by routing."""


@lru_cache(maxsize=256)
def bandwidth_share(routing: str, flows: int, paths: int) -> Share:
    """Share of the bandwidth that flows reach: ideal over largest load; fewer flows than paths fill one each."""
    ideal = max(flows / paths, 1.0) if routing != "spray" else flows / paths
    largest = ROUTES[routing](flows, paths)
    return min(1.0, ideal / largest) if largest else 1.0
