"""Checkpoints written beside training: the job stands while the state is copied to host memory, or less than that.

When a checkpoint is durable, and how often it pays, stands in :mod:`perfmodel.machine.reliability`; the time of a step
is that without failures and does not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.errors import UnknownName
from perfmodel.machine.build import Machine
from perfmodel.techniques.base import Axis, Line, Situation, Technique
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

NAME = "checkpoints"
SYNCHRONOUS, STAGED, HIDDEN = "synchronous", "asynchronous", "hidden"
"""The job waits until all is written; until it is copied; until the update that would change it."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Written at once, or by way of the host where there is one."""
    possible = (STAGED, HIDDEN) if "host" in situation.machine.engines else ()
    named = situation.choices(NAME)
    for name in named:
        if name not in possible:
            there = (SYNCHRONOUS, *possible)
            raise UnknownName("way of writing checkpoints", name, there, remedy="there are " + ", ".join(there))
    return (Axis.of("checkpoints", [SYNCHRONOUS, *(named or possible)], structural=True),)


def undominated(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    """Ways by the host that were named are meant, not weighed: steps are the same and only the goodput differs."""
    named = tuple(value for value in values if value[0] in situation.choices(NAME))
    return named or values


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Where the copy goes, and whether it hides."""
    del situation
    staged, hidden = float(x.checkpoints != SYNCHRONOUS), float(x.checkpoints == HIDDEN)
    return {"checkpoint_staged": staged, "checkpoint_hidden": hidden} if staged else {}


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """One copy in host memory, from which it is written."""
    del machine
    return [] if x.checkpoints == SYNCHRONOUS else [Line("checkpoint copy", "host", s.saved_bytes)]


def describe(x: Plan) -> str:
    """How checkpoints are written."""
    return {STAGED: "checkpoints from host memory", HIDDEN: "checkpoints copied beside passes"}.get(x.checkpoints, "")


TECHNIQUE = Technique(
    name=NAME,
    summary="checkpoints are copied to host memory and written from there beside training",
    source="J. Mohan et al. (CheckFreq), FAST 2021; A. Maurya et al. (DataStates-LLM), arXiv:2406.10707",
    phases=frozenset({"training"}),
    neutral={"checkpoints": SYNCHRONOUS},
    axes=axes,
    layout=layout,
    memory=memory,
    describe=describe,
    by_name=True,
    choice=NAME,
    undominated=undominated,
)
