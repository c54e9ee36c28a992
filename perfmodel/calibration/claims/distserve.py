"""Passes of OPT-13B, and the pools that the planner takes."""

from __future__ import annotations

from functools import cache

import perfmodel
from perfmodel.calibration.claims.run import Run
from perfmodel.solver.result import EvaluatedPlan

__all__ = ["decode_ms", "goodput", "prefill_ms", "ranks"]

SERVICE = {"prompt": 755, "output": 200, "slo": {"ttft": "200 ms", "tpot": "100 ms", "percentile": 90}}


def prefill_ms(run: Run, plan: str, fixed_ms: float = 0.0) -> float:
    """Prefill of one prompt, and what software spends on a pass beside its kernels [ms]."""
    return sum(row.seconds for row in (run.plan(plan).extra_terms or {})["prefill"]) * 1e3 + fixed_ms


def decode_ms(run: Run, plan: str) -> float:
    """One decode pass [ms]."""
    return run.plan(plan).timed_seconds * 1e3


@cache
def _service(run: Run) -> EvaluatedPlan:
    asked = run.claim.common
    found = perfmodel.plan(
        str(asked.model), str(asked.hw), "chat", devices=4, pools="apart", framework="eager-2023",
        workload_changes=SERVICE,
    ).answers[0].best  # fmt: skip
    if found is None or found.pools is None:
        raise ValueError("no pair of pools keeps the limits")
    return found


def ranks(run: Run, pool: str) -> float:
    """Devices of a replica of a pool."""
    return float((_service(run).pools or {})[pool].metrics["devices_per_replica"] or 0.0)


def goodput(run: Run) -> float:
    """Requests per second and device."""
    found = _service(run)
    return (found.metrics["requests_per_second"] or 0.0) / found.devices
