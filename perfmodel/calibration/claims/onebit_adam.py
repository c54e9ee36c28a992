"""Volume and speed of the two phases of 1-bit Adam."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["end_to_end", "phase_speed_up", "volume_ratio"]

WARM_UP = 0.15
"""Share of uncompressed steps of the shipped record; other shares are weighed from the two phases."""


def volume_ratio(run: Run, warm_up: float) -> float:
    """Exchange of gradients without compression over that of a run with that share of uncompressed steps."""
    dense = run.busy("dense_volume", "gradient sync")
    compressed = run.busy("onebit_volume", "gradient sync") / (1.0 - WARM_UP)
    return dense / (warm_up * dense + (1.0 - warm_up) * compressed)


def _phases(run: Run) -> tuple[float, float]:
    """Seconds of a step of the warm-up and of one after it [s]."""
    plain, mixed = run.plan("dense").seconds, run.plan("onebit").seconds
    return plain, (mixed - WARM_UP * plain) / (1.0 - WARM_UP)


def phase_speed_up(run: Run) -> float:
    """Step of the warm-up over a compressed one."""
    plain, late = _phases(run)
    return plain / late


def end_to_end(run: Run, warm_up: float, phase: float) -> float:
    """Speed-up of a run whose compressed steps are ``phase`` times faster, as the plan weighs its phases."""
    plain, _ = _phases(run)
    return plain / (warm_up * plain + (1.0 - warm_up) * plain / phase)
