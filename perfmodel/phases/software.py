"""What a framework's kernels take over those the device was measured with, operator call by operator call."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from perfmodel.elementwise import Scalar, floor, is_nothing, minimum, where
from perfmodel.operators import streaming
from perfmodel.operators.layers import Call
from perfmodel.operators.sizes import Sizes
from perfmodel.specs.architecture import Architecture, LatentAttention, Layer, LinearAttention, Moe, StateSpace

__all__ = ["IN_PASSES", "PASSES", "kernel_factor", "small_passes"]

PASSES = ("latent_passes", "index_passes", "scan_passes", "expert_passes")
"""Constants of a framework that say how many kernels of their own a layer launches for what operators do not count."""
IN_PASSES = ("launch_per_operation", "prompt_launches", "elementwise_scale", *PASSES)
"""Constants of a framework that the terms of a pass depend on."""

ALIGNED = 64.0
"""Sides of a product that are multiples of this cost nothing extra."""


def _alignment(side: Scalar) -> Scalar:
    """Largest power of two up to 64 that divides ``side``."""
    found: Scalar = 1.0
    power = 2.0
    while power <= ALIGNED:
        found = where(floor(side / power) * power == side, power, found)
        power *= 2.0
    return found


def kernel_factor(framework: Mapping[str, float], *, backward: bool) -> Callable[[Call], Scalar] | None:
    """Return the time factor of a call under a framework, ``None`` where the framework uses the measured kernels.

    Parameters
    ----------
    framework : constants of the framework.
    backward : for calls of the backward pass.
    """
    attention = framework.get("attention_backward" if backward else "attention_scale", 1.0)
    products, skew = framework.get("product_scale", 1.0), framework.get("misalignment", 0.0)
    experts, casts = framework.get("expert_scale", 1.0), framework.get("cast_scale", 1.0)
    narrow = framework.get("attention_misalignment", 0.0)
    usual = zip((attention, products, experts, casts, skew, narrow), (1.0,) * 4 + (0.0,) * 2, strict=True)
    if all(is_nothing(value - neutral) for value, neutral in usual):
        return None

    def factor(call: Call) -> Scalar:
        work = call.work
        if call.component == "casts":
            return casts
        if call.component == "experts":
            return experts
        if work.operator == "gemm":
            if is_nothing(skew):
                return products
            sides = minimum(_alignment(work.shape.m), _alignment(work.shape.n), _alignment(work.shape.k))
            return products * (ALIGNED / sides) ** skew
        if work.operator == "attention":
            return attention if is_nothing(narrow) else attention * (ALIGNED / _alignment(work.shape.k)) ** narrow
        return 1.0

    return factor


def small_passes(architecture: Architecture, s: Sizes, framework: Mapping[str, float]) -> list[Call]:
    """Passes over activations in kernels of their own that a framework makes beyond the operators of a layer.

    Each reads and writes the activations once; for few tokens it is as long as any kernel.

    Parameters
    ----------
    architecture, s : the model, and one pass of it on one rank.
    framework : constants, of which those in :data:`PASSES` count.
    """
    if not any(framework.get(name, 0.0) for name in PASSES):
        return []
    calls: list[Call] = []
    for run in architecture.runs:
        share = run.count / architecture.layers
        for name, width in _widths(run.layer, architecture.hidden, s):
            work = streaming.norm(s.tokens / s.sequence_split, width, element_bytes=s.element_bytes)
            calls.append(Call("elementwise", work, share * framework.get(name, 0.0), "layer", "elementwise"))
    return calls


def _widths(layer: Layer, hidden: int, s: Sizes) -> list[tuple[str, Scalar]]:
    """(kind of small passes, numbers per token that they move) of a layer."""
    found: list[tuple[str, Scalar]] = []
    mixer = layer.mixer
    if isinstance(mixer, LatentAttention):
        found.append(("latent_passes", 1.0 * ((mixer.q_lora_rank or 0) + mixer.kv_lora_rank + mixer.rope_dim)))
        if mixer.index_heads:
            found.append(("index_passes", 1.0 * mixer.index_heads * mixer.index_dim))
    elif isinstance(mixer, LinearAttention):
        found.append(("scan_passes", mixer.value_heads * mixer.value_dim / s.weight_split))
    elif isinstance(mixer, StateSpace):
        found.append(("scan_passes", mixer.inner / s.weight_split))
    if isinstance(layer.ffn, Moe):
        found.append(("expert_passes", 1.0 * hidden))
    return found
