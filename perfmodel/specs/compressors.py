"""Compressors of what ranks exchange, as records: bytes on the wire, memory for what was not sent, work, warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import model_validator

from perfmodel.specs.facts import Capacity, Fact, Ratio, Share, Spec
from perfmodel.specs.records import Records

__all__ = ["COMPRESSORS", "Compressor", "compressors"]


class Compressor(Spec):
    """One compressor; the head of ``compressors.yaml`` says what each line means."""

    title: str
    weights: Capacity | None = None
    weight_scales: Capacity | None = None
    gradients: Capacity | None = None
    density: Ratio | None = None
    entry: Capacity | None = None
    weight_traffic: Capacity | None = None
    gradient_traffic: Capacity | None = None
    scatter: Capacity | None = None
    feedback: Capacity | None = None
    server_feedback: Capacity | None = None
    warm_up: Share | None = None
    whole_gradient: bool = False
    at_update: bool = False

    @model_validator(mode="after")
    def _dense_or_sparse(self) -> Compressor:
        if (self.density is None) != (self.entry is None):
            raise ValueError("`density` and `entry` belong together")
        if self.gradients is not None and self.density is not None:
            raise ValueError("write `gradients` (added on the way) or `density` and `entry` (lists), not both")
        return self

    @property
    def gathered(self) -> bool:
        """Whether ranks gather each other's lists instead of adding on the way."""
        return self.density is not None

    @property
    def gradients_wire(self) -> float | None:
        """Bytes per gradient that a rank contributes; ``None`` where gradients travel as stored [B]."""
        if self.density is not None and self.entry is not None:
            return self.density.value * self.entry.value
        return None if self.gradients is None else self.gradients.value

    def value(self, name: str) -> float:
        """A number of the record, 0 where it has none."""
        found: Fact | None = getattr(self, name)
        return 0.0 if found is None else found.value


COMPRESSORS = Records("compressor", "compressors", Compressor, Path(__file__).parent / "compressors.yaml")


def compressors() -> Mapping[str, Compressor]:
    """Every shipped compressor by name."""
    return COMPRESSORS.shipped()
