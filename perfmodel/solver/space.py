"""The plan space: axes of the active techniques, pinned or filtered by the user, cut into slabs and blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError, UnknownName
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["NEAR", "Block", "Cells", "Lane", "Space", "build_space", "column_value"]

BLOCK_CELLS = 250_000
"""Cells evaluated at once: arrays of this size stay near the processor, and memory stays bounded whatever the space."""
NEAR = 2.0
"""Demand over limit up to which a plan that one constraint alone rejects is near [1]."""
MESH_CELLS = 50_000_000
"""Cells whose form (divisibility, counts) is checked at once; the arrays that check it are far smaller."""

Structural = tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...]


class Cells:
    """Some cells of a block: picks them, as one dimension, out of whatever broadcasts to it.

    Parameters
    ----------
    mask : which cells, of the shape of the block.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.flat = np.flatnonzero(mask)
        self._shape = mask.shape
        self._where = np.unravel_index(self.flat, mask.shape)

    def only(self, mask: NDArray[np.bool_]) -> Cells:
        """Some of these cells."""
        chosen = Cells.__new__(Cells)
        chosen.flat, chosen._shape = self.flat[mask], self._shape
        chosen._where = tuple(w[mask] for w in self._where)
        return chosen

    def __call__(self, value: Any) -> Any:
        """The entries of the cells; what does not vary stays as it is."""
        if not isinstance(value, np.ndarray) or value.ndim == 0:
            return value
        inner = self._where[len(self._where) - value.ndim :]
        where = tuple(w if n > 1 else 0 for w, n in zip(inner, value.shape, strict=True))
        return value[where]


class Lane(NamedTuple):
    """One dimension of a block: columns that are set together, one row per entry."""

    columns: tuple[str, ...]
    table: NDArray[np.float64]

    @classmethod
    def of(cls, axis: Axis) -> Lane:
        """Lane of a numeric axis."""
        return cls(axis.columns, np.array(axis.values, dtype=float).reshape(len(axis.values), len(axis.columns)))


