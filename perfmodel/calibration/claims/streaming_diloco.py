"""Bandwidth between two regions that keeps computation at 95 % of the time, on the scale of the published table."""

from __future__ import annotations

from functools import cache

from perfmodel.calibration.claims.run import Run

__all__ = ["bits_saved", "falls_with_size", "streaming_1b", "streaming_100b", "synchronous_1b", "synchronous_100b"]

UTILISATION = 0.95
PUBLISHED_STEP = {"1b": (1e9, 0.1), "100b": (100e9, 5.69)}
"""Parameters and step seconds of the published simulation."""


@cache
def _required(run: Run, plan: str, size: str) -> float:
    """Bandwidth between the regions [Gb/s], scaled to the published parameters and step: it goes with their ratio."""
    asked = run.asked(f"{plan}_{size}")

    def exposed(gbits: float) -> tuple[float, float]:
        changes = {**asked.changes, "levels.wan.nics.bandwidth": f"{gbits:.6f} Gb/s"}
        plan = run.evaluate(asked, changes=changes)
        out = sum(row.seconds for row in plan.terms if row.name in ("gradient sync", "outer sync"))
        return plan.seconds - out, out

    inside = exposed(1e9)[1]  # what the links inside a region cost does not count
    low, high = 1e-3, 1e6
    while high / low > 1.0 + 1e-4:
        middle = (low * high) ** 0.5
        step, out = exposed(middle)
        if step / (step + out - inside) >= UTILISATION:
            high = middle
        else:
            low = middle
    parameters, seconds = PUBLISHED_STEP[size]
    step, _ = exposed(high)
    found = run.estimate(asked)
    achieved = high * found.system.cluster.levels["wan"].efficiency.value
    return achieved * (parameters / found.model.architecture.parameters) * (step / seconds)


def synchronous_1b(run: Run) -> float:
    """Gradients exchanged every step, 1B [Gb/s]."""
    return _required(run, "synchronous", "1b")


def synchronous_100b(run: Run) -> float:
    """Gradients exchanged every step, 100B [Gb/s]."""
    return _required(run, "synchronous", "100b")


def streaming_1b(run: Run) -> float:
    """Fragments in 4 bits, 1B [Gb/s]."""
    return _required(run, "streaming", "1b")


def streaming_100b(run: Run) -> float:
    """Fragments in 4 bits, 100B [Gb/s]."""
    return _required(run, "streaming", "100b")


def falls_with_size(run: Run) -> float:
    """Requirement of 100B over that of 1B, streaming."""
    return streaming_100b(run) / streaming_1b(run)


def bits_saved(run: Run) -> float:
    """Exchange between regions per synchronous step in 16 bits over that of fragments in 4 bits."""
    return run.busy("synchronous_1b", "gradient sync") / run.busy("streaming_1b", "outer sync")
