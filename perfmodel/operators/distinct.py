"""Sizes that repeat over a mesh of plans, evaluated once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from perfmodel.operators.sizes import Sizes

__all__ = ["collapse"]

FEW = 4096
"""Entries among which all distinct ones are looked for first: a mesh has few, and sorting it whole takes longer."""
COMPARED = 16
"""Columns that entries along a dimension are compared by, at most."""


def collapse(sizes: Sizes) -> tuple[Sizes, Callable[[Any], Any] | None]:
    """Evaluate repeated sizes once: the distinct entries along every dimension, and how to expand a result.

    Returns the sizes unchanged and ``None`` where they are plain numbers or nothing repeats.
    """
    arrays = {name: value for name, value in vars(sizes).items() if isinstance(value, np.ndarray) and value.size > 1}
    if len({value.ndim for value in arrays.values()}) != 1:
        return sizes, None
    rows: dict[int, Any] = {}
    for axis in range(-next(iter(arrays.values())).ndim, 0):  # counted from the last: results may have axes in front
        columns = [c for value in arrays.values() if value.shape[axis] > 1 for c in _columns(value, axis)]
        if not 0 < len(columns) <= COMPARED:
            continue
        first, rows[axis] = _distinct(columns)
        arrays = {n: np.take(v, first, axis) if v.shape[axis] > 1 else v for n, v in arrays.items()}
    if not rows:
        return sizes, None

    def expand(result: Any) -> Any:
        if isinstance(result, np.ndarray) and result.size > 1:
            for axis, inverse in rows.items():
                result = np.take(result, inverse, axis) if result.shape[axis] > 1 else result
        return result

    return cast(Sizes, replace(cast(Any, sizes), **arrays)), expand


def _columns(value: np.ndarray[Any, Any], axis: int) -> Sequence[np.ndarray[Any, Any]]:
    """What must agree for two entries along ``axis`` to be the same; too many columns are not even looked at."""
    if value.size // value.shape[axis] > COMPARED:
        return (value,) * (COMPARED + 1)
    return tuple(np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis]))


def _distinct(columns: list[np.ndarray[Any, Any]]) -> tuple[Any, Any]:
    """Index of the first of every distinct row of the columns, and for each row which distinct one it is.

    Sorts by hand: ``np.unique`` would import ``numpy.ma`` on first use, which costs more than the search of a small
    space.
    """
    key = np.zeros(columns[0].size, dtype=np.int64)
    for column in columns:
        _, code, count = _codes(column)
        key = key * count + code
    first, inverse, _ = _codes(key)
    return first, inverse


def _codes(values: np.ndarray[Any, Any]) -> tuple[Any, Any, int]:
    """First index of every distinct value, the rank of each value among them, and their number."""
    few = _sorted_out(values[:FEW])[1]
    place = np.minimum(np.searchsorted(few, values), few.size - 1)
    if (few[place] == values).all():
        first = np.full(few.size, values.size)
        np.minimum.at(first, place[:FEW], np.arange(place[:FEW].size))
        return first, place, int(few.size)
    order, distinct = _sorted_out(values)
    return order, np.searchsorted(distinct, values), int(distinct.size)


def _sorted_out(values: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """First index of every distinct value, and the distinct values, ascending."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    fresh = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    return order[fresh], ordered[fresh]
