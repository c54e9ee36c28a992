"""What a first token waits for outside passes: client, server, and what layers with experts add."""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.specs.architecture import Architecture, Moe
from perfmodel.units import Seconds

__all__ = ["first_token_of"]


def first_token_of(framework: Mapping[str, float], architecture: Architecture) -> Seconds:
    """Time to the first token that no pass takes, of a worker that prefills and decodes [s].

    Layers with experts add to it; why is not known, but so many milliseconds for each hold for two models.
    """
    routed = sum(run.count for run in architecture.runs if isinstance(run.layer.ffn, Moe))
    return framework.get("first_token", 0.0) + routed * framework.get("first_token_experts", 0.0)
