"""Memory ledger of a serving replica: weights and KV cache wherever a plan keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfmodel.elementwise import Scalar, is_nothing, where
from perfmodel.machine.build import Machine
from perfmodel.operators.layers import Sizes
from perfmodel.operators.state import ParameterCounts
from perfmodel.techniques.base import Line
from perfmodel.techniques.settled import Settled
from perfmodel.units import Bytes

__all__ = ["layer_bytes", "serving_ledger"]


def _component_bytes(sizes: Sizes, counts: ParameterCounts) -> dict[str, Scalar]:
    """Stored bytes per weight of every component."""
    names = {*counts.split, *counts.whole, "experts"}
    return {name: sizes.plain_bytes if name in sizes.unquantised else sizes.weight_bytes for name in names}


def layer_bytes(counts: ParameterCounts, sizes: Sizes) -> tuple[Bytes, Bytes]:
    """Stored weights of an average layer on one rank, and those of its routed experts among them [B]."""
    each = _component_bytes(sizes, counts)
    whole = counts.stored(sizes.weight_split, sizes.expert_split, each)
    experts = counts.experts / (sizes.weight_split * sizes.expert_split) * each["experts"]
    return whole, experts


def _ends(s: Settled, *, first: bool) -> Bytes:
    """Embedding and head of one stage, which keep 16 bits and stay on the device [B]."""
    tied = s.architecture.tied
    head = where(s.stages > 1.0, 0.0, 0.0 if tied else s.head) if first else s.head
    embedding = s.embedding if first else where(s.stages > 1.0, 0.0, s.embedding)
    head = head if first else where(s.stages > 1.0, head, 0.0 if tied else head)
    return (embedding + head) * s.sizes.plain_bytes


def serving_ledger(
    s: Settled, machine: Machine, extra: Sequence[Line], framework: Mapping[str, float], *, first: bool
) -> tuple[Line, ...]:
    """Lines of one stage: what stays on the device, what lies where another engine runs it, what techniques add.

    Parameters
    ----------
    s : the settled decode pass.
    machine, framework : what it runs on.
    extra : lines of the techniques.
    first : the first stage, or the last.
    """
    main, layout = machine.main, s.layout
    layers = s.first_layers if first else s.last_layers
    cache = s.batch * layers * s.cache_per_sequence
    moved, beside = layers * s.layer_stored, layers * s.experts_stored
    away, cached = layout.weights_off, layout.cache_off
    lines: list[Line] = []
    for place in layout.placed:
        tier = machine.engine(place.engine).tier
        if place.part == "attention" or tier == main.tier:
            continue
        held = moved if place.part == "layers" else beside
        lines.append(Line("weights", tier, place.share * held))
        away = away + place.share * held / moved
        if place.part == "layers":
            lines.append(Line("KV cache", tier, place.share * cache))
            cached = cached + place.share
    here = moved if is_nothing(away) else moved * (1.0 - away)
    near = cache if is_nothing(cached) else cache * (1.0 - cached)
    unusable = (1.0 - framework.get("memory_utilisation", 1.0)) * main.capacity
    return (
        Line("weights", main.tier, here + _ends(s, first=first)),
        Line("KV cache", machine.engine(layout.attention_engine).tier, near),
        *lines,
        *extra,
        Line("runtime", main.tier, framework.get("runtime_memory", 0.0)),
        Line("left free", main.tier, unusable),
    )
