"""Ranks that share an image take the others' activations of the step before, all of them or a part.

Steps are alike, so what is a step old hardly differs, and it travels while the step computes. The first steps still
wait. What is taken and how long is waited is a record per published method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from perfmodel.elementwise import where
from perfmodel.errors import UnknownName
from perfmodel.machine.build import Machine
from perfmodel.operators.denoiser import halo_bytes, key_bytes
from perfmodel.specs.quality import published_loss, published_rows
from perfmodel.techniques.base import Axis, Line, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]

NAME = "displaced_patches"
OFF = "none"


class Displaced(NamedTuple):
    """What is taken of the step before.

    Parameters
    ----------
    title : in words.
    waiting : first steps that wait nevertheless.
    seen : share of the others' keys and values that travels and is attended to [1].
    """

    title: str
    waiting: float
    seen: float


METHODS = {
    "distrifusion": Displaced("all of the others' activations, of the step before", 4.0, 1.0),
    "pcpp": Displaced("three tenths of the others' keys and values, of the step before", 4.0, 0.3),
}
"""``distrifusion`` [1], and ``pcpp``, which sends 70 % less [2]."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, and the methods that were named, or else those with a published quality."""
    named = situation.choices(NAME)
    for name in named:
        if name not in METHODS:
            raise UnknownName("method", name, METHODS, remedy="there are " + ", ".join(METHODS))
    published = {row.variant for row in published_rows() if row.technique == NAME}
    wanted = named or tuple(n for n in METHODS if n in published)
    return (Axis.of("displaced", (OFF, *wanted), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """What is stale, what is seen, and the published loss for this model."""
    if x.displaced == OFF:
        return {}
    method, model = METHODS[x.displaced], situation.architecture
    loss = published_loss(NAME, x.displaced, model.family, model.parameters)
    return {
        "stale": 1.0,
        "others_seen": method.seen,
        "first_steps": method.waiting,
        "quality_loss": float("nan") if loss is None else loss.value,
    }


def memory(x: Plan, s: Any, machine: Machine) -> Sequence[Line]:
    """Keys, values and edges of the others, of every layer, until the next step."""
    if x.displaced == OFF:
        return []
    keys = sum(size * count for size, count in key_bytes(s.denoiser, s.sizes)) * METHODS[x.displaced].seen
    edges = 2.0 * sum(size * count for size, _, count in halo_bytes(s.denoiser, s.sizes))
    return [Line("activations of the step before", machine.main.tier, where(s.sizes.split > 1.0, keys + edges, 0.0))]


def legal(x: Plan, s: Any, situation: Situation) -> Mapping[str, Any]:
    """There is nothing to displace on one rank."""
    del situation
    return {} if x.displaced == OFF else {"nothing to displace": where(s.sizes.split > 1.0, 1.0, 2.0)}


def describe(x: Plan) -> str:
    """What is taken; nothing where ranks wait for each other."""
    return "" if x.displaced == OFF else METHODS[x.displaced].title


TECHNIQUE = Technique(
    name=NAME,
    summary="ranks that share an image take activations of the step before",
    source="[1] M. Li et al. (DistriFusion), arXiv:2402.19481; [2] X. Zhang et al. (PCPP), arXiv:2412.02962",
    phases=frozenset({"image"}),
    neutral={"displaced": OFF},
    axes=axes,
    layout=layout,
    memory=memory,
    legal=legal,
    opt_in=True,
    describe=describe,
    choice="displaced",
)
