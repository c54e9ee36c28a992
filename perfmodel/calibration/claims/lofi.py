"""Fine-tuning without communication: one model per run, and what the step no longer waits for."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["models_sent", "speed_up"]


def models_sent(run: Run) -> float:
    """Averages of the whole run over one exchange of the model, as a synchronous step of plain averaging makes."""
    steps = float(run.asked("merged").columns["local_steps"])
    return run.busy("merged", "outer sync") * steps / run.busy("every_step", "outer sync")


def speed_up(run: Run) -> float:
    """Speed over synchronous training, divided by one plus exposed communication over the rest of the step."""
    synchronous, merged = run.plan("synchronous"), run.plan("merged")
    waiting = run.exposed("synchronous", "gradient sync")
    return synchronous.seconds / merged.seconds / (1.0 + waiting / (synchronous.seconds - waiting))
