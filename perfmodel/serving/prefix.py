"""Prefix caches: whole blocks of prompts kept after a request has left, found again by the hash of what came so far."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

__all__ = ["LruCache", "PrefixCache"]


class PrefixCache(Protocol):
    """What a replica asks of a cache; all counts are hash blocks, each as large as the trace says."""

    @property
    def idle(self) -> int:
        """Blocks that no running request holds: what may be evicted."""
        ...

    @property
    def held(self) -> int:
        """Blocks that running requests hold, each counted once."""
        ...

    def match(self, ids: Sequence[int]) -> int:
        """Number of leading blocks that can be reused."""
        ...

    def idle_among(self, ids: Sequence[int]) -> int:
        """How many of these cached blocks nobody holds now."""
        ...

    def take(self, ids: Sequence[int]) -> None:
        """A request holds these cached blocks."""
        ...

    def insert(self, path: Sequence[int], begin: int, room: int) -> tuple[list[int], int]:
        """Add the computed blocks of a path from ``begin`` on, held by the request; those already there are left out.

        Returns the new blocks, and blocks taken beside them, at most ``room``.
        """
        ...

    def release(self, ids: Sequence[int]) -> None:
        """A request no longer holds these blocks."""
        ...

    def evict(self, blocks: int) -> int:
        """Drop up to so many idle blocks and return how many."""
        ...


class LruCache:
    """Evicts the block that nobody has used for longest; of one request the tail goes before the head.

    A block's id stands for everything up to its end (chained hashes), as vLLM and Mooncake count them.
    """

    def __init__(self) -> None:
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._holders: dict[int, int] = {}

    @property
    def idle(self) -> int:
        """Blocks that no running request holds."""
        return len(self._idle)

    @property
    def held(self) -> int:
        """Blocks that running requests hold."""
        return len(self._holders)

    def match(self, ids: Sequence[int]) -> int:
        """Leading blocks in the cache."""
        found = 0
        for i in ids:
            if i not in self._holders and i not in self._idle:
                break
            found += 1
        return found

    def idle_among(self, ids: Sequence[int]) -> int:
        """Those of the blocks that nobody holds."""
        return sum(1 for i in ids if i in self._idle)

    def take(self, ids: Sequence[int]) -> None:
        """Hold cached blocks."""
        for i in ids:
            self._idle.pop(i, None)
            self._holders[i] = self._holders.get(i, 0) + 1

    def insert(self, path: Sequence[int], begin: int, room: int) -> tuple[list[int], int]:
        """Add blocks that are not there yet; returns those, and nothing taken beside them."""
        del room
        fresh = [i for i in path[begin:] if i not in self._holders and i not in self._idle]
        for i in fresh:
            self._holders[i] = 1
        return fresh, 0

    def release(self, ids: Sequence[int]) -> None:
        """Give blocks up, the last one first."""
        for i in reversed(ids):
            left = self._holders[i] - 1
            if left:
                self._holders[i] = left
            else:
                del self._holders[i]
                self._idle[i] = None

    def evict(self, blocks: int) -> int:
        """Drop the idle blocks unused for longest."""
        count = min(blocks, len(self._idle))
        for _ in range(count):
            self._idle.popitem(last=False)
        return count
