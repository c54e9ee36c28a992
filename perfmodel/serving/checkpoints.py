"""Prefix cache of models with recurrent states: a prefix can be reused only where a state was kept.

Keys and values can be cut anywhere, a recurrent state belongs to one position. So states are kept at few nodes of the
tree of prefixes, where a prompt ends and where prompts part, and what is evicted first is what saves the fewest
operations per byte, among what has not been used for long (R. Pan et al., Marconi, arXiv:2411.19379).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CheckpointCache"]


@dataclass
class _Node:
    parent: int | None
    depth: int
    used: int
    holders: int = 1
    children: int = 0
    kept: bool = False


class CheckpointCache:
    """Tree of hash blocks, some of them with a state.

    Parameters
    ----------
    state : size of a state in hash blocks.
    operations : (a, b) of the FLOP of computing n leading blocks of a prompt, a n + b n².
    weight : of saved operations per byte against recency; 0 evicts by recency alone.
    """

    def __init__(self, state: int, operations: tuple[float, float], weight: float = 1.0) -> None:
        self.state, self.operations, self.weight = state, operations, weight
        self._nodes: dict[int, _Node] = {}
        self._queue: list[tuple[int, int]] = []
        self._tick = 0
        self.idle = 0
        self.held = 0

    def match(self, ids: Sequence[int]) -> int:
        """Leading blocks up to the last one with a state."""
        found = 0
        for depth, i in enumerate(ids, 1):
            node = self._nodes.get(i)
            if node is None:
                break
            if node.kept:
                found = depth
        return found

    def idle_among(self, ids: Sequence[int]) -> int:
        """Size of those of the blocks that nobody holds, states included."""
        return sum(self._size(self._nodes[i]) for i in ids if not self._nodes[i].holders)

    def take(self, ids: Sequence[int]) -> None:
        """Hold cached blocks."""
        self._tick += 1
        for i in ids:
            node = self._nodes[i]
            if not node.holders:
                self._move(self._size(node), held=True)
            node.holders += 1
            node.used = self._tick

    def insert(self, path: Sequence[int], begin: int, room: int) -> tuple[list[int], int]:
        """Add the blocks of a path from ``begin`` on, and states where it ends and where it parts from others.

        Returns the new blocks and the size of the new states, at most ``room``.
        """
        self._tick += 1
        fresh: list[int] = []
        fork: int | None = None
        for depth in range(begin, len(path)):
            i, parent = path[depth], path[depth - 1] if depth else None
            if i in self._nodes:
                continue
            if parent is not None and parent in self._nodes:
                if self._nodes[parent].children and fork is None:
                    fork = parent
                self._nodes[parent].children += 1
            self._nodes[i] = _Node(parent, depth + 1, self._tick)
            self.held += 1
            fresh.append(i)
        paid = 0
        for place in (path[-1] if path else None, fork):
            node = self._nodes.get(place) if place is not None else None
            if node is None or node.kept or paid + self.state > room:
                continue
            node.kept = True
            paid += self.state
            if node.holders:
                self.held += self.state
            else:
                self.idle += self.state
        return fresh, paid

    def release(self, ids: Sequence[int]) -> None:
        """Give blocks up."""
        self._tick += 1
        for i in ids:
            node = self._nodes[i]
            node.holders -= 1
            node.used = self._tick
            if not node.holders:
                self._move(self._size(node), held=False)

    def evict(self, blocks: int) -> int:
        """Drop idle ends of the tree, the least useful first, until so many blocks are free; returns how many.

        The order is that of the least useful eighth at its last sorting; ends in use since are passed over.
        """
        freed = 0
        while freed < blocks:
            if not self._queue:
                self._queue = self._least()
                if not self._queue:
                    break
            place: int | None
            place, used = self._queue.pop()
            node = self._nodes.get(place)
            if node is None or node.holders or node.children or node.used != used:
                continue
            while place is not None and freed < blocks:
                above = self._nodes[place].parent
                freed += self._drop(place)
                node = self._nodes.get(above) if above is not None else None
                useless = node is not None and not (node.holders or node.children or node.kept)
                place = above if useless else None
        return freed

    def _least(self) -> list[tuple[int, int]]:
        """The least useful ends and when they were used, the least useful last."""
        ends = [i for i, n in self._nodes.items() if not n.holders and not n.children]
        return [(i, self._nodes[i].used) for i in reversed(self._by_use(ends)[: -(-len(ends) // 8)])] if ends else []

    def _by_use(self, ends: Sequence[int]) -> list[int]:
        """Ends in the order of recency plus weighted operations saved per byte, both from 0 to 1."""
        recency = [float(self._nodes[i].used) for i in ends]
        saving = [self._saving(i) for i in ends]
        scores = [a + self.weight * b for a, b in zip(_scaled(recency), _scaled(saving), strict=True)]
        return [i for _, i in sorted(zip(scores, ends, strict=True), key=lambda pair: pair[0])]

    def _saving(self, i: int) -> float:
        """Operations per hash block of memory that a hit on this end saves beyond one on the state before it."""
        node = self._nodes[i]
        if not node.kept:
            return 0.0
        above, parent = 0, node.parent
        while parent is not None and parent in self._nodes:
            if self._nodes[parent].kept:
                above = self._nodes[parent].depth
                break
            parent = self._nodes[parent].parent
        each, growing = self.operations
        saved = each * (node.depth - above) + growing * (node.depth**2 - above**2)
        return saved / (node.depth - above + self.state)

    def _drop(self, i: int) -> int:
        node = self._nodes.pop(i)
        if node.parent is not None and node.parent in self._nodes:
            self._nodes[node.parent].children -= 1
        self.idle -= self._size(node)
        return self._size(node)

    def _size(self, node: _Node) -> int:
        return 1 + (self.state if node.kept else 0)

    def _move(self, size: int, *, held: bool) -> None:
        self.held += size if held else -size
        self.idle -= size if held else -size


def _scaled(values: Sequence[float]) -> list[float]:
    least, most = min(values), max(values)
    return [(v - least) / (most - least) if most > least else 0.0 for v in values]
