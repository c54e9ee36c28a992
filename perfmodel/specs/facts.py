"""A number from outside: value, unit, kind, source. Nothing unsourced can load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from perfmodel.units import UnitError, parse_quantity

__all__ = [
    "Bandwidth",
    "Capacity",
    "Count",
    "Duration",
    "EnergyPrice",
    "Fact",
    "FieldError",
    "Frequency",
    "Kind",
    "Number",
    "Power",
    "Price",
    "Purchase",
    "Quantity",
    "Rate",
    "Ratio",
    "Share",
    "Spec",
    "fact",
]

Kind = Literal["datasheet", "measured", "fitted", "assumed"]
KINDS: tuple[str, ...] = get_args(Kind)


class Spec(BaseModel):
    """Base of everything a user may write: frozen, and a key that is not understood is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)


class Fact(Spec):
    """One number with where it comes from.

    Written ``{value: 3.35 TB/s, kind: datasheet, source: key}``; ``source`` is a key of the file's ``sources``.
    """

    value: float
    """In base units: s, B, FLOP, W, USD, Hz or 1."""
    text: str = ""
    """As written, with unit."""
    kind: Kind
    """Where such a number comes from: datasheet, measured, fitted or assumed."""
    source: str
    """Key into the ``sources`` of the file."""
    note: str = ""
    """Anything a reader should know: date, conflict settled, number of points."""
    spread: float | None = None
    """For fitted and measured numbers: relative half-width that holds 80 % of the residuals [1]."""

    @model_validator(mode="after")
    def _sourced(self) -> Fact:
        if not self.source.strip():
            raise ValueError("a source is needed; name a key of this file's `sources`")
        return self


def fact(value: float, text: str, *, kind: Kind = "assumed", source: str = "what-if") -> Fact:
    """Build a fact in code, as what-ifs do."""
    return Fact(value=value, text=text, kind=kind, source=source)


class FieldError(ValueError):
    """A rule broken deep inside what a validator looks at; ``where`` leads to the field."""

    def __init__(
        self, message: str, where: tuple[str | int, ...], *, found: object = None, allowed: str | None = None
    ) -> None:
        super().__init__(message)
        self.where, self.found, self.allowed = where, found, allowed


@dataclass(frozen=True)
class Quantity:
    """What a fact measures and which values it may take; reads the written form into base units."""

    dimension: str
    positive: bool
    at_most: float | None = None

    def __call__(self, data: Any) -> Any:
        """Turn ``{value: "80 GB", …}`` into the fields of a :class:`Fact`."""
        if isinstance(data, Fact):
            return data
        if not isinstance(data, dict):
            raise ValueError("write {value: NUMBER UNIT, kind: " + "|".join(KINDS) + ", source: KEY}")
        if "value" not in data:
            raise ValueError("`value` is missing")
        return {**data, "value": self.parse(data["value"]), "text": str(data["value"])}

    def parse(self, text: object) -> float:
        """Return ``text`` in base units; ``ValueError`` says what is wrong with it."""
        if not isinstance(text, (str, int, float)) or isinstance(text, bool):
            raise ValueError("`value` must be a number with its unit")
        try:
            value = parse_quantity(text, self.dimension)
        except UnitError as error:
            raise ValueError(str(error)) from error
        return self.check(value)

    def check(self, value: float) -> float:
        """Return ``value`` if it may be one."""
        if not math.isfinite(value):
            raise ValueError("a finite number is needed")
        if value < 0 or (self.positive and value == 0):
            raise ValueError("must be " + ("greater than zero" if self.positive else "zero or more"))
        if self.at_most is not None and value > self.at_most:
            raise ValueError(f"must be at most {self.at_most:g}")
        return value


def _quantity(dimension: str, *, positive: bool, at_most: float | None = None) -> Any:
    return BeforeValidator(Quantity(dimension, positive, at_most))


Capacity = Annotated[Fact, _quantity("B", positive=True)]
Bandwidth = Annotated[Fact, _quantity("B/s", positive=True)]
Rate = Annotated[Fact, _quantity("FLOP/s", positive=True)]
Duration = Annotated[Fact, _quantity("s", positive=False)]
Frequency = Annotated[Fact, _quantity("Hz", positive=True)]
Power = Annotated[Fact, _quantity("W", positive=False)]
Price = Annotated[Fact, _quantity("USD/s", positive=False)]
EnergyPrice = Annotated[Fact, _quantity("USD/J", positive=False)]
Purchase = Annotated[Fact, _quantity("USD", positive=False)]
Count = Annotated[Fact, _quantity("1", positive=True)]
Ratio = Annotated[Fact, _quantity("1", positive=True, at_most=1.05)]
Number = Annotated[Fact, _quantity("1", positive=False)]
Share = Annotated[Fact, _quantity("1", positive=False, at_most=1.0)]
