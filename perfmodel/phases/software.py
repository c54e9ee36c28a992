"""What a framework's kernels take over those the device was measured with, operator call by operator call."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from perfmodel.elementwise import Scalar, floor, is_nothing, minimum, where
from perfmodel.operators.layers import Call

__all__ = ["kernel_factor"]

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
