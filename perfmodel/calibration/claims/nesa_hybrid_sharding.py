"""Tokens and throughput of a pipeline over a wide network."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.solver.result import EvaluatedPlan

__all__ = ["added", "added_ratio", "throughput"]

MORE = 0.1
"""Latency that is added to every link [s]."""
SHARDS = 8.0


def _plan(run: Run, batch: float, latency: float) -> EvaluatedPlan:
    asked = run.claim.common
    changed = asked.model_copy(update={"columns": {**asked.columns, "batch": batch}})
    return run.evaluate(changed, changes={"levels.home.latency": f"{latency} s"})


def added(run: Run, batch: float) -> float:
    """Time that the latency adds to a pass of all shards, over as many latencies as there are shards."""
    near, far = (_plan(run, batch, 0.004 + more).timed_seconds for more in (0.0, MORE))
    return (far - near) / (SHARDS * MORE)


def added_ratio(run: Run, batch: float) -> float:
    """The same for a batch over that of eight requests."""
    return added(run, batch) / added(run, SHARDS)


def throughput(run: Run, batch: float) -> float:
    """Tokens per second of a batch over those of eight requests, far apart."""
    many, few = (_plan(run, b, 0.004 + MORE).metrics["output_tokens_per_second"] or 0.0 for b in (batch, SHARDS))
    return many / few
