"""Shortest period that hides an asynchronous average, and what the line's bandwidth then matters."""

from __future__ import annotations

from functools import cache

from perfmodel.calibration.claims.run import Run

__all__ = ["blocking_efficiency", "efficiency_ratio", "least_period"]

FAST = {"levels.pod.nics.bandwidth": "100 Gb/s"}
"""800 Gb/s per node, by eight interfaces."""


@cache
def _period(run: Run, *, fast: bool, steps: int) -> tuple[float, float, float]:
    """Step without averaging, average, and what of it sticks out per step, at a period of so many steps [s]."""
    asked = run.asked("local")
    changes = {**asked.changes, **FAST} if fast else asked.changes
    plan = run.evaluate(asked.model_copy(update={"columns": {**asked.columns, "local_steps": steps}}), changes=changes)
    row = next(row for row in plan.terms if row.name == "outer sync")
    return plan.seconds - row.seconds, row.busy_seconds * steps, row.seconds


def _efficiency(run: Run, *, fast: bool, steps: int) -> float:
    step, _, exposed = _period(run, fast=fast, steps=steps)
    return step / (step + exposed)


def _least(run: Run) -> int:
    return next(h for h in range(1, 1000) if _efficiency(run, fast=False, steps=h) >= 1.0 - 1e-9)


def least_period(run: Run) -> float:
    """Shortest period at which nothing of the average shows, over the average divided by the step, rounded up."""
    step, average, _ = _period(run, fast=False, steps=1)
    return _least(run) / float(-(-average // step))


def efficiency_ratio(run: Run) -> float:
    """Efficiency at 80 over that at 800 Gb/s, with the period that the slower line needs."""
    steps = _least(run)
    return _efficiency(run, fast=False, steps=steps) / _efficiency(run, fast=True, steps=steps)


def blocking_efficiency(run: Run) -> float:
    """Step without its exchange of gradients and new weights over the step, synchronous at 80 Gb/s."""
    return 1.0 - run.exposed("synchronous", "gradient sync", "updated weights") / run.plan("synchronous").seconds
