"""Regimes of exact attention over the size of the fast memory."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.insight import problems
from perfmodel.operators.bounds.attention import attention_order

__all__ = ["gap_ratio", "order", "regime_switch"]

TOKENS = 2**20
WIDTH = 128


def regime_switch(run: Run) -> float:
    """Smallest memory, in powers of two from 2^10 to 2^20, whose regime is tiles of whole rows."""
    del run
    problem = problems.attention(TOKENS, WIDTH)
    return next(2.0**e for e in range(10, 21) if "whole rows" in problem.regime(2.0**e, 1.0))


def order(run: Run, fast: float) -> float:
    """The order of the traffic over N^2."""
    del run
    return float(attention_order(float(TOKENS), float(WIDTH), fast) / TOKENS**2)


def _gap(algorithm: str, exponent: int) -> float:
    problem = problems.attention(TOKENS, WIDTH)
    moved = problem.algorithms[algorithm](2.0**exponent)
    return float("inf") if moved is None else moved / problem.bound(2.0**exponent, 1.0)


def gap_ratio(run: Run, first: str, first_exponent: int, second: str, second_exponent: int) -> float:
    """Gap of one algorithm at 2^exponent elements over that of another."""
    del run
    return _gap(first, first_exponent) / _gap(second, second_exponent)
