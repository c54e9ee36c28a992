"""Storage formats of weights and of cached keys and values, as records: bits per number, and all that lies beside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from perfmodel.specs.facts import Number, Spec
from perfmodel.specs.records import Records

__all__ = [
    "CACHE_FORMATS",
    "WEIGHT_FORMATS",
    "Codebook",
    "Mix",
    "NumberFormat",
    "Published",
    "cache_format",
    "cache_formats",
    "weight_format",
    "weight_formats",
]

Bits = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Product = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4", "fp4", "nvfp4", "mxfp4"]


class Codebook(Spec):
    """Codewords of a vector format, shared by a matrix."""

    entries: Annotated[int, Field(ge=2)]
    vector: Annotated[int, Field(ge=1)]
    bits: Annotated[float, Field(gt=0)] = 16.0
    """Of each number of a codeword."""


class Mix(Spec):
    """Formats chosen layer by layer for the least loss within a budget of bits."""

    formats: Annotated[tuple[str, ...], Field(min_length=2)]
    bits: Annotated[float, Field(gt=0)]
    """Most bits per weight on average, scales included."""
    sensitivity: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Share of the loss that every layer contributes, in any unit; by its weights where left out."""


class Published(Spec):
    """Rows of the table of published quality that speak of this format; see :mod:`perfmodel.specs.quality`."""

    methods: tuple[str, ...]
    weights: float | None = 16.0
    """``None``: rows of as many stored bits, whatever the table calls them."""
    activations: float = 16.0
    cache: float = 16.0
    group: str = ""
    """As the table writes it; blank takes rows of any."""
    sparsity: str = ""


class NumberFormat(Spec):
    """One format; the heads of ``weight_formats.yaml`` and ``cache_formats.yaml`` say what each line means."""

    title: str
    bits: Bits = 0.0
    group: Annotated[int, Field(gt=0)] | None = None
    scale: Bits = 0.0
    zero: Bits = 0.0
    table: Bits = 0.0
    codebooks: tuple[Codebook, ...] = ()
    mix: Mix | None = None
    density: Annotated[float, Field(gt=0, le=1)] = 1.0
    index: Bits = 0.0
    mask: Bits = 0.0
    pattern: str | None = None
    outliers: Share = 0.0
    outlier: Bits = 0.0
    recent: Annotated[int, Field(ge=0)] = 0
    products: tuple[Product, ...]
    unpack: Number
    source: str
    trained: bool = False
    quality: Published | None = None

    @model_validator(mode="after")
    def _positions(self) -> NumberFormat:
        if (self.density < 1.0) != (self.index + self.mask > 0.0):
            raise ValueError("`density` below 1 and `index` or `mask` belong together")
        if (self.outliers > 0.0) != (self.outlier > 0.0):
            raise ValueError("`outliers` and `outlier` belong together")
        if (self.bits > 0.0) + bool(self.codebooks) + (self.mix is not None) != 1:
            raise ValueError("write one of `bits` of a stored number, `codebooks` and `mix`")
        if not self.products:
            raise ValueError("`products` names at least one format of multiplications")
        return self

    @property
    def number_bits(self) -> float:
        """Bits of one stored number: as written, its share of the indices of a vector, or the budget of a mix [bit]."""
        if self.mix is not None:
            return self.mix.bits
        return self.bits + sum(math.log2(c.entries) / c.vector for c in self.codebooks)


WEIGHT_FORMATS = Records("weight format", "formats", NumberFormat, Path(__file__).parent / "weight_formats.yaml")
CACHE_FORMATS = Records("cache format", "formats", NumberFormat, Path(__file__).parent / "cache_formats.yaml")


def weight_formats() -> Mapping[str, NumberFormat]:
    """Every shipped format of weights by name."""
    return WEIGHT_FORMATS.shipped()


def cache_formats() -> Mapping[str, NumberFormat]:
    """Every shipped format of cached keys and values by name."""
    return CACHE_FORMATS.shipped()


def weight_format(name: str) -> NumberFormat:
    """Return the format of weights of that name, or in that file; ``UnknownName`` if there is none."""
    return WEIGHT_FORMATS.get(name)


def cache_format(name: str) -> NumberFormat:
    """Return the format of the cache of that name, or in that file; ``UnknownName`` if there is none."""
    return CACHE_FORMATS.get(name)
