"""Remember what depends on sizes alone, so that slabs that share sizes share the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from perfmodel.operators.layers import Sizes

__all__ = ["Memo", "key_of"]


def _key(value: Any) -> Any:
    """Hashable stand-in for a value: arrays by contents, sizes field by field."""
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, Sizes):
        return tuple(_key(v) for v in vars(value).values())
    if isinstance(value, tuple):
        return tuple(_key(v) for v in value)
    return value


def key_of(value: Any) -> Any:
    """Hashable stand-in for work or sizes: equal contents, equal keys."""
    return _key(value)


T = TypeVar("T")


class Memo(Generic[T]):
    """A small cache keyed by the contents of sizes; lives for one search."""

    def __init__(self, limit: int = 64) -> None:
        self._kept: dict[Any, T] = {}
        self._limit = limit
        self.known: dict[Any, Any] = {}
        """Kernel times and bounds by engine and work, for calls that different sizes of passes have in common."""

    def get(self, sizes: Any, compute: Callable[[], T]) -> T:
        """Return the remembered value for equal keys, else compute it."""
        key = _key(sizes)
        if key not in self._kept:
            if len(self._kept) >= self._limit:
                self._kept.clear()
                self.known.clear()
            self._kept[key] = compute()
        return self._kept[key]
