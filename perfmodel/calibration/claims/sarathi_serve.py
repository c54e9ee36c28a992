"""Budget and capacity that the planner finds under a limit on the time between tokens."""

from __future__ import annotations

from functools import cache

from perfmodel.calibration.claims.run import Run
from perfmodel.solver.result import EvaluatedPlan

__all__ = ["budget", "gain"]


@cache
def _best(run: Run, limit: str, *chunks: int) -> EvaluatedPlan:
    asked = run.claim.common
    changes = {**asked.workload_changes, "slo": {"tbt_p99": limit, "ttft_p99": "10 s"}}
    found = run.solve(asked.model_copy(update={"workload_changes": changes}), chunk=list(chunks))
    if found is None:
        raise ValueError(f"no plan keeps {limit}")
    return found


def budget(run: Run, limit: str) -> float:
    """Prompt tokens of a pass, of the two that were tried."""
    return float(_best(run, limit, 512, 2048).columns["chunk"])


def gain(run: Run, limit: str) -> float:
    """Requests per second with chunks over those with whole prompts."""
    cut, whole = (_best(run, limit, *chunks).metrics["requests_per_second"] or 0.0 for chunks in ((512, 2048), (0,)))
    return cut / whole
