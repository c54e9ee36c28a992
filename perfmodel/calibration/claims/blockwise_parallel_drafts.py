"""Block efficiency of drafts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from perfmodel.calibration.claims.run import Run
from perfmodel.solver.result import EvaluatedPlan

__all__ = ["formula", "least_growth", "longer"]


def _plan(run: Run, acceptance: float | None = None, **columns: Any) -> EvaluatedPlan:
    asked = run.asked("block")
    changes = asked.workload_changes if acceptance is None else {**asked.workload_changes, "acceptance": acceptance}
    return run.evaluate(asked.model_copy(update={"workload_changes": changes, "columns": {**asked.columns, **columns}}))


def formula(run: Run) -> float:
    """Tokens per pass over the sum of products."""
    return _plan(run).gain / sum(0.7**i for i in range(9))


def least_growth(run: Run) -> float:
    """Least growth of tokens per pass from one acceptance to the next."""
    gains = [_plan(run, i / 10.0).gain for i in range(11)]
    return min(b - a for a, b in pairwise(gains))


def longer(run: Run, batch: float) -> float:
    """Tokens per second of a decode pass with a block of 8 over those with one of 4."""
    long, short = (_plan(run, batch=batch, drafted=n) for n in (8, 4))
    return long.gain / long.timed_seconds * short.timed_seconds / short.gain
