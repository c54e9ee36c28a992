"""Time of table look-ups: words from the banks of a unit's own memory, or sectors from the cache that units share."""

from __future__ import annotations

from perfmodel.elementwise import Scalar, ceil
from perfmodel.machine.engine import Engine
from perfmodel.units import Bytes, Seconds

__all__ = ["lookup_time"]

WORD = 4.0
"""Bytes that a bank delivers at a time [B]."""
LANES_PER_BANK = 4.0
"""Lanes of a unit per bank of its memory: 128 beside 32 (Ampere's smaller chips, Ada, Hopper); 64 on A100."""
SECTOR = 32.0
"""Bytes that the shared cache delivers at least [B]."""
CACHE_RATIO = 2.5
"""Bandwidth of the shared cache over that of the memory behind it; A100 and H100 in public microbenchmarks, assumed."""


def lookup_time(engine: Engine, lookups: Scalar, entry: Bytes, table: Bytes) -> Seconds:
    """Seconds of so many look-ups of ``entry`` bytes in a table of ``table`` bytes.

    A table that fits the memory of one unit is copied there: each look-up takes its words from the banks, one per bank
    and clock. A larger one stays in the cache that all units share, and each look-up moves whole sectors.
    """
    nearest = engine.memories[0]
    if len(engine.memories) > 2 and table <= nearest.capacity / nearest.parts:
        clocks_of_lanes = ceil(entry / WORD) * LANES_PER_BANK
        return 2.0 * lookups * clocks_of_lanes / engine.vector_peak()
    return lookups * SECTOR * ceil(entry / SECTOR) / (CACHE_RATIO * engine.bandwidth)
