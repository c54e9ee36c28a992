"""Bytes and memory of training that exchanges one byte per replica."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["memory_over_weights", "message_ratio"]


def message_ratio(run: Run) -> float:
    """Exchange of 16-bit gradients over that of scalars, times the ranks whose scalars everyone receives."""
    ranks = float(run.asked("scalars").devices or 1)
    return ranks * run.busy("gradients", "gradient sync") / run.busy("scalars", "gradient sync")


def memory_over_weights(run: Run) -> float:
    """States, activations and weights over the weights alone, which is what inference holds."""
    names = ("weights", "gradients", "optimizer", "activations")
    lines = {line.name: line.bytes for line in run.plan("scalars").ledgers[0].lines if line.name in names}
    return sum(lines.values()) / lines["weights"]
