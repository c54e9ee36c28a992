"""Parts of a pass side by side on one device: products on its units, attention on its memory, sums on its links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """One part, or as many as a layer has kinds of work to overlap."""
    del situation
    return (Axis.of("nano", (1.0, 2.0, 4.0), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Parts in flight at once, each with a share of the batch; every part reads the weights."""
    del situation
    return {"sub_batches": x.nano, "side_by_side": x.nano} if x.nano > 1.0 else {}


def describe(x: Plan) -> str:
    """How many."""
    return f"{x.nano:g} nano-batches side by side" if x.nano > 1.0 else ""


TECHNIQUE = Technique(
    name="nano_batches",
    summary="operators of parts of a batch that wait for compute, memory and network run side by side on a device",
    source="K. Zhu et al. (NanoFlow), arXiv:2408.12757",
    phases=frozenset({"serving"}),
    neutral={"nano": 1.0},
    axes=axes,
    layout=layout,
    by_name=True,
    describe=describe,
)
