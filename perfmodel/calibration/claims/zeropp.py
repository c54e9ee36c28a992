"""Volumes of ZeRO-3 and ZeRO++."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["volume_ratio"]


def volume_ratio(run: Run) -> float:
    """Time on the links between nodes of ZeRO-3 over that of ZeRO++."""

    def travelling(name: str) -> float:
        rows = run.plan(name).terms
        return sum(row.busy_seconds for row in rows if row.name in ("weight gather", "gradient scatter"))

    return travelling("zero3") / travelling("zeropp")
