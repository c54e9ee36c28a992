"""Passages that attend only within themselves, so that their keys and values do not depend on what stands before them.

The last piece, the question, attends to everything. Passages at hand are turned to their new positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.streaming import rotary
from perfmodel.specs.architecture import Architecture, Attention, LatentAttention
from perfmodel.specs.quality import published_loss
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

NAME = "block_attention"


def axes(situation: Situation) -> tuple[Axis, ...]:
    """On or off where prompts hold several pieces that may be reused."""
    workload = situation.workload
    pieces = workload.reused > 0 and workload.pieces > 1
    return (Axis.of("block_attention", (0.0, 1.0) if pieces else (0.0,), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Pieces apart, and the published loss of a model tuned for it."""
    if not x.block_attention:
        return {}
    architecture = situation.architecture
    loss = published_loss(NAME, "tuned", architecture.family, architecture.parameters)
    return {"pieces_apart": 1.0, "quality_loss": float("nan") if loss is None else loss.value}


def _keys(architecture: Architecture, split: Scalar) -> Scalar:
    """Numbers with a position, per token and average layer on one rank."""
    total: Scalar = 0.0
    for run in architecture.runs:
        mixer, share = run.layer.mixer, run.count / architecture.layers
        if isinstance(mixer, Attention) and not mixer.kv_from_earlier:
            total = total + share * mixer.kv_heads * mixer.head_dim / split
        elif isinstance(mixer, LatentAttention):
            total = total + share * mixer.rope_dim
    return total


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Fetched keys turned to the positions they have in this prompt."""
    del net
    if not x.block_attention or s.sizes.decode:
        return []
    tokens = s.sizes.sequences * s.layout.kv_fetched * s.situation.workload.reused
    work = rotary(tokens, s.layers * _keys(s.architecture, s.split("kv")), element_bytes=s.sizes.kv_bytes)
    seconds = kernel_time(work, machine.main).seconds * (1.0 if s.layout.kv_fetched else 0.0)
    return [Term("keys to new positions", "fetch", machine.main.tier, seconds, memory=seconds)]


def describe(x: Plan) -> str:
    """Say that pieces attend within themselves; nothing where they do not."""
    return "passages attend within themselves" if x.block_attention else ""


TECHNIQUE = Technique(
    name=NAME,
    summary="retrieved passages attend within themselves, so that they can be reused in any order",
    source="D. Ma et al. (Block-Attention), arXiv:2409.15355",
    phases=frozenset({"serving"}),
    neutral={"block_attention": 0.0},
    axes=axes,
    layout=layout,
    terms=terms,
    opt_in=True,
    describe=describe,
)
