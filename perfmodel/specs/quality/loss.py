"""A loss of quality, with what it stands on."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Loss"]


class Loss(NamedTuple):
    """Relative loss of quality with its source.

    Parameters
    ----------
    value : (value - baseline) / baseline of a lower-is-better metric, (baseline - value) / baseline of others [1].
    metric : what was measured.
    source : where it was read.
    models : models it was published for; two where it lies between their sizes.
    bits : bits per number of the two formats that it lies between, if any.
    """

    value: float
    metric: str
    source: str
    models: tuple[str, ...] = ()
    bits: tuple[float, float] | None = None

    @property
    def interpolated(self) -> bool:
        """Whether it lies between published numbers instead of being one."""
        return len(self.models) > 1 or self.bits is not None
