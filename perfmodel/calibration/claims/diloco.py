"""Communication that local steps save."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["reduction"]


def reduction(run: Run) -> float:
    """Gradient exchange between regions per synchronous step over the outer exchange per local step."""

    def busy(plan: str, term: str) -> float:
        return sum(row.busy_seconds for row in run.plan(plan).terms if row.name == term)

    between = busy("synchronous", "gradient sync") - busy("one_region", "gradient sync")
    return between / busy("local", "outer sync")
