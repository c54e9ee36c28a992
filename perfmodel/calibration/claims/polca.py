"""Servers that fit under a supply beyond those whose limits it covers."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["inference_room", "training_room"]


def inference_room(run: Run) -> float:
    """Independent replicas that serve [%]."""
    return 100.0 * run.metric("inference.power_headroom")


def training_room(run: Run) -> float:
    """One synchronous job [%]."""
    return 100.0 * run.metric("training.power_headroom")
