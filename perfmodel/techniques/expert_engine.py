"""Routed experts of decode passes on an engine beside the accelerator, all of them or some while it runs the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.specs.architecture import Moe
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.record import Placed
from perfmodel.techniques.room import lacks_room
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

NAME = "expert_engine"
MAIN = "main"
STEPS = 16
"""Shares of the experts that are tried where there are more experts than that."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """The engines that run experts, each with shares of whole experts; the host where the devices lack room."""
    counts = [r.layer.ffn.experts for r in situation.architecture.runs if isinstance(r.layer.ffn, Moe)]
    left = {MAIN} if lacks_room(situation) or NAME in situation.excused else {MAIN, "host"}
    others = [n for n, e in situation.machine.engines.items() if n not in left and "moe" in e.runs] if counts else []
    steps = min(max(counts, default=1), STEPS)
    shares = [(name, k / steps) for name in others for k in range(1, steps + 1)]
    return (Axis(("experts_engine", "experts_share"), ((MAIN, 0.0), *shares), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Who runs how many of the experts."""
    del situation
    if x.experts_engine == MAIN:
        return {}
    return {"placed": (Placed("experts", x.experts_engine, float(x.experts_share)),)}


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Over its link go the tokens of decode passes and their sums, and the weights for passes with prompts.

    An engine in the accelerator's memory has no link, and both read the same weights.
    """
    del net
    link = machine.engine(x.experts_engine).link
    if x.experts_engine == MAIN or link is None:
        return []
    resource = f"{x.experts_engine} link"
    if s.sizes.decode:
        moved = 2.0 * s.sizes.tokens * s.architecture.hidden * s.sizes.element_bytes
        seconds = moved / link + 2.0 * machine.engine(x.experts_engine).link_latency
        return [Term("tokens to experts", "layer", resource, seconds, "link", bound=moved / link)]
    weights = x.experts_share * s.experts_stored / link
    return [Term("experts to device", "layer", resource, weights, "up", prefetch=True, bound=weights)]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Any]:
    """Whole experts of the rank; a plan names an engine and a share of it, or neither."""
    del s, situation
    share = float(x.experts_share)
    return {"experts elsewhere": 1.0 + share if x.experts_engine == MAIN else 1.0 if 0.0 < share <= 1.0 else 2.0}


def describe(x: Plan) -> str:
    """How much of the experts runs where."""
    return "" if x.experts_engine == MAIN else f"{x.experts_share:.0%} of the experts on {x.experts_engine}"


TECHNIQUE = Technique(
    name=NAME,
    summary="routed experts of decode passes on an engine beside the accelerator, whole or shared",
    source="S. Yun et al. (Duplex), arXiv:2409.01141; H. Chen et al. (KTransformers), doi:10.1145/3731569.3764843",
    phases=frozenset({"serving"}),
    neutral={"experts_engine": MAIN, "experts_share": 0.0},
    axes=axes,
    layout=layout,
    terms=terms,
    legal=legal,
    describe=describe,
    telling=("experts_engine",),
)
