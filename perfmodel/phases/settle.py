"""Settling: what the techniques of a plan declare becomes dims, record and parameter families, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perfmodel.elementwise import Scalar, ceil, floor, maximum, minimum, where
from perfmodel.network.topology import Dim, Network, replicas
from perfmodel.operators.moe import busiest_rank, chance_load
from perfmodel.operators.state import ParameterCounts
from perfmodel.specs.architecture import Architecture, Moe
from perfmodel.techniques.base import Situation, Technique
from perfmodel.techniques.record import Layout, merge_layouts
from perfmodel.techniques.settled import Family, Plan, split_by

__all__ = ["declare", "devices_of", "expert_imbalance", "families_of", "stage_layers"]

DATA_NEAR = 3.0
"""Placement of the data dimension: outside tensor, context and expert ranks, inside pipeline stages."""


def declare(
    techniques: Iterable[Technique], x: Plan, situation: Situation, *, devices: Scalar | None = None
) -> tuple[tuple[Dim, ...], Layout, dict[str, Scalar]]:
    """Collect dims and layout of every active technique; the remaining of ``devices`` become the data dimension.

    Returns the dims, the merged record and the legality of the device count.

    Raises
    ------
    Conflict
        If two techniques claim the same owned field.
    """
    techniques = tuple(techniques)
    dims = tuple(dim for t in techniques for dim in t.dims(x))
    layout = merge_layouts((t.name, _changes(t, x, situation)) for t in techniques)
    if devices is None:
        return dims, layout, {}
    taken: Scalar = 1.0
    for dim in dims:
        taken = taken * dim.degree
    remaining = devices / taken
    data = Dim("data", maximum(floor(remaining), 1.0), frozenset({"batch"}), DATA_NEAR)
    legal = {"device count": maximum(ceil(remaining) / remaining, 1.0 / remaining)}
    return (*dims, data), layout, legal


def _changes(technique: Technique, x: Plan, situation: Situation) -> Mapping[str, Any]:
    """What a technique declares; its loss of quality is accepted, known or not, where the user asked for it by name."""
    changes = technique.layout(x, situation)
    if technique.name not in situation.excused or "quality_loss" not in changes:
        return changes
    loss = changes["quality_loss"]
    known = loss == loss
    accepted = {"quality_accepted": where(known, loss, 0.0), "quality_unknown": where(known, 0.0, 1.0)}
    return {**changes, "quality_loss": 0.0, **accepted}


def devices_of(dims: tuple[Dim, ...]) -> Scalar:
    """Ranks of a replica: the product of all degrees."""
    devices: Scalar = 1.0
    for dim in dims:
        devices = devices * dim.degree
    return devices


def expert_imbalance(
    architecture: Architecture, variation: float, ranks: Scalar, capacity: float | None = None
) -> Scalar:
    """Tokens of the busiest of the ranks that share the experts, over the mean; the padding where there is any."""
    experts = min((run.layer.ffn.experts for run in architecture.runs if isinstance(run.layer.ffn, Moe)), default=0)
    if not experts or (capacity is None and variation == 0.0):
        return 1.0
    return busiest_rank(variation, float(experts), ranks) if capacity is None else capacity


def chance_imbalance(architecture: Architecture, tokens: Scalar, ranks: Scalar) -> Scalar:
    """Load of the busiest expert rank over the mean that chance alone makes of so many tokens; 1 without experts."""
    routed = [run.layer.ffn for run in architecture.runs if isinstance(run.layer.ffn, Moe)]
    if not routed:
        return 1.0
    f = routed[0]
    groups = {"groups": float(f.groups), "kept": float(f.groups_kept)}
    return chance_load(tokens, ranks, top_k=float(f.top_k), experts=float(f.experts), **groups)


def stage_layers(layers: int, stages: Scalar, head: float = 0.0) -> tuple[Scalar, Scalar]:
    """Layers of the first (heaviest) and of the last (lightest) of ``stages`` stages.

    ``head`` is the output head's work in layers where stages are cut by work: each takes layers until it has passed
    its share, so the first is one over it and the last keeps what is left.
    """
    if head == 0.0:
        return ceil(layers / stages), maximum(floor(layers / stages), 1.0)
    share = (layers + head) / stages
    first = minimum(floor(share) + 1.0, layers)
    last = maximum(layers - floor((stages - 1.0) * share) - 1.0, 0.0)
    return where(stages > 1.0, first, layers), where(stages > 1.0, last, layers)


def families_of(
    architecture: Architecture,
    counts: ParameterCounts,
    dims: tuple[Dim, ...],
    network: Network,
    layers: tuple[Scalar, Scalar],
    stages: Scalar,
) -> tuple[tuple[Family, ...], Scalar, Scalar]:
    """Parameters by replica group, and those of the embedding and of the head on one rank.

    ``layers`` are those of the first and of the last of ``stages`` stages.
    """
    split = split_by(dims, "weights")
    experts_split = split * split_by(dims, "experts")
    first, last = layers
    embedding = architecture.embedding_parameters / split + float(architecture.extra)
    head = (architecture.head_parameters or architecture.embedding_parameters) / split
    dense = counts.dense(split)
    single = architecture.head_parameters / split  # a tied table is stored once on a single stage
    last_extra = where(stages > 1.0, head, single + embedding)
    families = [
        Family("dense", dense, first * dense + embedding + where(stages > 1.0, 0.0, single), last * dense + last_extra,
               replicas(network, dims, "weights"))
    ]  # fmt: skip
    if counts.experts:
        per_layer = counts.experts / experts_split
        families.append(
            Family(
                "experts", per_layer, first * per_layer, last * per_layer, replicas(network, dims, "weights", "experts")
            )
        )
    return tuple(families), embedding, head
