"""Training across clusters whose networks differ."""

from __future__ import annotations

from functools import lru_cache

import perfmodel
from perfmodel.calibration.claims.run import Run
from perfmodel.insight.fleet import FleetAnswer

__all__ = ["above_ethernet", "hybrid_over_roce", "pipeline_across"]


@lru_cache(maxsize=2)
def _fleet(batch: int, *pins: tuple[str, int]) -> FleetAnswer:
    changes = {"sequence": 2048, "global_batch": batch}
    return perfmodel.fleet("gpt-3.6b", "holmes-hybrid", pin=dict(pins), workload_changes=changes)


def _hybrid(run: Run) -> float:
    """Tokens/s per device with the degrees of the others: one stage on each cluster."""
    batch = int(run.claim.common.workload_changes["global_batch"])
    best = _fleet(batch, ("tp", 1), ("pp", 1), ("micro_batch", 4), ("sharded", 0)).best
    return best.metrics["tokens_per_second_per_device"] if best is not None else float("nan")


def above_ethernet(run: Run) -> float:
    """Whether two InfiniBand and two RoCE nodes are faster than four Ethernet nodes."""
    return float(_hybrid(run) > run.metric("ethernet4.tokens_per_second_per_device"))


def hybrid_over_roce(run: Run) -> float:
    """Speed per device of two InfiniBand and two RoCE nodes over four RoCE nodes."""
    return _hybrid(run) / run.metric("roce4.tokens_per_second_per_device")


def pipeline_across(run: Run) -> float:
    """Whether the solver, free to choose, puts the pipeline and not the replicas across the clusters."""
    best = _fleet(int(run.claim.common.workload_changes["global_batch"]), ("tp", 1), ("micro_batch", 4)).best
    return float(best is not None and best.kind == "pipeline")
