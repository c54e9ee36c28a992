"""Quantities with units: text in, base units inside, text out.

Base units are s, B, FLOP, W, USD, Hz and 1. Prefixes are decimal unless written binary (``80 GiB`` is 85,899,345,920 B,
``80 GB`` is 80,000,000,000 B). Bits become bytes (``400 Gb/s`` is 50e9 B/s), hours become seconds (``2 USD/h``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

__all__ = [
    "UNITS",
    "Bytes",
    "BytesPerSecond",
    "Dollars",
    "Flops",
    "FlopsPerSecond",
    "Fraction",
    "Seconds",
    "Tokens",
    "UnitError",
    "Watts",
    "format_bandwidth",
    "format_bytes",
    "format_count",
    "format_number",
    "format_rate",
    "format_seconds",
    "parse_quantity",
]

# A number, an array or a symbol (``elementwise.Scalar``), spelt ``Any`` to keep array code out of the specs.
Bytes = Annotated[Any, "B"]
BytesPerSecond = Annotated[Any, "B/s"]
Seconds = Annotated[Any, "s"]
Flops = Annotated[Any, "FLOP"]
FlopsPerSecond = Annotated[Any, "FLOP/s"]
Watts = Annotated[Any, "W"]
Dollars = Annotated[Any, "USD"]
Fraction = Annotated[Any, "1"]
Tokens = Annotated[Any, "token"]

UNITS: dict[str, dict[str, float]] = {
    "B": {"B": 1.0, "b": 0.125},
    "B/s": {"B/s": 1.0, "b/s": 0.125},
    "FLOP/s": {"FLOP/s": 1.0, "OP/s": 1.0},
    "s": {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "days": 86400.0, "years": 31557600.0},
    "W": {"W": 1.0},
    "Hz": {"Hz": 1.0},
    "USD": {"USD": 1.0},
    "USD/s": {"USD/s": 1.0, "USD/h": 1.0 / 3600.0},
    "USD/J": {"USD/J": 1.0, "USD/kWh": 1.0 / 3.6e6},
    "kg/J": {"kg/J": 1.0, "kg/kWh": 1.0 / 3.6e6},
    "token": {"token": 1.0, "tokens": 1.0},
    "1/s": {"1/s": 1.0, "/s": 1.0, "requests/s": 1.0},
    "1": {"": 1.0, "%": 0.01},
}
"""For every dimension the units that are accepted and their size in the base unit."""

EXAMPLES = {
    "B": "80 GiB, 24 GB",
    "B/s": "3.35 TB/s, 25 GB/s, 400 Gb/s",
    "FLOP/s": "989.4 TFLOP/s, 2 PFLOP/s",
    "s": "2.5 us, 1 ms",
    "W": "700 W, 24.6 MW",
    "Hz": "1.7 GHz",
    "USD": "199000 USD",
    "USD/s": "3.49 USD/h",
    "USD/J": "0.1 USD/kWh",
    "kg/J": "0.35 kg/kWh",
    "token": "4096, 4 Mtokens",
    "1/s": "10 requests/s",
    "1": "0.92, 92 %",
}

_UNPREFIXED = {"min", "h", "d", "days", "years", "", "%", "USD/kWh", "kg/kWh", "kg/J", "requests/s", "/s", "1/s"}
"""Units that take no prefix: read literally, so that a prefix parser never eats their first letter."""


_NUMBER = re.compile(r"[+-]?[0-9.]*(?:[eE][+-]?[0-9]+)?")
"""What a text begins with up to its unit, which may follow without a blank."""


class UnitError(ValueError):
    """A text that is not a quantity of the wanted dimension."""


def parse_quantity(text: str | float, dimension: str) -> float:
    """Return the value of ``text`` in the base unit of ``dimension``.

    Parameters
    ----------
    text : number with prefix and unit, e.g. ``"3.35 TB/s"``; bare only where the dimension is ``"1"`` or ``"token"``.
    dimension : a key of :data:`UNITS`.

    Raises
    ------
    UnitError
        If it is not a finite number or its unit belongs to another dimension.

    Examples
    --------
    >>> parse_quantity("400 Gb/s", "B/s")
    50000000000.0
    >>> parse_quantity("80 GiB", "B")
    85899345920.0
    >>> parse_quantity("3%", "1"), parse_quantity("3 %", "1")
    (0.03, 0.03)
    >>> parse_quantity("5/s", "1/s"), parse_quantity("5requests/s", "1/s")
    (5.0, 5.0)
    """
    if isinstance(text, bool):
        raise UnitError("a number with a unit is needed, not true or false")
    if isinstance(text, (int, float)):
        if dimension not in ("1", "token"):
            raise UnitError(f"the unit is missing; write for example {EXAMPLES[dimension]}")
        value = float(text)
    else:
        value = _parse_text(text.strip(), dimension)
    if not math.isfinite(value):
        raise UnitError("a finite number is needed")
    return value


@lru_cache(maxsize=4096)
def _parse_text(text: str, dimension: str) -> float:
    from quantiphy import QuantiPhyError, Quantity

    accepted = UNITS[dimension]
    number = _NUMBER.match(text)[0]  # type: ignore[index]
    unit = text[len(number) :]
    if text.endswith("%") and dimension == "1":
        text, scale = text[:-1].rstrip(), 0.01
    elif unit.strip() in accepted and unit.strip() in _UNPREFIXED:
        text, unit, scale = number, unit.strip(), accepted[unit.strip()]
    else:
        scale = 0.0
    try:
        quantity = Quantity(text, binary=True)
    except QuantiPhyError as error:
        raise UnitError(f"not a number with a unit; write for example {EXAMPLES[dimension]}") from error
    if not scale:
        if quantity.units not in accepted or quantity.units in _UNPREFIXED - {""}:
            wanted = " or ".join(u or "no unit" for u in accepted)
            found = quantity.units or "(none)"
            raise UnitError(f"unit {found} is not {wanted}; write for example {EXAMPLES[dimension]}")
        scale = accepted[quantity.units]
    return float(quantity) * scale


def format_number(value: float, digits: int = 3) -> str:
    """Number of so many significant digits, grouped by thousands, never in exponent form.

    Examples
    --------
    >>> format_number(1959.8), format_number(31.5946), format_number(0.02513)
    ('1,960', '31.6', '0.0251')
    """
    if not math.isfinite(value):
        return "∞" if value > 0 else "?"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{places}f}"


def _prefixed(value: float, base: float, prefixes: Sequence[str], unit: str, digits: int) -> str:
    index = 0
    while abs(value) >= base * 0.9995 and index < len(prefixes) - 1:
        value, index = value / base, index + 1
    prefix = prefixes[index].strip()
    binary = "i" if base == 1024 and prefix else ""
    return f"{_short(value, digits)} {prefix}{binary}{unit}"


def _short(value: float, digits: int) -> str:
    """Significant digits without trailing zeros after the point: ``64``, not ``64.0``."""
    text = format_number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_bytes(value: float, digits: int = 3) -> str:
    """Memory size with a binary prefix, e.g. ``'64 GiB'``."""
    return _prefixed(value, 1024, " KMGTP", "B", digits)


def format_bandwidth(value: float, digits: int = 3) -> str:
    """Bandwidth with a decimal prefix, e.g. ``'1.6 TB/s'``."""
    return _prefixed(value, 1000, " kMGTP", "B/s", digits)


def format_rate(value: float, unit: str, digits: int = 3) -> str:
    """Any rate or power with a decimal prefix, e.g. ``'191.5 TFLOP/s'``, ``'174 kW'``."""
    return _prefixed(value, 1000, " kMGTPE", unit, digits)


def format_count(value: float, digits: int = 3) -> str:
    """Large count in thousands, millions, billions, trillions, as the field writes them: ``'68.98 B'``, ``'1 T'``.

    Examples
    --------
    >>> format_count(68_976_648_192, 4), format_count(1e12), format_count(132_753)
    ('68.98 B', '1 T', '133 k')
    """
    return _prefixed(value, 1000, (" ", "k", "M", "B", "T", "Q"), "", digits).strip()


def format_seconds(value: float, digits: int = 3) -> str:
    """Duration in the unit a person would say: ns, µs, ms, s, min, h, days or years.

    Examples
    --------
    >>> format_seconds(0.0449), format_seconds(31.59), format_seconds(1959.8), format_seconds(87.2 * 86400)
    ('44.9 ms', '31.6 s', '32.7 min', '87.2 days')
    """
    if not math.isfinite(value):
        return "forever"
    if value == 0:
        return "0 s"
    for limit, size, name in (
        (0.9995e-6, 1e-9, "ns"),
        (0.9995e-3, 1e-6, "µs"),
        (0.9995, 1e-3, "ms"),
        (600.0, 1.0, "s"),
        (7200.0, 60.0, "min"),
        (172800.0, 3600.0, "h"),
        (94672800.0, 86400.0, "days"),
    ):
        if abs(value) < limit:
            return f"{format_number(value / size, digits)} {name}"
    return f"{format_number(value / 31557600.0, digits)} years"
