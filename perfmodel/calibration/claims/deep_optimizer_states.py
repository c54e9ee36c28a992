"""Stride of the interleaved update, and what it saves."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["stride", "update_speed_up"]

UPDATE = (
    "host optimizer",
    "gradients to host",
    "weights from host",
    "optimizer state to device",
    "optimizer state to host",
    "update of fetched state",
)


def update_speed_up(run: Run, changes: dict[str, str] | None = None) -> float:
    """Update phase on the host alone over that with every k-th part on the device, on a machine changed so."""

    def seconds(name: str) -> float:
        asked = run.asked(name)
        plan = run.evaluate(asked, changes={**asked.changes, **(changes or {})})
        return sum(row.seconds for row in plan.terms if row.name in UPDATE)

    return seconds("host") / seconds("interleaved")


def stride(run: Run) -> float:
    """Parts of which the device updates one: host updates that are left tell its share."""
    left = run.busy("interleaved", "host optimizer") / run.busy("host", "host optimizer")
    return 1.0 / (1.0 - left)
