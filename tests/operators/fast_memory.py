"""A fast memory that counts: loops written against it compute real results and cannot hold more than fits."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class FastMemory:
    """Elements loaded from and stored to slow memory; ``capacity`` elements may be resident at a time."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.loads = self.stores = self.resident = self.peak = 0

    @property
    def traffic(self) -> int:
        return self.loads + self.stores

    def _take(self, elements: int) -> None:
        self.resident += elements
        self.peak = max(self.peak, self.resident)
        assert self.resident <= self.capacity, f"{self.resident} elements in a memory of {self.capacity}"

    def load(self, slow: Array) -> Array:
        """Copy a part of slow memory."""
        copy = np.array(slow, dtype=slow.dtype, ndmin=1)
        self.loads += copy.size
        self._take(copy.size)
        return copy

    def new(self, *shape: int, value: float = 0.0) -> Array:
        """Room for results, without a load."""
        fresh = np.full(shape, value)
        self._take(fresh.size)
        return fresh

    def store(self, slow: Array, value: Array) -> None:
        """Write a part of slow memory; the value stays resident until dropped."""
        slow[...] = value.reshape(slow.shape)
        self.stores += value.size

    def drop(self, *values: Array) -> None:
        for value in values:
            self.resident -= value.size
        assert self.resident >= 0


def blocks(total: int, block: float) -> list[slice]:
    """Cut ``range(total)`` into blocks, the last one short."""
    step = int(block)
    return [slice(i, min(i + step, total)) for i in range(0, total, step)]
