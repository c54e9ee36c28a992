"""What a technique is: axes, dims, declared changes, terms, ledger lines, legality. One file each.

A technique never reads another's columns: it reads its own from the plan ``x`` and everything shared from the settled
record ``s``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from perfmodel.elementwise import Scalar
from perfmodel.network.topology import Dim
from perfmodel.specs.quality.loss import Loss
from perfmodel.units import Bytes, Seconds

if TYPE_CHECKING:
    from perfmodel.machine.build import Machine
    from perfmodel.specs.architecture import Architecture

__all__ = ["Axis", "Line", "Situation", "Technique", "Term", "acting"]


class Term(NamedTuple):
    """One named time on one resource.

    Parameters
    ----------
    name : what bars and tables call it.
    slot : how often it is paid: layer_forward, layer_backward, boundary, embed, head, sync, update, tail, outer;
        serving: layer, head,
        host, handover.
    resource : what it keeps busy: matrix, memory, an engine, a network level kind, host, idle.
    seconds : per payment [s].
    lane : terms of one lane follow each other; lanes run side by side. ``main`` is the engine's own stream.
    prefetch : needs nothing this slot computes, so it may run ahead.
    replayed : recomputation repeats it.
    every, window : paid once per ``every`` steps (sync, outer), hidden behind ``window`` of them (outer slot).
    bound : seconds below which no implementation gets [s].
    joules : what an engine beside the main one draws above idle while it runs this [J].
    compute, memory : seconds for which compute units and main memory would be busy at full rate [s].
    """

    name: str
    slot: str
    resource: str
    seconds: Seconds
    lane: str = "main"
    prefetch: bool = False
    replayed: bool = False
    every: Scalar = 1.0
    window: Scalar = 0.0
    bound: Seconds = 0.0
    core: bool = False
    """Part of the attention core, which selective recomputation replays on its own."""
    compute: Seconds = 0.0
    memory: Seconds = 0.0
    joules: Scalar = 0.0
    of_weights: bool = False
    """A weight gradient, which no other pass waits for."""


class Line(NamedTuple):
    """One line of the memory ledger: bytes per device in a tier."""

    name: str
    tier: str
    bytes: Bytes


class Axis(NamedTuple):
    """One searched dimension of the plan space.

    ``columns`` are set together from each entry of ``values`` (a joint axis declares legal tuples of its own
    columns). Columns of a ``structural`` axis are Python values that select code paths; each of its values is
    searched as a slab of its own.
    """

    columns: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    structural: bool = False
    left_out: int = 0
    """Tuples of the full product that the technique knows to be illegal or redundant."""

    @classmethod
    def of(cls, column: str, values: Sequence[Any], *, structural: bool = False) -> Axis:
        """Axis of one column."""
        return cls((column,), tuple((v,) for v in values), structural)


class Situation(NamedTuple):
    """What a technique may look at when it proposes axes: never a plan.

    Parameters
    ----------
    phase : ``training`` or ``serving``.
    architecture : the model.
    machine : the machine.
    workload : the workload specification.
    devices : largest number of devices considered.
    excused : techniques asked for by name: that their quality is unknown does not rule them out.
    quality_budget : largest published loss that a plan may spend, ``None`` where none was given [1].
    chosen : (technique, values) of those that were asked for with values, as ``packed_weights=awq-int4-g128``.
    """

    phase: str
    architecture: Architecture
    machine: Machine
    workload: Any
    devices: int
    excused: frozenset[str] = frozenset()
    chosen: tuple[tuple[str, tuple[str, ...]], ...] = ()
    quality_budget: float | None = None

    def choices(self, technique: str) -> tuple[str, ...]:
        """Values that a technique was asked for with, none if it was not."""
        return dict(self.chosen).get(technique, ())

    def within_reach(self, losses: Mapping[Any, float]) -> frozenset[Any]:
        """Choices whose published loss the budget covers, and the mildest beyond it, which tells what more would buy.

        All where there is no budget.
        """
        if self.quality_budget is None:
            return frozenset(losses)
        ordered = sorted(losses, key=lambda v: losses[v])
        covered = [v for v in ordered if losses[v] <= self.quality_budget]
        return frozenset(ordered[: len(covered) + 1])


def _no_axes(situation: Situation) -> tuple[Axis, ...]:
    del situation
    return ()


def _all(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    del situation
    return values


def _nothing(*_: Any) -> Any:
    return ()


def _no_changes(*_: Any) -> Mapping[str, Any]:
    return {}


class Technique(NamedTuple):
    """One technique. Every function is pure and accepts numbers, arrays or symbols.

    Parameters
    ----------
    name : what users write.
    summary : one line.
    source : where it was published.
    phases : ``training``, ``serving`` or both.
    axes : situation -> searched axes; the first value of each column is neutral (the technique switched off).
    neutral : column -> value that makes the technique vanish.
    dims : plan -> rank dimensions it adds.
    layout : plan, situation -> changes to the record.
    terms : plan, settled, machine, network -> terms.
    memory : plan, settled, machine -> ledger lines.
    legal : plan, settled, situation -> constraint name -> demand / limit; legal up to 1.
    opt_in : it changes the numerics or the quality: searched only with a quality budget or by name.
    by_name : it widens the search, or few have the software: searched only when asked for by name.
    describe : plan -> words, none to stay silent; without it, the columns away from neutral are listed.
    choice : column whose values may follow its name, as ``--use NAME=VALUE``.
    assumes : plan, situation -> (what the plan takes for granted because of it, the flag that changes it).
    pays_within : column up to some value of which it pays and beyond which it no longer does.
    quality : plan, situation -> published loss with its source, ``None`` where nobody published one.
    telling : columns in which plans must differ to be listed side by side; its dims' degrees need not be named.
    undominated : values of its axis, situation -> those that no other of them beats or equals in time, memory and
        legality whatever the rest of the plan; the others need not be searched.
    continuous : columns in which its terms, ledger lines and legality are affine: shares that the solver finds exactly.
    always_on : it acts at its neutral values, too: they are a first choice, not a switch.
    """

    name: str
    summary: str
    source: str
    phases: frozenset[str]
    neutral: Mapping[str, Any]
    axes: Callable[[Situation], tuple[Axis, ...]] = _no_axes
    dims: Callable[..., Sequence[Dim]] = _nothing
    layout: Callable[..., Mapping[str, Any]] = _no_changes
    terms: Callable[..., Sequence[Term]] = _nothing
    memory: Callable[..., Sequence[Line]] = _nothing
    legal: Callable[..., Mapping[str, Scalar]] = _no_changes
    opt_in: bool = False
    by_name: bool = False
    describe: Callable[[Any], str] | None = None
    choice: str | None = None
    assumes: Callable[[Any, Situation], Sequence[tuple[str, str]]] = _nothing
    pays_within: str | None = None
    quality: Callable[[Any, Situation], Loss | None] | None = None
    telling: tuple[str, ...] = ()
    undominated: Callable[[tuple[tuple[Any, ...], ...], Situation], tuple[tuple[Any, ...], ...]] = _all
    continuous: tuple[str, ...] = ()
    always_on: bool = False

    def acts(self, x: Any) -> bool:
        """Whether it may change anything in a plan or a block; not where every column is plainly neutral."""
        columns = vars(x)
        values = ((columns.get(name, off), off) for name, off in self.neutral.items())
        return self.always_on or any(isinstance(value, np.ndarray) or value != off for value, off in values)


def acting(techniques: Iterable[Technique], x: Any) -> tuple[Technique, ...]:
    """Techniques that may change anything in a plan or a block, in their order.

    At its neutral values a technique vanishes to the last bit, so that most of them cost a slab nothing.
    """
    return tuple(t for t in techniques if t.acts(x))
