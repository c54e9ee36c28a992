"""Points of a layer at which ranks that share its matrices add up what they computed."""

from __future__ import annotations

from perfmodel.specs.architecture import Architecture

__all__ = ["sums_per_layer"]


def sums_per_layer(architecture: Architecture, apart: float = 0.0) -> float:
    """Points of an average layer at which partial sums are added: after the mixer and after the feed-forward.

    Parameters
    ----------
    architecture : the model.
    apart : 1 where software adds up both parts of a parallel layer by themselves, 0 where their sum is added up once.
    """
    total = 0.0
    for run in architecture.runs:
        layer = run.layer
        parts = 1.0 + apart if layer.parallel else sum(p is not None for p in (layer.mixer, layer.ffn))
        total += run.count * parts
    return total / architecture.layers
