"""Bytes of the cache, and bytes over the link of a drive, read from ledgers and terms."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.build import build_machine

__all__ = ["cache", "traffic_ratio"]


def cache(run: Run, plan: str) -> float:
    """Bytes of the KV cache wherever it lies [GB]."""
    return sum(line.bytes for line in run.plan(plan).ledgers[0].lines if line.name == "KV cache") / 1e9


def traffic_ratio(run: Run) -> float:
    """Cache streamed per pass over queries, keys, values and outputs that cross, per half a sequence [1]."""
    found = run.estimate(run.asked("inside"))
    machine = build_machine(found.system)
    streamed = run.busy("streamed", "cache from storage") * (machine.storage_read or 0.0)
    engine = machine.engine("csd")
    crossing = run.busy("inside", "to attention engine") * (engine.link or 0.0)
    lengths = run.asked("inside").workload_changes
    context = lengths["prompt"] + lengths["output"] / 2.0
    return float(streamed / crossing / (context / 2.0))
