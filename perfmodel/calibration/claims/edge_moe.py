"""Weights that routed experts read, from the operator that plans use."""

from __future__ import annotations

from typing import Any

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.layers import active_experts
from perfmodel.operators.moe import expected_loads, moe

__all__ = ["expert_order", "token_order"]


def _weights(tokens: float, experts: int, top_k: int, hidden: int, width: int) -> float:
    """Bytes that cross beside the activations, for tokens in one call: two matrices of an expert, 16 bits [B]."""
    active = float(active_experts(experts, top_k, tokens))
    loads = expected_loads(tokens * top_k, active)
    sizes: dict[str, Any] = {"experts": experts, "top_k": top_k, "gated": 0.0}
    whole = moe(tokens, hidden, width, loads, **sizes)
    free = moe(tokens, hidden, width, loads, weight_bytes=0.0, **sizes)
    return float(whole.compulsory_bytes - free.compulsory_bytes)


def expert_order(run: Run, experts: int, top_k: int, tokens: int, hidden: int, width: int) -> float:
    """All tokens in one call: weights over those of the activated experts [1]."""
    del run
    active = float(active_experts(experts, top_k, tokens))
    return _weights(tokens, experts, top_k, hidden, width) / (active * 2.0 * hidden * width * 2.0)


def token_order(run: Run, experts: int, top_k: int, tokens: int, hidden: int, width: int) -> float:
    """A call for every token: weights over those of every token's chosen experts [1]."""
    del run
    each = _weights(1.0, experts, top_k, hidden, width)
    return tokens * each / (tokens * top_k * 2.0 * hidden * width * 2.0)
