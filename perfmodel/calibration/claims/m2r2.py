"""Stalls of experts fetched ahead, and drafts by the first layers."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["bounded", "hidden", "law", "stall"]

AHEAD, DEMAND = "experts fetched ahead", "experts fetched on demand"
SHARE, DRAFTED = 0.125, 4.0


def _layers(run: Run, plan: str) -> float:
    """What a pass computes in its layers beside the fetching [s]."""
    found = {r.name: r.busy_seconds for r in run.plan(plan).terms if r.resource != "host cpu"}
    return sum(s for n, s in found.items() if n not in (AHEAD, DEMAND, "output head"))


def hidden(run: Run, plan: str) -> float:
    """Seconds by which fetching ahead lengthens a pass [s]."""
    return run.exposed(plan, AHEAD)


def stall(run: Run, plan: str) -> float:
    """The same over what fetching takes more than the layers."""
    more = run.metric(f"{plan}.pass_seconds") - run.metric("resident.pass_seconds")
    return run.exposed(plan, AHEAD) / more


def bounded(run: Run, ahead: str, demand: str) -> float:
    """Speed over fetching on demand, over (t + load) / t."""
    load = run.busy(demand, DEMAND)
    alone = run.metric(f"{demand}.pass_seconds") - load
    speed = run.metric(f"{demand}.pass_seconds") / run.metric(f"{ahead}.pass_seconds")
    return speed / ((alone + load) / alone)


def law(run: Run) -> float:
    """Speed over tokens per pass divided by drafts and verification as shares of a pass."""
    speed = run.metric("plain.tpot_seconds") / run.metric("drafts.tpot_seconds")
    return speed * (DRAFTED * SHARE + 1.0) / run.metric("drafts.tokens_per_pass")
