"""Compressed communication: what travels in place of weights and gradients is one record of a table.

The technique knows kinds, not names: numbers that can be added on the way (quantised, signs) keep the collectives and
change their bytes; lists of the largest numbers cannot be added, so every rank gathers everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, where
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.streaming import elementwise
from perfmodel.specs.compressors import COMPRESSORS, Compressor, compressors
from perfmodel.specs.quality import Loss, published_loss
from perfmodel.specs.records import OFF
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, family_sum
from perfmodel.units import Bytes, Seconds

__all__ = ["TECHNIQUE"]


def _published(name: str, situation: Situation) -> Loss | None:
    """Published loss of a compressor on this very model."""
    architecture = situation.architecture
    return published_loss("compressed_collectives", name, architecture.family, architecture.parameters)


def _loss(name: str, situation: Situation) -> float:
    loss = _published(name, situation)
    return float("nan") if loss is None else loss.value


def quality(x: Plan, situation: Situation) -> Loss | None:
    """What is published for the compressor on this model; no loss without one."""
    return Loss(0.0, "", "") if x.compressor == OFF else _published(x.compressor, situation)


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, and the compressors whose cost is published for the model; all, or the named, where asked for by name."""
    named = "compressed_collectives" in situation.excused
    usable = situation.choices("compressed_collectives")
    for name in usable:
        COMPRESSORS.get(name)
    usable = usable or tuple(name for name in compressors() if named or _loss(name, situation) >= 0.0)
    return (Axis.of("compressor", (OFF, *usable), structural=True),)


def _chosen(x: Plan) -> Compressor | None:
    return None if x.compressor == OFF else COMPRESSORS.get(x.compressor)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Bytes on the wire and how they are combined; what is stored does not change."""
    c = _chosen(x)
    if c is None:
        return {}
    changes: dict[str, Any] = {
        "uncompressed_steps": c.value("warm_up"),
        "sync_at_update": c.at_update,
        "gradients_gathered": c.gathered,
        "quality_loss": _loss(x.compressor, situation),
    }
    if c.gradients_wire is not None:
        changes["gradients_wire"] = c.gradients_wire
    if c.weights is not None:
        changes |= {"weights_wire": c.weights.value, "scales_wire": c.value("weight_scales")}
    return changes


def _stream(numbers: Scalar, bytes_per_number: Bytes, machine: Machine) -> Seconds:
    """Streaming pass over so many numbers; nothing where there are none [s]."""
    work = elementwise(numbers, reads=1.0, writes=0.0, flops_per_element=4.0, element_bytes=bytes_per_number)
    return where(numbers > 0.0, kernel_time(work, machine.main).seconds, 0.0)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Compress and unpack: with every gather and scatter of sharded states, else once a step."""
    del net
    c = _chosen(x)
    if c is None:
        return []
    late = 1.0 - c.value("warm_up")
    gather: Seconds = 0.0
    scatter: Seconds = 0.0
    once: Seconds = 0.0
    for f in s.families:
        weights, gradients = f.shards(s.layout.weights_shards), f.shards(s.layout.gradients_shards)
        if c.weights is not None:
            gather = gather + _stream(where(weights > 1.0, f.layer, 0.0), c.value("weight_traffic"), machine)
        if c.gradients_wire is not None:
            traffic = c.value("gradient_traffic")
            scatter = scatter + _stream(where(gradients > 1.0, f.layer, 0.0), traffic, machine)
            numbers = where((gradients <= 1.0) & (f.group.size > 1.0), f.heaviest, 0.0)
            once = once + late * _stream(numbers, traffic, machine)
            if c.gathered:
                received = numbers * c.value("density") * f.group.size
                once = once + late * _stream(received, c.value("scatter"), machine)
    return [
        Term("compress weights", "layer_forward", machine.main.tier, gather, memory=gather),
        Term("compress weights", "layer_backward", machine.main.tier, gather, memory=gather),
        Term("compress gradients", "layer_backward", machine.main.tier, scatter, memory=scatter),
        Term("compress gradients", "update", machine.main.tier, once, memory=once),
    ]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """What was not sent waits for the next step; lists of all ranks lie in memory until they are added."""
    c = _chosen(x)
    if c is None:
        return []
    own, adds = c.value("feedback"), c.value("server_feedback")
    lines = [Line("error feedback", machine.main.tier, family_sum(s.families, lambda f: f.heaviest * own)
                  + family_sum(s.families, lambda f: f.heaviest * adds / f.group.size))]  # fmt: skip
    if c.gathered:
        lists = family_sum(s.families, lambda f: f.heaviest * s.gradients_wire * f.group.size)
        lines.append(Line("gathered gradients", machine.main.tier, lists))
    return lines


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """A compressor of the whole gradient needs it whole: neither gradients nor weights sharded."""
    del situation
    c = _chosen(x)
    if c is None or not c.whole_gradient:
        return {}
    f = s.families[0]
    return {"whole gradient": f.shards(s.layout.gradients_shards) * f.shards(s.layout.weights_shards)}


MORE = ("warm_up", "feedback", "server_feedback", "density", "scatter", "gradient_traffic", "weight_traffic",
        "weight_scales")  # fmt: skip
"""Numbers of a compressor of which more costs time or memory and never saves any."""


def _kind(c: Compressor) -> tuple[bool, ...]:
    """Compressors of one kind differ in numbers only."""
    return c.gathered, c.at_update, c.whole_gradient, c.gradients_wire is None, c.weights is None


def _costs(c: Compressor) -> tuple[float, ...]:
    return (c.gradients_wire or 0.0, 0.0 if c.weights is None else c.weights.value, *(c.value(n) for n in MORE))


def undominated(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    """Compressors that none of their kind beats in every number, where the loss of quality does not choose."""
    if "compressed_collectives" not in situation.excused:
        return values
    found = {v: COMPRESSORS.get(v[0]) for v in values if v[0] != OFF}

    def beaten(c: Compressor) -> bool:
        rivals = [_costs(r) for r in found.values() if _kind(r) == _kind(c) and _costs(r) != _costs(c)]
        return any(all(p <= q for p, q in zip(rival, _costs(c), strict=True)) for rival in rivals)

    return tuple(v for v in values if v not in found or not beaten(found[v]))


def describe(x: Plan) -> str:
    """The compressor by its title; nothing without one."""
    c = _chosen(x)
    return "" if c is None else c.title


TECHNIQUE = Technique(
    name="compressed_collectives",
    summary="weights or gradients travel compressed: quantised, as signs, or the largest only",
    source="G. Wang et al. (ZeRO++), arXiv:2306.10209; I. Markov et al. (QSDP), arXiv:2302.02390; H. Tang et al. "
    "(1-bit Adam), arXiv:2102.02888; Y. Lin et al. (Deep Gradient Compression), arXiv:1712.01887",
    phases=frozenset({"training"}),
    neutral={"compressor": OFF},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    opt_in=True,
    describe=describe,
    choice="compressor",
    quality=quality,
    undominated=undominated,
    telling=("compressor",),
)
