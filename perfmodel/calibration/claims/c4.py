"""Share of the time that failures cost."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["downtime_after", "downtime_before"]


def _downtime(run: Run, name: str) -> float:
    """Repairs and work done twice, checkpoints apart [%]."""
    found = run.plan(name).interruptions or {}
    return 100.0 * (found["repair_share"] + found["redo_share"])


def downtime_before(run: Run) -> float:
    """Faults searched for by hand."""
    return _downtime(run, "before")


def downtime_after(run: Run) -> float:
    """Faults found by watching communication."""
    return _downtime(run, "after")
