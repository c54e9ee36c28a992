"""Settling a training plan: what one rank sees of a micro-batch, and groups, sizes and bytes of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfmodel.elementwise import Scalar, ceil, minimum, where
from perfmodel.network.topology import Dim, Network
from perfmodel.operators.layers import Sizes
from perfmodel.operators.state import activations_kept, layer_parameters
from perfmodel.phases.settle import declare, expert_imbalance, families_of, stage_layers
from perfmodel.techniques.base import Situation, Technique
from perfmodel.techniques.record import Layout
from perfmodel.techniques.settled import Plan, Settled, split_by

__all__ = ["settle_training"]


def _sizes(micro_batch: Scalar, situation: Situation, dims: tuple[Dim, ...], layout: Layout) -> Sizes:
    """What one rank sees of one micro-batch."""
    workload, tokens = situation.workload, split_by(dims, "tokens")
    experts, sequence_split = split_by(dims, "experts"), split_by(dims, "sequence")
    if not (isinstance(layout.activations_whole, float) and layout.activations_whole == 0.0):
        sequence_split = where(layout.activations_whole > 0.0, 1.0, sequence_split)
    return Sizes(
        sequences=micro_batch,
        queries=workload.sequence / tokens,
        context=workload.sequence,
        context_split=tokens,
        weight_split=split_by(dims, "weights"),
        sequence_split=sequence_split,
        expert_split=experts,
        expert_tensor=minimum(layout.expert_tensor, split_by(dims, "weights")),
        idle_choices=layout.idle_choices,
        imbalance=expert_imbalance(
            situation.architecture, workload.expert_variation, experts, workload.expert_capacity
        ),
        format=workload.recipe.compute,
        plain_format="bf16",
        materialise=not workload.fused_attention,
        documents=workload.documents,
    )


def settle_training(
    x: Plan,
    techniques: Sequence[Technique],
    situation: Situation,
    network: Network,
    framework: Mapping[str, float],
) -> tuple[Settled, dict[str, Scalar]]:
    """Derive groups, sizes and bytes of a training plan, and the legality of its shape."""
    workload, architecture = situation.workload, situation.architecture
    dims, layout, legal = declare(techniques, x, situation, devices=x.devices)
    stages = split_by(dims, "layers")
    counts = layer_parameters(architecture)
    balanced = architecture.embedding_parameters * architecture.layers / architecture.layer_parameters
    first, last = stage_layers(architecture.layers, stages, balanced * framework.get("head_balanced", 0.0))
    families, embedding, head = families_of(architecture, counts, dims, network, (first, last), stages)
    sizes = _sizes(x.micro_batch, situation, dims, layout)
    recipe = workload.recipe
    stored = recipe.weights if layout.weights_bytes is None else layout.weights_bytes
    gathered_as = framework.get("weights_wire", stored)
    summed_as = framework.get("gradients_wire", recipe.gradients)
    settled = Settled(
        situation=situation,
        network=network,
        layout=layout,
        dims=dims,
        sizes=sizes,
        counts=counts,
        families=families,
        layers=architecture.layers,
        stages=stages,
        first_layers=first,
        last_layers=last,
        micro_batches=ceil(workload.global_batch / workload.sequence / (split_by(dims, "batch") * x.micro_batch)),
        weights_bytes=stored,
        gradients_bytes=recipe.gradients,
        optimizer_bytes=recipe.optimizer_bytes,
        weights_wire=gathered_as if layout.weights_wire is None else layout.weights_wire,
        gradients_wire=summed_as if layout.gradients_wire is None else layout.gradients_wire,
        boundary_bytes=sizes.tokens * architecture.hidden * sizes.element_bytes / sizes.sequence_split,
        slots=(("layer_forward", 1.0), ("layer_backward", 1.0)),
        kept=activations_kept(
            architecture,
            weight_split=sizes.weight_split,
            sequence_split=sizes.sequence_split,
            context=workload.sequence,
            materialise=sizes.materialise,
            imbalance=sizes.imbalance,
        ),
        framework=framework,
        embedding=embedding,
        head=head,
    )
    return settled, legal
