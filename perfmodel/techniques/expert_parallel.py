"""Expert parallelism: data ranks share the routed experts and exchange tokens before and after them.

Tensor ranks may hold whole experts, too, instead of a slice of each. In serving they see the same tokens, so nothing
travels but the sum that tensor parallelism makes anyway; in training their activations are sharded along the sequence,
and they take part in the exchange (expert and tensor ranks fold, as in Megatron-Core).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, ceil, is_nothing, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_to_all
from perfmodel.network.exchange import vectors_sent
from perfmodel.network.topology import Dim, Group, Network, group_along, subgroup
from perfmodel.operators.formats import storage
from perfmodel.specs.architecture import Architecture, Moe
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, TokensSent
from perfmodel.units import Seconds

__all__ = ["TECHNIQUE", "all_at_once"]

EVERY = 2.0**40
"""As many ranks as there are."""


def _moes(architecture: Architecture) -> list[tuple[Moe, float]]:
    """Every kind of expert layer with its share of the layers."""
    found = [(run.layer.ffn, run.count / architecture.layers) for run in architecture.runs]
    return [(ffn, share) for ffn, share in found if isinstance(ffn, Moe)]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Powers of two up to the number of experts; serving, tensor ranks with slices of experts or with whole ones."""
    experts = min((moe.experts for moe, _ in _moes(situation.architecture)), default=1)
    most = min(experts, situation.devices, 256)
    found = (Axis.of("ep", [2**i for i in range(most.bit_length()) if 2**i <= most]),)
    whole = (1.0, EVERY) if situation.phase == "serving" and experts > 1 else (1.0,)
    return (*found, Axis.of("expert_tensor", whole))


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Tensor ranks that hold whole experts."""
    del situation
    return {"expert_tensor": x.expert_tensor}


def dims(x: Plan) -> Sequence[Dim]:
    """Inside the data ranks: experts are divided, sequences too."""
    return (Dim("expert", x.ep, frozenset({"experts", "batch"}), near=2.0),)


def all_at_once(net: Network, machine: Machine, group: Group, sent: TokensSent) -> Seconds:
    """Every copy travels from its rank to that of its expert, and back: two all-to-alls of the library [s]."""
    del machine
    if not sent.outward_bytes:
        return 2.0 * all_to_all(net, group, sent.size)
    return all_to_all(net, group, sent.outward) + all_to_all(net, group, sent.size)


def _ranks(s: Settled) -> Group:
    """Ranks that exchange tokens; in training, whole experts on tensor ranks make it the nearest ranks of a stage."""
    group, whole = s.along("expert"), s.layout.expert_tensor
    if s.situation.phase != "training" or (isinstance(whole, float) and whole == 1.0):
        return group
    stage = group_along(s.network, s.dims, frozenset(d.name for d in s.dims if "layers" not in d.splits))
    nearest = subgroup(stage, group.size * s.sizes.expert_tensor)
    pairs = zip(nearest.members, group.members, strict=True)
    return Group(tuple(where(s.sizes.expert_tensor > 1.0, near, far) for near, far in pairs))


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Dispatch and combine of every token, per expert layer and pass: a copy per expert, or one per rank that has any.

    Copies that the placement of experts keeps at home stay; of the others, those that the router keeps near travel
    inside the node only.
    """
    del x
    group, near = _ranks(s), s.layout.expert_locality
    leaving, ways = 1.0 - s.layout.copies_at_home, 0.5 * s.layout.exchange_ways
    each = (s.framework or {}).get("exchange_copies", 1.0)
    narrow = storage(s.sizes.format).bytes
    narrow = narrow if narrow <= (s.framework or {}).get("exchange_quantised", 0.0) else 0.0
    way = s.layout.token_exchange or all_at_once
    seconds: Scalar = 0.0
    for moe, share in _moes(s.architecture):
        top_k = moe.top_k * (1.0 - s.sizes.idle_choices)
        sent = TokensSent(
            count=s.sizes.tokens / s.sizes.sequence_split * s.sizes.imbalance,
            top_k=top_k,
            vectors=top_k if each == 1.0 else vectors_sent(top_k, group.size, each),
            experts=float(moe.experts),
            width=float(moe.latent or moe.hidden),
            element_bytes=s.sizes.element_bytes,
            format=s.sizes.format,
            outward_bytes=narrow,
        )
        spread = way(net, machine, group, sent.part(leaving * (1.0 - near)))
        if not is_nothing(near):
            spread = spread + way(net, machine, subgroup(group, machine.per_node), sent.part(leaving * near))
        seconds = seconds + share * ways * spread
    if not _moes(s.architecture):
        return []
    seconds = seconds * (s.framework or {}).get("expert_exposed", 1.0)
    return [Term("expert exchange", slot, "network", passes * seconds, replayed=True) for slot, passes in s.slots]


def describe(x: Plan) -> str:
    """Ranks that share the experts."""
    words = [f"ep {x.ep:g}"] if x.ep > 1 else []
    if x.expert_tensor > 1:
        words.append("whole experts on tensor ranks")
    return ", ".join(words)


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Every rank holds the same number of experts."""
    worst: Scalar = 1.0
    ranks = x.ep * s.sizes.expert_tensor
    for moe, _ in _moes(situation.architecture):
        worst = maximum(worst, ceil(moe.experts / ranks) * ranks / moe.experts)
    return {"experts": worst}


TECHNIQUE = Technique(
    name="expert_parallel",
    summary="data ranks share the routed experts; tokens travel to them and back",
    source="D. Lepikhin et al. (GShard), arXiv:2006.16668",
    phases=frozenset({"training", "serving"}),
    neutral={"ep": 1, "expert_tensor": 1.0},
    axes=axes,
    dims=dims,
    layout=layout,
    describe=describe,
    terms=terms,
    legal=legal,
    telling=("ep",),
)
