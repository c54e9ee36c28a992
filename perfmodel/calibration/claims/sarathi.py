"""Cost of decoded tokens over prompt tokens."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["token_ratio"]


def token_ratio(run: Run, plan: str) -> float:
    """Time of a decode pass per sequence over time of a prefill per token."""
    found, asked = run.plan(plan), run.asked(plan)
    prefill = sum(row.seconds for row in (found.extra_terms or {})["prefill"])
    each = prefill / float(asked.workload_changes["prompt"])
    return found.timed_seconds / float(asked.columns["batch"]) / each
