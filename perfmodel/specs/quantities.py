"""Numbers of workload files: a value with its unit, checked where it is read; unlike facts they need no source."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from perfmodel.units import UnitError, parse_quantity

__all__ = [
    "Count",
    "NotNegative",
    "PerSecond",
    "Percentile",
    "Positive",
    "Seconds",
    "SomeTokens",
    "Tokens",
    "number",
]


def number(dimension: str, *, whole: bool = False, zero: bool = False) -> Any:
    """Read a number, with its unit where it has one; unlike a fact it needs no source."""

    def read_number(data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, (str, int, float)):
            raise ValueError("a number is needed")
        try:
            value = parse_quantity(data, dimension)
        except UnitError as error:
            raise ValueError(str(error)) from error
        if value < 0 or (value == 0 and not zero):
            raise ValueError("must be " + ("zero or more" if zero else "greater than zero"))
        if whole and value != int(value):
            raise ValueError("a whole number is needed")
        return int(value) if whole else value

    return BeforeValidator(read_number)


Tokens = Annotated[int, number("token", whole=True)]
SomeTokens = Annotated[int, number("token", whole=True, zero=True)]
Count = Annotated[int, number("1", whole=True)]
Seconds = Annotated[float, number("s")]
NotNegative = Annotated[float, number("1", zero=True)]
Positive = Annotated[float, number("1")]
PerSecond = Annotated[float, number("1/s")]


def _percentile(data: Any) -> float:
    """Read 90 or 99.9: percent of the requests."""
    value = _plain_number(data)
    if not 50.0 <= value <= 99.99:
        raise ValueError("percent of the requests are needed, 50 to 99.99")
    return value


def _plain_number(data: Any) -> float:
    if isinstance(data, bool) or not isinstance(data, (int, float)):
        raise ValueError("a number is needed")
    return float(data)


Percentile = Annotated[float, BeforeValidator(_percentile)]
