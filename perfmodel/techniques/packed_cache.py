"""Keys and values cached in fewer bits: what a cached number costs to hold and to read is one record of a table.

Decode attention unpacks what it reads on the vector units of its engine, beside its loads; an engine without kernels
for narrow caches unpacks to 16 bits in memory first. Prompts attend to keys that are still in 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.machine.build import Machine
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.formats import cached_bytes, mean_head
from perfmodel.operators.state import key_value_bytes
from perfmodel.operators.streaming import elementwise
from perfmodel.specs.number_formats import NumberFormat, cache_format, cache_formats
from perfmodel.specs.quality.formats import format_loss
from perfmodel.specs.quality.loss import Loss
from perfmodel.specs.records import OFF
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

NAME = "packed_cache"
USUAL = 0.05
"""Largest published loss of the formats that the bare name of the technique stands for [1]."""


def _loss(name: str, situation: Situation) -> Loss | None:
    """Published loss; formats are told apart by the bits that the table prints, which leave scales out."""
    record = cache_format(name)
    bits = record.number_bits if record.quality is None else record.quality.cache
    return format_loss(record.quality, bits, situation.architecture)


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, and the formats that were named; without names those whose quality is known for the model."""
    named = situation.choices(NAME)
    for name in named:
        cache_format(name)
    if not named and NAME in situation.excused:
        named = tuple(cache_formats())
    known = named or tuple(n for n in cache_formats() if _loss(n, situation) is not None)
    return (Axis.of("packed_cache", (OFF, *known), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Bytes per cached number at the longest context, the attention's format, and the published loss."""
    if x.packed_cache == OFF:
        return {}
    record, found = cache_format(x.packed_cache), quality(x, situation)
    context = 1.0 * (situation.workload.prompt + situation.workload.output)
    return {
        "kv_bytes": cached_bytes(record, mean_head(situation.architecture), context),
        "attention_format": _product(record, situation.machine.main),
        "quality_loss": float("nan") if found is None else found.value,
    }


def quality(x: Plan, situation: Situation) -> Loss | None:
    """What is published for the format on this model; no loss without one."""
    return Loss(0.0, "", "") if x.packed_cache == OFF else _loss(x.packed_cache, situation)


def _product(record: NumberFormat, engine: Engine) -> str | None:
    return next((p for p in record.products if engine.multiplies(p)), None)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Unpacking of all that one decode pass reads, once per key head whatever the queries that share it."""
    del net
    if x.packed_cache == OFF or not s.sizes.decode:
        return []
    engine, record = machine.engine(s.layout.on("attention").engine), cache_format(x.packed_cache)
    direct = _product(record, engine) in ("fp8",)
    if direct or record.unpack.value == 0.0:
        return []
    sizes = s.sizes
    read = sizes.sequences * key_value_bytes(
        s.architecture, sizes.context - sizes.unread, kv_split=s.split("kv"), kv_bytes=1.0
    )
    if engine.native("int4") or any(engine.native(p) for p in record.products[:-1]):
        seconds = read * record.unpack.value / engine.vector_peak()
        return [Term("unpack cache", slot, "vector", n * seconds, NAME, prefetch=True) for slot, n in s.slots]
    work = elementwise(read, reads=sizes.kv_bytes / 2.0, writes=1.0, flops_per_element=record.unpack.value)
    seconds = kernel_time(work, engine).seconds
    return [Term("unpack cache", slot, engine.tier, n * seconds) for slot, n in s.slots]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """The engine multiplies in one of the formats that the record names."""
    del s
    if x.packed_cache == OFF:
        return {}
    runs = _product(cache_format(x.packed_cache), situation.machine.main) is not None
    return {"number format": 1.0 if runs else 2.0}


def undominated(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    """Those in reach of the budget; for the bare name those of small published loss, of 8 bits where none is known."""
    if situation.choices(NAME):
        return values
    losses = {v: _loss(v[0], situation) for v in values if v[0] != OFF}
    if NAME not in situation.excused:
        reach = situation.within_reach({v: loss.value for v, loss in losses.items() if loss is not None})
        return tuple(v for v in values if v[0] == OFF or v in reach)
    usual = [v for v, loss in losses.items() if loss is not None and loss.value <= USUAL]
    usual = usual or [v for v in losses if cache_format(v[0]).number_bits >= 8.0] or list(losses)
    return tuple(v for v in values if v[0] == OFF or v in usual)


def describe(x: Plan) -> str:
    """The format by its title; nothing without one."""
    return "" if x.packed_cache == OFF else cache_format(x.packed_cache).title


TECHNIQUE = Technique(
    name=NAME,
    summary="KV cache in fewer bits: quantised or block floating point",
    source="Z. Liu et al. (KIVI), arXiv:2402.02750; Trukhanov & Soloveychik, arXiv:2403.20137; "
    "C. Hooper et al. (KVQuant), arXiv:2401.18079",
    phases=frozenset({"serving"}),
    neutral={"packed_cache": OFF},
    axes=axes,
    layout=layout,
    terms=terms,
    legal=legal,
    opt_in=True,
    describe=describe,
    choice="packed_cache",
    undominated=undominated,
    quality=quality,
    telling=("packed_cache",),
)
