"""Best of the strategies that shard each state over nothing, the node or everything, against ZeRO-3."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["speed_up"]


def speed_up(run: Run, model: str, devices: int) -> float:
    """Throughput of the solver's choice over that of ZeRO-3, micro-batch and recomputation free in both."""
    batch = devices * 8 * 2048
    changes = {**run.asked().workload_changes, "global_batch": batch}
    asked = run.asked().model_copy(update={"model": model, "devices": devices, "workload_changes": changes})
    pins = {"tp": 1, "pp": 1, "cp": 1, "optimizer_host": 0}
    best = run.solve(asked, weights_group=[1, 8, "all"], gradients_group=[1, 8, "all"], **pins)
    zero3 = run.solve(asked, weights_group="all", secondary_group="all", gradients_group="all", **pins)
    if best is None or zero3 is None:
        return float("nan")
    return zero3.seconds / best.seconds
