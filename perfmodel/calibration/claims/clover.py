"""Acceptances that published speeds imply, and what else follows from them."""

from __future__ import annotations

from functools import partial
from typing import Any

from perfmodel.calibration.claims.run import Run

__all__ = ["gain_kept", "medusa_implied", "tokens_needed"]

CLOVER, OVER_MEDUSA = 2.46, 1.57
"""Published speeds on the large model: over one token after another, and over Medusa."""


def _speed(run: Run, plan: str, acceptance: float, **columns: Any) -> tuple[float, float]:
    """(tokens per second over those without drafts, tokens per pass) at an acceptance."""
    asked, plain = run.asked(plan), run.asked("plain")
    changes = {**asked.workload_changes, "acceptance": acceptance}
    found = run.evaluate(
        asked.model_copy(update={"workload_changes": changes, "columns": {**asked.columns, **columns}})
    )
    alone = run.evaluate(plain.model_copy(update={"columns": {**plain.columns, **columns}}))
    passes = found.timed_seconds / alone.timed_seconds
    return found.gain / passes, found.gain


def _needed(run: Run, plan: str, speed: float) -> float:
    """Acceptance at which a plan reaches a speed."""
    low, high, at = 0.0, 1.0, partial(_speed, run, plan)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if at(middle)[0] < speed else (low, middle)
    return 0.5 * (low + high)


def tokens_needed(run: Run, plan: str, speed: float) -> float:
    """Tokens per pass at which a plan reaches a speed."""
    return _speed(run, plan, _needed(run, plan, speed))[1]


def medusa_implied(run: Run) -> float:
    """Speed of Medusa where Clover reaches its own and is so much faster."""
    clover = _speed(run, "clover", _needed(run, "clover", CLOVER))[0]
    medusa = _needed(run, "medusa", clover / OVER_MEDUSA)
    return _speed(run, "medusa", medusa)[0]


def gain_kept(run: Run, batch: float) -> float:
    """Speed of Clover at a batch over that of one stream, at the acceptance of its published speed."""
    acceptance = _needed(run, "clover", CLOVER)
    return _speed(run, "clover", acceptance, batch=batch)[0] / _speed(run, "clover", acceptance)[0]
