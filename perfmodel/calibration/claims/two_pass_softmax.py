"""Traffic of softmax algorithms on a processor."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.insight import problems
from perfmodel.insight.bounds import bounds

__all__ = ["speedup", "transfers"]

LENGTH = 10**9
"""Elements; no cache holds them."""


def transfers(run: Run, algorithm: str) -> float:
    """Elements that cross to the last memory, per element of the vector."""
    found = bounds(problems.softmax(LENGTH), run.claim.machine, format="fp32")
    last = found.boundaries[-1]
    return last.algorithms[algorithm] / found.element_bytes / LENGTH


def speedup(run: Run, *, write_allocate: bool = False) -> float:
    """Best three-pass algorithm over two passes; a write-allocate cache reads each line of y before its first store."""
    fill = 1.0 if write_allocate else 0.0
    three = min(transfers(run, name) for name in ("three-pass, recomputing", "three-pass, reloading"))
    return (three + fill) / (transfers(run, "online or two-pass") + fill)
