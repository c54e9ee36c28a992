"""Share of the time that failures cost, and what flows on the same path do."""

from __future__ import annotations

from perfmodel.calibration.claims.packet_spraying import routed
from perfmodel.calibration.claims.run import Run

__all__ = ["congestion", "downtime_after", "downtime_before", "gap"]

FLOWS, PATHS = 64, 16


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


def congestion(run: Run) -> float:
    """Step with flows hashed to paths over the step with planned ones."""
    hashed, planned = (routed(run, routing, FLOWS, PATHS, "traffic").seconds for routing in ("ecmp", "split"))
    return hashed / planned


def gap(run: Run) -> float:
    """Share of the hashed step in which nothing is computed because of communication [%]."""
    plan = routed(run, "ecmp", FLOWS, PATHS, "traffic")
    return 100.0 * sum(row.seconds for row in plan.terms if row.resource == "network") / plan.seconds
