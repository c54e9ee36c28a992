"""One formula, three readings: functions that accept numbers, float64 arrays or SymPy symbols.

The kind of the arguments decides which implementation runs. SymPy is looked up in ``sys.modules``: nobody who
does not already use it pays for its import.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = [
    "Scalar",
    "ceil",
    "choose",
    "clamp",
    "exp",
    "expm1",
    "floor",
    "is_nothing",
    "is_symbol",
    "least",
    "log2",
    "maximum",
    "minimum",
    "smooth_maximum",
    "sqrt",
    "where",
]

Scalar = Any
"""A number, a float64 array or a SymPy expression; every formula accepts all three."""


def _elementwise(
    number: Callable[..., Any], array: Callable[..., Any], symbol: Callable[..., Any]
) -> Callable[..., Scalar]:
    """Dispatch on the argument types; plain numbers are the common case and are tested first."""

    def call(*args: Scalar) -> Scalar:
        kind = number
        for x in args:
            if isinstance(x, (bool, int, float)):
                continue
            sympy = sys.modules.get("sympy")
            if sympy is not None and isinstance(x, sympy.Basic):
                return symbol(sympy, *args)
            kind = array
        return kind(*args)

    return call


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Extend a binary array function to any number of arguments."""

    def call(first: Any, *rest: Any) -> Any:
        for x in rest:
            first = function(first, x)
        return first

    return call


def _floor_number(x: float) -> float:
    return float(math.floor(x))


def _ceil_number(x: float) -> float:
    return float(math.ceil(x))


maximum = _elementwise(lambda *xs: max(xs), _fold(np.maximum), lambda sp, *xs: sp.Max(*xs, evaluate=False))
"""Largest of its arguments, elementwise."""
minimum = _elementwise(lambda *xs: min(xs), _fold(np.minimum), lambda sp, *xs: sp.Min(*xs, evaluate=False))
"""Smallest of its arguments, elementwise."""
ceil = _elementwise(_ceil_number, np.ceil, lambda sp, x: sp.ceiling(x))
"""Round up; use on ratios of whole numbers only (``ceil(2.1 / 0.7)`` is 4)."""
floor = _elementwise(_floor_number, np.floor, lambda sp, x: sp.floor(x))
"""Round down; use on ratios of whole numbers only."""
log2 = _elementwise(math.log2, np.log2, lambda sp, x: sp.log(x, 2))
"""Binary logarithm."""
sqrt = _elementwise(math.sqrt, np.sqrt, lambda sp, x: sp.sqrt(x))
"""Square root."""
exp = _elementwise(math.exp, np.exp, lambda sp, x: sp.exp(x))
"""Natural exponential."""
expm1 = _elementwise(math.expm1, np.expm1, lambda sp, x: sp.exp(x) - 1)
"""Natural exponential less one, exact near zero."""
where = _elementwise(
    lambda condition, yes, no: yes if condition else no,
    np.where,
    lambda sp, condition, yes, no: sp.Piecewise((yes, condition), (no, True)),
)
"""``yes`` where ``condition`` holds, else ``no``. Both are evaluated: guard divisors."""


def choose(index: Scalar, values: tuple[float, ...]) -> Scalar:
    """Pick ``values[index]``: how an axis of named options becomes numbers without a branch.

    Parameters
    ----------
    index : whole number(s) from 0 to ``len(values) - 1``.
    values : one number per option.

    Examples
    --------
    >>> choose(1, (0.0, 0.5, 1.0))
    0.5
    """
    if isinstance(index, (bool, int, float)):
        return values[int(index)]
    if isinstance(index, np.ndarray):
        return np.asarray(values, dtype=float)[index.astype(int)]
    result: Scalar = values[-1]
    for i in range(len(values) - 2, -1, -1):
        result = where(index <= i, values[i], result)
    return result


def is_symbol(*values: Scalar) -> bool:
    """Whether any value is a SymPy expression (never imports SymPy)."""
    sympy = sys.modules.get("sympy")
    return sympy is not None and any(isinstance(v, sympy.Basic) for v in values)


def is_nothing(value: Scalar) -> bool:
    """Whether a share is plainly zero, so that what it scales need not be computed; arrays and symbols never are."""
    return isinstance(value, (int, float)) and value == 0.0


def clamp(value: Scalar, low: Scalar, high: Scalar) -> Scalar:
    """``value`` limited to the range from ``low`` to ``high``."""
    return minimum(maximum(value, low), high)


def smooth_maximum(a: Scalar, b: Scalar, power: float = 3.0) -> Scalar:
    """``(a**p + b**p)**(1/p)``: between the larger and the sum, the rounded corner of a roofline.

    Examples
    --------
    >>> round(smooth_maximum(3.0, 4.0, 2.0), 12)
    5.0
    """
    return (a**power + b**power) ** (1.0 / power)


def least(cost: Callable[..., Scalar], options: tuple[tuple[float, ...], ...], *sizes: Scalar) -> Scalar:
    """Smallest ``cost(*option)`` over a table of options, elementwise over the sizes that ``cost`` closes over.

    Numbers and arrays evaluate the whole table at once on a leading axis; symbols fold ``Min``.

    Parameters
    ----------
    cost : pure function of one option's entries.
    options : rows of the table.
    sizes : the quantities ``cost`` closes over; they decide which reading is meant.
    """
    if is_symbol(*sizes):
        return minimum(*(cost(*row) for row in options)) if len(options) > 1 else cost(*options[0])
    depth = max((np.ndim(s) for s in sizes), default=0)
    result = cost(*_columns(options, depth)).min(axis=0)
    return float(result) if depth == 0 else result


@lru_cache(maxsize=64)
def _columns(options: tuple[tuple[float, ...], ...], depth: int) -> tuple[Any, ...]:
    """Return one array per entry of the options, on an axis in front of ``depth`` others."""
    table = np.asarray(options, dtype=float).T.reshape(len(options[0]), len(options), *([1] * depth))
    table.setflags(write=False)
    return tuple(table)
