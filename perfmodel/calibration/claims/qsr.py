"""Synchronisations that the quadratic rule leaves, and the hours of a larger cluster that follow."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["hours_on_64", "volume_share"]

SMALL = {"synchronous": 26.7, "rule": 20.2}
"""Published hours on 16 GPUs: what is left of communication tells computation from it."""
LARGE_SYNCHRONOUS = 8.6
"""Published hours on 64 GPUs, synchronous."""


def volume_share(run: Run) -> float:
    """Bytes averaged with the rule over those with a synchronisation every step."""
    return run.busy("rule", "outer sync") / run.busy("every_step", "outer sync")


def hours_on_64(run: Run) -> float:
    """Hours on 64 GPUs: four times faster computation, communication scaled by the share that remains [h]."""
    share = volume_share(run)
    communication = (SMALL["synchronous"] - SMALL["rule"]) / (1.0 - share)
    computation = (SMALL["synchronous"] - communication) / 4.0
    return computation + share * (LARGE_SYNCHRONOUS - computation)
