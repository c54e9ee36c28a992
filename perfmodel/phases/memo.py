"""Remember what depends on sizes alone, so that slabs that share sizes share the work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np

from perfmodel.operators.layers import Sizes

__all__ = ["Memo", "collapse"]


def _key(value: Any) -> Any:
    """Hashable stand-in for a value: arrays by contents, sizes field by field."""
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, Sizes):
        return tuple(_key(v) for v in vars(value).values())
    if isinstance(value, tuple):
        return tuple(_key(v) for v in value)
    return value


T = TypeVar("T")


class Memo(Generic[T]):
    """A small cache keyed by the contents of sizes; lives for one search."""

    def __init__(self, limit: int = 64) -> None:
        self._kept: dict[Any, T] = {}
        self._limit = limit

    def get(self, sizes: Any, compute: Callable[[], T]) -> T:
        """Return the remembered value for equal keys, else compute it."""
        key = _key(sizes)
        if key not in self._kept:
            if len(self._kept) >= self._limit:
                self._kept.clear()
            self._kept[key] = compute()
        return self._kept[key]


def collapse(sizes: Sizes) -> tuple[Sizes, Callable[[Any], Any] | None]:
    """Evaluate repeated sizes once: the distinct rows, and how to expand a result.

    Returns the sizes unchanged and ``None`` where they are plain numbers or vary along several dimensions.
    """
    arrays = {name: value for name, value in vars(sizes).items() if isinstance(value, np.ndarray) and value.size > 1}
    shapes = {value.shape for value in arrays.values()}
    if len(shapes) != 1:
        return sizes, None
    (shape,) = shapes
    if max(shape, default=1) != math.prod(shape):
        return sizes, None
    first, inverse = _distinct([value.ravel() for value in arrays.values()])
    tail = (1,) * (len(shape) - 1)
    axis = int(np.argmax(shape))
    view = (*tail[:axis], -1, *tail[axis:])

    def expand(result: Any) -> Any:
        return result.ravel()[inverse].reshape(view) if isinstance(result, np.ndarray) and result.size > 1 else result

    distinct = {name: value.ravel()[first].reshape(view) for name, value in arrays.items()}
    return replace(sizes, **distinct), expand


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
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    fresh = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    code = np.empty(values.size, dtype=np.int64)
    code[order] = np.cumsum(fresh) - 1
    return order[fresh], code, int(fresh.sum())
