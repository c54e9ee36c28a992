r"""Load of the fullest path when flows leave a leaf over equal paths, and what it leaves of the bandwidth.

``F`` equal flows over ``S`` paths would ideally load each with :math:`F/S`. A collective ends with its last flow, so
the fullest path decides: the bandwidth that remains is the ideal load over the expected largest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

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

    Exact: the chance that no path holds more than k is the coefficient

    .. math:: P(\max \le k) = \frac{F!}{S^F}\,[x^F]\Big(\sum_{j \le k} x^j / j!\Big)^S

    and :math:`E[\max] = \sum_k P(\max > k)`.
    """
    expected = 0.0
    for most in range(flows):
        expected += 1.0 - _no_more_than(most, flows, paths)
    return expected


def _no_more_than(most: int, flows: int, paths: int) -> float:
    """Chance that no path holds more than ``most`` flows."""
    if most * paths < flows:
        return 0.0
    one = [Fraction(1, math.factorial(j)) for j in range(min(most, flows) + 1)]
    power, base, left = [Fraction(1)], one, paths
    while left:
        if left & 1:
            power = _times(power, base, flows)
        base, left = _times(base, base, flows), left >> 1
    chance = power[flows] * math.factorial(flows) / Fraction(paths) ** flows if len(power) > flows else Fraction(0)
    return float(chance)


def _times(a: list[Fraction], b: list[Fraction], degree: int) -> list[Fraction]:
    """Product of two polynomials up to a degree."""
    result = [Fraction(0)] * min(len(a) + len(b) - 1, degree + 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b[: len(result) - i]):
            result[i + j] += x * y
    return result


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
