"""Volumes that ranks of one sequence exchange."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["short_sequences", "volume_growth"]


def volume_growth(run: Run) -> float:
    """Time of the gather of states at 2048K tokens over that at 128K, on the same ranks."""

    def exchanged(tokens: int) -> float:
        shorter = {"sequence": tokens, "global_batch": tokens}
        plan = run.evaluate(run.asked("gather").model_copy(update={"workload_changes": shorter}))
        return sum(row.busy_seconds for row in plan.terms if row.name == "state exchange")

    return exchanged(2097152) / exchanged(131072)


def short_sequences(run: Run) -> float:
    """Step with a ring of tokens over the step with a gather of states, 2K tokens."""
    shorter = {"sequence": 2048, "global_batch": 2048}
    ring, gather = (
        run.evaluate(run.asked(name).model_copy(update={"workload_changes": shorter})).seconds
        for name in ("ring", "gather")
    )
    return ring / gather
