"""Bits of block floating-point caches, and the cache of a plan."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.formats import mean_head, stored_bytes
from perfmodel.specs.number_formats import cache_format

__all__ = ["bits", "footprint"]


def bits(run: Run, format: str) -> float:
    """Stored bits per cached number."""
    architecture = run.estimate(run.asked("plain")).model.architecture
    return float(8.0 * stored_bytes(cache_format(format), mean_head(architecture)))


def footprint(run: Run, packed: str) -> float:
    """Cache of the plain plan over that of a packed one."""

    def cache(plan: str) -> float:
        return sum(line.bytes for line in run.plan(plan).ledgers[0].lines if line.name == "KV cache")

    return cache("plain") / cache(packed)
