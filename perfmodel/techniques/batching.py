"""Continuous batching: how many requests a serving replica decodes together."""

from __future__ import annotations

from perfmodel.techniques.base import Axis, Situation, Technique

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Every size up to 16, then eight steps per doubling, up to 4,096 requests per replica."""
    sizes = sorted({step * 2**i for i in range(9) for step in range(8, 17)} | set(range(1, 8)))
    cap = situation.workload.concurrency
    return (Axis.of("batch", [n for n in sizes if cap is None or n <= cap]),)


TECHNIQUE = Technique(
    name="batching",
    summary="requests of a replica are decoded together, joining and leaving at every pass",
    source="G. Yu et al. (Orca), OSDI 2022",
    phases=frozenset({"serving"}),
    neutral={"batch": 1},
    axes=axes,
    always_on=True,
)