class Block(NamedTuple):
    """A part of the mesh: structural values, and lanes on dimensions of their own."""

    structural: Structural
    lanes: tuple[Lane, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every lane."""
        return tuple(len(lane.table) for lane in self.lanes)

    @property
    def cells(self) -> int:
        """Number of plans."""
        return math.prod(self.shape)

    def columns(self) -> Plan:
        """Plan columns as arrays that broadcast against each other; what has one value is a plain number."""
        x = self._fixed()
        for i, lane in enumerate(self.lanes):
            shape = [1] * len(self.lanes)
            shape[i] = len(lane.table)
            for j, name in enumerate(lane.columns):
                column = lane.table[:, j]
                setattr(x, name, float(column[0]) if len(column) == 1 else column.reshape(shape))
        return x

    def plan(self, index: int) -> Plan:
        """One plan of the block, by its flat index, as plain numbers."""
        x = self._fixed()
        for lane, i in zip(self.lanes, np.unravel_index(index, self.shape), strict=True):
            for name, value in zip(lane.columns, lane.table[int(i)].tolist(), strict=True):
                setattr(x, name, value)
        return x

    def _fixed(self) -> Plan:
        x = Plan()
        for names, values in self.structural:
            for name, value in zip(names, values, strict=True):
                setattr(x, name, value)
        return x

    def keep(self, mask: NDArray[np.bool_]) -> Block:
        """Well-formed plans only: the lanes that ``mask`` depends on become one lane of their surviving tuples."""
        involved = [i for i, n in enumerate(mask.shape) if n > 1]
        if not involved:
            return self if mask.all() else Block(self.structural, (Lane((), np.zeros((0, 0))),))
        chosen = np.nonzero(mask.reshape([mask.shape[i] for i in involved]))
        columns = tuple(name for i in involved for name in self.lanes[i].columns)
        table = np.concatenate([self.lanes[i].table[rows] for i, rows in zip(involved, chosen, strict=True)], axis=1)
        others = tuple(lane for i, lane in enumerate(self.lanes) if i not in involved)
        return Block(self.structural, (Lane(columns, table), *others))

    def pieces(self, limit: int = BLOCK_CELLS) -> Iterator[Block]:
        """Cut along the leading lanes until a piece has at most ``limit`` cells."""
        position = next((i for i, n in enumerate(self.shape) if n > 1), None)
        if self.cells <= limit or position is None:
            yield self
            return
        lane = self.lanes[position]
        size = math.ceil(len(lane.table) / min(len(lane.table), math.ceil(self.cells / limit)))
        for start in range(0, len(lane.table), size):
            part = lane._replace(table=lane.table[start : start + size])
            yield from Block(self.structural, (*self.lanes[:position], part, *self.lanes[position + 1 :])).pieces(limit)


class Space(NamedTuple):
    """All axes of a search."""

    structural: tuple[Axis, ...]
    numeric: tuple[Axis, ...]

    @property
    def cells(self) -> int:
        """Plans in the mesh."""
        return math.prod(len(a.values) for a in (*self.structural, *self.numeric))

    @property
    def left_out(self) -> int:
        """Tuples that techniques left out of their joint axes, times the other axes."""
        whole = math.prod(len(a.values) + a.left_out for a in (*self.structural, *self.numeric))
        return whole - self.cells

    @property
    def columns(self) -> tuple[str, ...]:
        """Every plan column."""
        return tuple(name for axis in (*self.structural, *self.numeric) for name in axis.columns)

    def slabs(self, limit: int = MESH_CELLS) -> Iterator[Block]:
        """One block per combination of structural values, cut where it is enormous."""
        lanes = tuple(Lane.of(axis) for axis in self.numeric)
        for chosen in itertools.product(*(axis.values for axis in self.structural)):
            fixed = tuple((axis.columns, value) for axis, value in zip(self.structural, chosen, strict=True))
            yield from Block(fixed, lanes).pieces(limit)

    def parts(self, key: Callable[[Plan], float]) -> list[tuple[float, Space]]:
        """Structural values grouped by a number that they alone decide, least first; NaN belongs to no part."""
        columns = tuple(name for axis in self.structural for name in axis.columns)
        groups: dict[float, list[tuple[Any, ...]]] = {}
        for chosen in itertools.product(*(axis.values for axis in self.structural)):
            values = tuple(v for axis in chosen for v in axis)
            groups.setdefault(key(Plan(**dict(zip(columns, values, strict=True)))), []).append(values)
        ordered = sorted(number for number in groups if not math.isnan(number))
        return [(n, Space((Axis(columns, tuple(groups[n]), structural=True),), self.numeric)) for n in ordered]

    def plans(self) -> Iterator[Plan]:
        """Every plan on its own, as plain numbers: the slow, obvious way."""
        for block in self.slabs():
            for index in range(block.cells):
                yield block.plan(index)


def build_space(techniques: Sequence[Technique], situation: Situation, pinned: Mapping[str, Any]) -> Space:
    """Collect the axes of the techniques and keep what the user pinned.

    Parameters
    ----------
    techniques : the active ones.
    situation : what they may look at.
    pinned : column -> value, or a sequence of values to search.

    Raises
    ------
    UnknownName
        If a pinned column belongs to no active technique.
    """
    axes = [(t, axis) for t in techniques for axis in t.axes(situation)]
    known = {name for _, axis in axes for name in axis.columns}
    for name in pinned:
        if name not in known:
            raise UnknownName("plan column", name, known, remedy="it may belong to a technique that needs --use")
    kept = []
    for technique, axis in axes:
        worth = _worth(technique, _pin(axis, pinned), situation)
        kept.append(worth if pinned.keys() & set(axis.columns) else _payable(technique, worth, situation))
    return Space(tuple(a for a in kept if a.structural), tuple(a for a in kept if not a.structural))


def _worth(technique: Technique, axis: Axis, situation: Situation) -> Axis:
    """Values that no other beats in every plan; what the user pinned is never beaten by what he did not."""
    values = technique.undominated(axis.values, situation)
    return axis._replace(values=values, left_out=axis.left_out + len(axis.values) - len(values))


def _payable(technique: Technique, axis: Axis, situation: Situation) -> Axis:
    """Values whose own loss of quality is published and near the budget: no plan may spend the others.

    What was asked for by name, or pinned, stays: its loss is accepted, or told.
    """
    if not technique.opt_in or technique.name in situation.excused:
        return axis
    limit = NEAR * (situation.quality_budget or 0.0)

    def loss(values: tuple[Any, ...]) -> float:
        x = Plan(**{**technique.neutral, **dict(zip(axis.columns, values, strict=True))})
        return float(technique.layout(x, situation).get("quality_loss", 0.0))

    kept = tuple(v for v in axis.values if loss(v) <= limit) or axis.values
    return axis._replace(values=kept, left_out=axis.left_out + len(axis.values) - len(kept))


def _pin(axis: Axis, pinned: Mapping[str, Any]) -> Axis:
    for i, name in enumerate(axis.columns):
        if name in pinned:
            wanted = pinned[name]
            several = isinstance(wanted, (list, tuple, set, frozenset))
            axis = _keep(axis, i, [column_value(axis, i, w) for w in (wanted if several else [wanted])])
    return axis


def column_value(axis: Axis, position: int, value: Any) -> Any:
    """Return a value that a user gives a column, if it may have it: a degree, a switch or a name.

    Raises
    ------
    UnknownName
        If the column takes names and has not this one.
    SpecError
        If it takes numbers and this is none of them.
    """
    name, known = axis.columns[position], {v[position] for v in axis.values}
    if any(isinstance(k, str) for k in known):
        if value not in known:
            raise UnknownName(f"value of {name}", str(value), map(str, known), remedy="it can be " + _listed(known))
        return value
    least = min(1.0, *known)
    allowed = "a whole number of 1 or more" if least == 1.0 else f"{min(known):g} to {max(known):g}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < least or (value != int(value) if least == 1.0 else value > max(known)):
        raise SpecError("not a value of this column", field=name, found=value, allowed=allowed)
    return value


def _listed(known: set[Any]) -> str:
    return ", ".join(sorted(map(str, known)))


def _keep(axis: Axis, position: int, wanted: list[Any]) -> Axis:
    """Tuples whose column has a wanted value; where the axis has none, that value in place of what it had."""
    values = tuple(v for v in axis.values if v[position] in wanted)
    missing = [w for w in wanted if all(v[position] != w for v in axis.values)]
    replaced = (tuple(w if i == position else old for i, old in enumerate(v)) for w in missing for v in axis.values)
    kept = tuple(dict.fromkeys((*values, *replaced)))
    return axis._replace(values=kept, left_out=axis.left_out + len(axis.values) - len(values))
