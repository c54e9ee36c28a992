"""What one rank sends of an update, read off the time on links that cost nothing but bytes."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["compression", "saved"]

PER_NODE = 8.0
"""Ranks of a node: their lists do not cross its link."""


def compression(run: Run) -> float:
    """Bytes of an update over those of a rank's list.

    A dense ring takes twice the update over the link of a node, less one rank's share; every node receives the lists
    of all others.
    """
    ranks = float(run.asked("dense").devices or 1)
    update = run.busy("dense", "gradient sync") / (2.0 * (ranks - 1.0) / ranks)
    return update / (run.busy("sparse", "gradient sync") / (ranks - PER_NODE))


def saved(run: Run) -> float:
    """Share of the bytes that is not sent."""
    return 1.0 - 1.0 / compression(run)
