"""Storage formats of weights, as records: bits per number, scales, tables, positions, outliers, and work to unpack."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from perfmodel.errors import UnknownName
from perfmodel.specs.facts import Number, Spec
from perfmodel.specs.load import parse
from perfmodel.specs.sources import check_sources
from perfmodel.specs.yamlfile import read

__all__ = ["WeightFormat", "weight_format", "weight_formats"]

Bits = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class WeightFormat(Spec):
    """One format; the head of ``weight_formats.yaml`` says what each line means."""

    title: str
    bits: Annotated[float, Field(gt=0)]
    group: Annotated[int, Field(gt=0)] | None = None
    scale: Bits = 0.0
    zero: Bits = 0.0
    table: Bits = 0.0
    density: Annotated[float, Field(gt=0, le=1)] = 1.0
    index: Bits = 0.0
    mask: Bits = 0.0
    outliers: Share = 0.0
    outlier: Bits = 0.0
    products: tuple[str, ...]
    unpack: Number
    source: str

    @model_validator(mode="after")
    def _positions(self) -> WeightFormat:
        if (self.density < 1.0) != (self.index + self.mask > 0.0):
            raise ValueError("`density` below 1 and `index` or `mask` belong together")
        if (self.outliers > 0.0) != (self.outlier > 0.0):
            raise ValueError("`outliers` and `outlier` belong together")
        return self


class _File(Spec):
    """The shipped formats."""

    sources: dict[str, str]
    formats: dict[str, WeightFormat]

    @model_validator(mode="after")
    def _sources_exist(self) -> _File:
        check_sources(self, self.sources)
        for name, record in self.formats.items():
            if record.source not in self.sources:
                raise ValueError(f"`{name}` names a source that is not listed: {record.source}")
        return self


@lru_cache(maxsize=1)
def weight_formats() -> dict[str, WeightFormat]:
    """Every shipped format by name."""
    return parse(_File, read(Path(__file__).parent / "weight_formats.yaml")).formats


def weight_format(name: str) -> WeightFormat:
    """Return the format of that name.

    Raises
    ------
    UnknownName
        If there is none.
    """
    found = weight_formats()
    if name not in found:
        raise UnknownName("weight format", name, found, remedy="there are " + ", ".join(found))
    return found[name]
