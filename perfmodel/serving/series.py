"""Runs of iterations whose times are an arithmetic series."""

from __future__ import annotations

import math

__all__ = ["started", "whole_part"]

FOREVER = 1 << 60


def whole_part(value: float) -> int:
    """Whole part, within what an integer of the loop may be."""
    return int(value) if value < FOREVER else FOREVER


def started(window: float, first: float, slope: float, most: int) -> int:
    """How many of ``most`` iterations of ``first`` + j ``slope`` seconds start within ``window`` seconds, at least one.

    Examples
    --------
    >>> started(2.5, 1.0, 0.0, 10), started(2.0, 1.0, 0.0, 10), started(4.0, 1.0, 1.0, 10)
    (3, 2, 3)
    """
    if most * (first + 0.5 * slope * (most - 1)) <= window:
        return most
    if abs(slope) * most < 1e-9 * first:
        guess = window / first
    else:
        half = first - 0.5 * slope
        guess = (math.sqrt(max(half * half + 2.0 * slope * window, 0.0)) - half) / slope
    count = min(max(int(guess), 1), most)
    while count > 1 and (count - 1) * (first + 0.5 * slope * (count - 2)) >= window:
        count -= 1
    while count < most and count * (first + 0.5 * slope * (count - 1)) < window:
        count += 1
    return count
