"""Tokens go on from the rank of their expert, and experts that follow each other are placed on one rank.

Every rank then knows the context of all sequences: without the way back, a token travels once per expert layer instead
of twice, but keys and values of new tokens go to all ranks, once per pass. Which expert a token takes says much about
the one it takes in the next layer, so a placement by measured transitions keeps a share of the tokens on their rank.
Nothing that is computed changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import where
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_gather
from perfmodel.network.topology import Network
from perfmodel.specs.architecture import Moe
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the leaving tokens that a placement may keep, to be chosen by whoever measured the transitions."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, tokens that go on from where they are, and placements that keep a share of them."""
    routed = any(isinstance(run.layer.ffn, Moe) for run in situation.architecture.runs)
    values = [(0.0, 0.0), *((1.0, share) for share in SHARES)] if routed else [(0.0, 0.0)]
    return (Axis(("stay_with_experts", "expert_affinity"), tuple(values)),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """One way instead of two, and the copies that need none."""
    del situation
    return {"exchange_ways": 2.0 - x.stay_with_experts, "copies_at_home": x.stay_with_experts * x.expert_affinity}


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Keys and values of the new tokens of all ranks, gathered once per pass and layer."""
    del machine
    group = s.along("expert")
    size = s.sizes.tokens * group.size * s.cache_per_sequence / s.context
    seconds = where(x.stay_with_experts > 0.0, all_gather(net, group, size), 0.0)
    return [Term("context to all ranks", slot, "network", n * seconds) for slot, n in s.slots]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Keys and values of the sequences of the other ranks."""
    others = x.stay_with_experts * (s.along("expert").size - 1.0)
    tier = machine.engine(s.layout.attention_engine).tier
    return [Line("context of other ranks", tier, others * s.batch * s.first_layers * s.cache_per_sequence)]


def describe(x: Plan) -> str:
    """Where tokens stay."""
    if not x.stay_with_experts:
        return ""
    kept = f", {x.expert_affinity:.0%} of them at home" if x.expert_affinity else ""
    return f"tokens stay with their experts{kept}"


TECHNIQUE = Technique(
    name="expert_affinity",
    summary="tokens go on from the rank of their expert; experts that follow each other are placed together",
    source="J. Yao et al. (ExFlow), arXiv:2401.08383",
    phases=frozenset({"serving"}),
    neutral={"stay_with_experts": 0.0, "expert_affinity": 0.0},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    describe=describe,
    by_name=True,
)
