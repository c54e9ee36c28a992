"""What memory bandwidth alone gives to decode."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["decode_gain"]


def decode_gain(run: Run) -> float:
    """Time of the matrix products of a decode pass with a fifth of the bandwidth over that with all of it."""

    def products(plan: str) -> float:
        names = ("matrix multiply", "output head")
        return sum(row.busy_seconds for row in run.plan(plan).terms if row.name in names)

    return products("decode_slow") / products("decode")
