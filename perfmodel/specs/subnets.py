"""Models with fewer or narrower layers, or layers that run with the weights of their neighbour, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from perfmodel.specs.architecture import Architecture, Layer, Mlp, Moe, Run
from perfmodel.specs.facts import Spec
from perfmodel.specs.number_formats import Published
from perfmodel.specs.records import Records

__all__ = ["SUBNETS", "Subnet", "reduced", "subnet", "subnets"]


class Subnet(Spec):
    """One reduction; the head of ``subnets.yaml`` says what each line means."""

    title: str
    removed: Annotated[float, Field(ge=0, lt=1)] = 0.0
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    shared: Annotated[int, Field(ge=1)] = 1
    source: str
    quality: Published | None = None

    @model_validator(mode="after")
    def _does_something(self) -> Subnet:
        if self.removed == 0.0 and self.width == 1.0 and self.shared == 1:
            raise ValueError("write `removed`, `width` or `shared`")
        return self

    def stored(self, layers: int) -> float:
        """Sets of weights over layers that run: neighbours share one [1]."""
        return ceil(layers / self.shared) / layers


SUBNETS = Records("reduced shape", "subnets", Subnet, Path(__file__).parent / "subnets.yaml")


def subnets() -> Mapping[str, Subnet]:
    """Every shipped reduction by name."""
    return SUBNETS.shipped()


def subnet(name: str) -> Subnet:
    """Return the reduction of that name, or in that file; ``UnknownName`` if there is none."""
    return SUBNETS.get(name)


@lru_cache(maxsize=64)
def reduced(architecture: Architecture, removed: float, width: float) -> Architecture:
    """Return the model without a share of its layers, and with feed-forward layers of a part of their width.

    Layers are left out evenly, and at least one stays.
    """
    layers = [run.layer for run in architecture.runs for _ in range(run.count)]
    kept = max(len(layers) - round(removed * len(layers)), 1)
    chosen = [layers[i * len(layers) // kept] for i in range(kept)]
    narrow = [_narrowed(layer, width) for layer in chosen]
    return replace(architecture, runs=tuple(Run(layer, len(list(same))) for layer, same in groupby(narrow)))


def _narrowed(layer: Layer, width: float) -> Layer:
    ffn = layer.ffn
    if width == 1.0 or not isinstance(ffn, (Mlp, Moe)):
        return layer
    return replace(layer, ffn=replace(ffn, width=max(round(ffn.width * width), 1)))
