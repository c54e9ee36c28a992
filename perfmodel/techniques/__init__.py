"""Every technique, one file each; the solver, the command line, reports and documents learn of them from this tuple."""

from __future__ import annotations

from collections.abc import Iterable

from perfmodel.errors import SpecError, UnknownName
from perfmodel.techniques import (
    adaptive_modules,
    batching,
    block_attention,
    block_caching,
    checkpoints,
    chunked_prefill,
    compressed_collectives,
    context_parallel,
    cross_layer_kv,
    data_parallel,
    decode_engine,
    displaced_patches,
    expert_affinity,
    expert_batching,
    expert_engine,
    expert_locality,
    expert_offload,
    expert_parallel,
    feature_gather,
    fused_sums,
    guidance_gate,
    guidance_parallel,
    head_exchange,
    image_batch,
    interleaved_update,
    kv_policy,
    kv_store,
    local_steps,
    nano_batches,
    optimizer_offload,
    overlapping_rings,
    packed_cache,
    packed_weights,
    patch_parallel,
    pipeline_parallel,
    prefix_attention,
    recompute,
    resident_models,
    serving_offload,
    sharding,
    speculation,
    state_exchange,
    subnet,
    tensor_parallel,
    token_exchange,
    zero_bubble,
    zero_experts,
    zero_infinity,
    zeroth_order,
)
from perfmodel.techniques.base import Technique

__all__ = ["TECHNIQUES", "asked_for", "technique_names", "techniques_for"]

TECHNIQUES: tuple[Technique, ...] = (
    data_parallel.TECHNIQUE,
    batching.TECHNIQUE,
    chunked_prefill.TECHNIQUE,
    tensor_parallel.TECHNIQUE,
    fused_sums.TECHNIQUE,
    context_parallel.TECHNIQUE,
    head_exchange.TECHNIQUE,
    state_exchange.TECHNIQUE,
    expert_parallel.TECHNIQUE,
    expert_locality.TECHNIQUE,
    expert_affinity.TECHNIQUE,
    zero_experts.TECHNIQUE,
    adaptive_modules.TECHNIQUE,
    expert_batching.TECHNIQUE,
    expert_offload.TECHNIQUE,
    token_exchange.TECHNIQUE,
    pipeline_parallel.TECHNIQUE,
    zero_bubble.TECHNIQUE,
    sharding.TECHNIQUE,
    recompute.TECHNIQUE,
    nano_batches.TECHNIQUE,
    optimizer_offload.TECHNIQUE,
    interleaved_update.TECHNIQUE,
    zero_infinity.TECHNIQUE,
    compressed_collectives.TECHNIQUE,
    local_steps.TECHNIQUE,
    zeroth_order.TECHNIQUE,
    checkpoints.TECHNIQUE,
    overlapping_rings.TECHNIQUE,
    feature_gather.TECHNIQUE,
    packed_weights.TECHNIQUE,
    kv_policy.TECHNIQUE,
    cross_layer_kv.TECHNIQUE,
    kv_store.TECHNIQUE,
    block_attention.TECHNIQUE,
    prefix_attention.TECHNIQUE,
    packed_cache.TECHNIQUE,
    subnet.TECHNIQUE,
    decode_engine.TECHNIQUE,
    expert_engine.TECHNIQUE,
    speculation.TECHNIQUE,
    serving_offload.TECHNIQUE,
    resident_models.TECHNIQUE,
    image_batch.TECHNIQUE,
    guidance_parallel.TECHNIQUE,
    patch_parallel.TECHNIQUE,
    displaced_patches.TECHNIQUE,
    block_caching.TECHNIQUE,
    guidance_gate.TECHNIQUE,
)


def technique_names() -> tuple[str, ...]:
    """Names of all techniques."""
    return tuple(t.name for t in TECHNIQUES)


def asked_for(use: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Techniques by name with the values that stand behind ``=``: ``packed_weights=awq-int4-g128,vptq-2bit``.

    Raises
    ------
    UnknownName
        If there is no technique of a name.
    SpecError
        If a technique with nothing to choose is given a value.
    """
    found: dict[str, tuple[str, ...]] = {}
    for entry in use:
        name, given, values = entry.partition("=")
        technique = next((t for t in TECHNIQUES if t.name == name), None)
        if technique is None:
            known = technique_names()
            raise UnknownName("technique", name, known, remedy="there are " + ", ".join(known))
        if given and technique.choice is None:
            raise SpecError("this technique has nothing to choose", field="use", found=entry, allowed=name)
        found[name] = (*found.get(name, ()), *(v.strip() for v in values.split(",") if v.strip()))
    return found


def techniques_for(phase: str, *, lossy: bool = False, use: tuple[str, ...] = ()) -> tuple[Technique, ...]:
    """Techniques searched for a phase: those that change no numerics, and the others on request.

    Parameters
    ----------
    phase : ``training``, ``serving`` or ``image``.
    lossy : a quality budget was given, so techniques with a published cost may spend it.
    use : names asked for explicitly, each with or without ``=VALUE``.

    Raises
    ------
    UnknownName
        If a name in ``use`` is not a technique.
    """
    asked = asked_for(use)

    def searched(technique: Technique) -> bool:
        return technique.name in asked or not (technique.by_name or (technique.opt_in and not lossy))

    return tuple(t for t in TECHNIQUES if phase in t.phases and searched(t))
