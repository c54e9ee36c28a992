"""Decode attention on another engine of the node (PIM, CSD, FPGA, host), in one or two interleaved sub-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.specs.architecture import Architecture, Attention, LatentAttention
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.record import Placed
from perfmodel.techniques.room import lacks_room
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

NAME = "decode_engine"


def axes(situation: Situation) -> tuple[Axis, ...]:
    """The engines beside the accelerator that run decode attention; one or two sub-batches with each.

    The host is one of them where the devices have no room for the model, or where it was asked for.
    """
    left = {"main"} if lacks_room(situation) or NAME in situation.excused else {"main", "host"}
    others = [
        name for name, engine in situation.machine.engines.items()
        if name not in left and "decode_attention" in engine.runs and engine.multiplies("bf16")
    ]  # fmt: skip
    return (
        Axis.of("attention_engine", ["main", *others], structural=True),
        Axis.of("sub_batches", [1.0, 2.0] if others else [1.0]),
    )


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Who runs the attention core and holds the cache, and how many parts of the batch are in flight."""
    del situation
    if x.attention_engine == "main":
        return {}
    return {"placed": (Placed("attention", x.attention_engine),), "sub_batches": x.sub_batches}


def _crossing(architecture: Architecture, split: Scalar) -> Scalar:
    """Numbers per token and average layer that cross to the engine and back: query, new key and value, output."""
    total: Scalar = 0.0
    for run in architecture.runs:
        mixer, share = run.layer.mixer, run.count / architecture.layers
        if isinstance(mixer, Attention):
            both = mixer.head_dim + mixer.value_dim
            total = total + share * (mixer.heads + mixer.kv_heads) * both / split
        elif isinstance(mixer, LatentAttention):
            latent = mixer.kv_lora_rank + mixer.rope_dim
            total = total + share * (mixer.heads * (latent + mixer.kv_lora_rank) / split + latent)
    return total


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """An engine with memory of its own gets the new query, key and value over its link and sends the output back.

    Prompts are computed on the device: only their keys and values follow, beside the next layer.
    """
    del net
    link = machine.engine(x.attention_engine).link
    if x.attention_engine == "main" or link is None:
        return []
    resource = f"{x.attention_engine} link"
    if not s.sizes.decode:
        cached = s.sizes.tokens * s.cache_per_sequence / s.context
        return [Term("cache to attention engine", slot, resource, cached / link, "link", True) for slot, _ in s.slots]
    moved = s.sizes.tokens * _crossing(s.architecture, s.sizes.weight_split) * s.sizes.element_bytes
    seconds = moved / link + 2.0 * machine.engine(x.attention_engine).link_latency
    return [Term("to attention engine", slot, resource, seconds, "link") for slot, _ in s.slots]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Without another engine there is nothing to interleave with."""
    del s, situation
    return {"sub-batches": x.sub_batches} if x.attention_engine == "main" else {}


TECHNIQUE = Technique(
    name=NAME,
    summary="decode attention on an engine beside the accelerator",
    source="J. Heo et al. (NeuPIMs), arXiv:2403.00579; S. Chen et al. (Lamina), arXiv:2405.01814",
    phases=frozenset({"serving"}),
    neutral={"attention_engine": "main", "sub_batches": 1.0},
    axes=axes,
    layout=layout,
    terms=terms,
    legal=legal,
    telling=("attention_engine",),
)
