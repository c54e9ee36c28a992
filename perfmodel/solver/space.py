"""The plan space: axes of the active techniques, pinned or filtered by the user, cut into slabs and blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from perfmodel.errors import SpecError, UnknownName
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["Block", "Space", "build_space"]

BLOCK_CELLS = 250_000
"""Cells evaluated at once: arrays of this size stay near the processor, and memory stays bounded whatever the space."""


class Block(NamedTuple):
    """A part of the mesh: structural values, and one array per numeric axis on a dimension of its own."""

    structural: tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...]
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every numeric axis."""
        return tuple(len(axis.values) for axis in self.axes)

    @property
    def cells(self) -> int:
        """Number of plans."""
        return math.prod(self.shape)

    def columns(self) -> Plan:
        """Plan columns as arrays that broadcast against each other."""
        x = Plan()
        for names, values in self.structural:
            for name, value in zip(names, values, strict=True):
                setattr(x, name, value)
        for i, axis in enumerate(self.axes):
            shape = [1] * len(self.axes)
            shape[i] = len(axis.values)
            for j, name in enumerate(axis.columns):
                setattr(x, name, np.array([float(v[j]) for v in axis.values]).reshape(shape))
        return x

    def plan(self, index: int) -> Plan:
        """One plan of the block, by its flat index, as plain numbers."""
        x = Plan()
        for names, values in self.structural:
            for name, value in zip(names, values, strict=True):
                setattr(x, name, value)
        for axis, i in zip(self.axes, np.unravel_index(index, self.shape), strict=True):
            for name, value in zip(axis.columns, axis.values[int(i)], strict=True):
                setattr(x, name, float(value))
        return x


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

    def blocks(self, limit: int = BLOCK_CELLS) -> Iterator[Block]:
        """Slabs of structural values, cut along the leading axes until a block has at most ``limit`` cells."""
        for chosen in itertools.product(*(axis.values for axis in self.structural)):
            fixed = tuple((axis.columns, value) for axis, value in zip(self.structural, chosen, strict=True))
            for axes in _cut(self.numeric, limit):
                yield Block(fixed, axes)

    def plans(self) -> Iterator[Plan]:
        """Every plan on its own, as plain numbers: the slow, obvious way."""
        for block in self.blocks():
            for index in range(block.cells):
                yield block.plan(index)


def _cut(axes: tuple[Axis, ...], limit: int) -> Iterator[tuple[Axis, ...]]:
    """Split the leading axis value by value while the product of the lengths is above ``limit``."""
    cells = math.prod(len(a.values) for a in axes)
    position = next((i for i, a in enumerate(axes) if len(a.values) > 1), None)
    if cells <= limit or position is None:
        yield axes
        return
    axis = axes[position]
    pieces = min(len(axis.values), math.ceil(cells / limit))
    size = math.ceil(len(axis.values) / pieces)
    for start in range(0, len(axis.values), size):
        part = axis._replace(values=axis.values[start : start + size])
        yield from _cut((*axes[:position], part, *axes[position + 1 :]), limit)


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
    axes = [axis for t in techniques for axis in t.axes(situation)]
    known = {name for axis in axes for name in axis.columns}
    for name in pinned:
        if name not in known:
            raise UnknownName("plan column", name, known, remedy="it may belong to a technique that needs --use")
    kept = [_pin(axis, pinned) for axis in axes]
    return Space(tuple(a for a in kept if a.structural), tuple(a for a in kept if not a.structural))


def _pin(axis: Axis, pinned: Mapping[str, Any]) -> Axis:
    for i, name in enumerate(axis.columns):
        if name in pinned:
            wanted = pinned[name]
            several = isinstance(wanted, (list, tuple, set, frozenset))
            axis = _keep(axis, i, [_number(name, w) for w in (wanted if several else [wanted])])
    return axis


def _number(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise SpecError("a pinned value must be a number of zero or more", field=name, found=value)
    return value


def _keep(axis: Axis, position: int, wanted: list[Any]) -> Axis:
    """Tuples whose column has a wanted value; where the axis has none, that value in place of what it had."""
    values = tuple(v for v in axis.values if v[position] in wanted)
    missing = [w for w in wanted if all(v[position] != w for v in axis.values)]
    replaced = (tuple(w if i == position else old for i, old in enumerate(v)) for w in missing for v in axis.values)
    kept = tuple(dict.fromkeys((*values, *replaced)))
    return axis._replace(values=kept, left_out=axis.left_out + len(axis.values) - len(values))
