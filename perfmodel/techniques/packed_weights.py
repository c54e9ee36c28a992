"""Weights stored in fewer bits: what a matrix costs to hold and to read is one record of a table.

The technique knows bits, not names. An engine with kernels for packed weights unpacks inside its products, on its
vector units and beside their loads; another one unpacks a layer to 16 bits in memory first. Where the activations are
quantised too, products run in the narrow format, and sums of groups are scaled one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, ceil
from perfmodel.machine.build import Machine
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.machine.lookups import lookup_time
from perfmodel.network.topology import Network
from perfmodel.operators.formats import STORAGE, codebook_bits, layer_weights, mean_matrix, mean_row, stored_bytes
from perfmodel.operators.layers import active_experts, layer_calls
from perfmodel.operators.mixture import mixture
from perfmodel.operators.streaming import elementwise
from perfmodel.specs.architecture import Architecture, Moe
from perfmodel.specs.number_formats import NumberFormat, weight_format, weight_formats
from perfmodel.specs.quality.formats import format_loss
from perfmodel.specs.quality.loss import Loss
from perfmodel.specs.records import OFF
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import Seconds

__all__ = ["TECHNIQUE"]

NAME = "packed_weights"
TILE_ROWS = 128.0
"""Rows of activations for which a weight is unpacked once."""
USUAL = 0.05
"""Largest published loss of the formats that the bare name of the technique stands for [1]."""


def _bytes(name: str, architecture: Architecture) -> float:
    record = weight_format(name)
    if record.mix is not None:
        return mixture(record.mix, architecture).bytes
    return float(stored_bytes(record, mean_row(architecture), mean_matrix(architecture)))


def _loss(name: str, architecture: Architecture) -> Loss | None:
    mix = weight_format(name).mix
    if mix is not None:
        return mixture(mix, architecture).loss
    return format_loss(weight_format(name).quality, 8.0 * _bytes(name, architecture), architecture)


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, and the formats that were named; every one for the bare name; else those whose quality is known here.

    Formats that a model has to be trained in are another checkpoint: only a name brings them.
    """
    found = situation.choices(NAME)
    for name in found:
        _bytes(name, situation.architecture)
    if not found and NAME in situation.excused:
        found = tuple(weight_formats())
    if not found:
        shipped = weight_formats().items()
        found = tuple(n for n, f in shipped if not f.trained and _loss(n, situation.architecture) is not None)
    return (Axis.of("packed_weights", (OFF, *found), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Storage width, products that are skipped, and the published loss for this model."""
    if x.packed_weights == OFF:
        return {}
    record, found = weight_format(x.packed_weights), quality(x, situation)
    skips = record.pattern is not None and record.pattern in situation.machine.main.formats
    return {
        "weights_format": x.packed_weights,
        "weights_bytes": _bytes(x.packed_weights, situation.architecture),
        "weights_computed": record.density if skips else 1.0,
        "quality_loss": float("nan") if found is None else found.value,
    }


def quality(x: Plan, situation: Situation) -> Loss | None:
    """What is published for the format on this model; no loss without one."""
    return Loss(0.0, "", "") if x.packed_weights == OFF else _loss(x.packed_weights, situation.architecture)


def _product(record: NumberFormat, engine: Engine) -> str | None:
    """Format that the engine multiplies in; ``None`` if it has none of them."""
    return next((p for p in record.products if engine.multiplies(p)), None)


def _touched(s: Settled) -> Scalar:
    """Weights of an average layer on a rank that one pass reads: of the experts those that a token chose."""
    weights: Scalar = 0.0
    for family in s.families:
        share: Scalar = 1.0
        experts = next((r.layer.ffn for r in s.architecture.runs if isinstance(r.layer.ffn, Moe)), None)
        if family.name == "experts" and experts is not None:
            tokens = s.sizes.tokens * s.sizes.expert_split
            share = active_experts(experts.experts, experts.top_k, tokens) / experts.experts
        weights = weights + share * family.layer
    return weights


def _unpacking(record: NumberFormat, weights: Scalar, engine: Engine) -> Seconds:
    """Instructions and look-ups that turn so many weights into operands [s]."""
    seconds = weights * record.density * record.unpack.value / engine.vector_peak()
    if record.table:
        seconds = seconds + lookup_time(engine, weights, 2.0, record.table / 8.0)
    for c in record.codebooks:
        size = c.vector * c.bits / 8.0
        seconds = seconds + lookup_time(engine, weights / c.vector, size, c.entries * size)
    return seconds


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Unpacking, inside the products beside their loads or a pass of its own over each layer; scaling of sums."""
    del net
    if x.packed_weights == OFF:
        return []
    main, record = machine.main, weight_format(x.packed_weights)
    product, found = _product(record, main), []
    direct = product in STORAGE and 8.0 * int(STORAGE[product].bytes * 2.0) / 2.0 == record.number_bits
    weights = _touched(s)
    if main.native("int4") or product not in ("bf16", "fp16", None):
        seconds = 0.0 if direct and record.density == 1.0 else _unpacking(record, weights, main)
        seconds = seconds * ceil(s.sizes.tokens / TILE_ROWS)
        found += [Term("unpack weights", slot, "vector", n * seconds, NAME, prefetch=True) for slot, n in s.slots]
    else:
        ops = record.unpack.value
        work = elementwise(weights, reads=s.weights_bytes / 2.0, writes=1.0, flops_per_element=ops)
        seconds = kernel_time(work, main).seconds
        found += [Term("unpack weights", slot, main.tier, n * seconds) for slot, n in s.slots]
    if record.group is not None and product in ("int8", "int4"):
        sums = _products(s) / record.group / main.vector_peak()
        found += [Term("scale sums", slot, "vector", n * sums, NAME, prefetch=True) for slot, n in s.slots]
    return found


def _products(s: Settled) -> Scalar:
    """Multiplications of an average layer's packed matrices in one pass."""
    calls = [c for c in layer_calls(s.architecture, s.sizes) if c.work.operator in ("gemm", "moe")]
    return sum((c.share * c.work.flops / 2.0 for c in calls if c.component not in s.sizes.unquantised), start=0.0)


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Ranks that share a matrix hold its codebooks each."""
    record = None if x.packed_weights == OFF else weight_format(x.packed_weights)
    if record is None or not record.codebooks:
        return []
    weights = layer_weights(s.architecture)
    per_layer = sum(weights) / len(weights) / mean_matrix(s.architecture) * codebook_bits(record) / 8.0
    again = s.first_layers * per_layer * (1.0 - 1.0 / s.sizes.weight_split)
    return [Line("codebooks", machine.main.tier, again)]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """The engine multiplies in one of the formats that the record names."""
    del s
    if x.packed_weights == OFF:
        return {}
    runs = _product(weight_format(x.packed_weights), situation.machine.main) is not None
    return {"number format": 1.0 if runs else 2.0}


def undominated(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    """Formats that none beats in bytes, in work to unpack, in their products and in published loss.

    The bare name of the technique stands for those of small loss; where nothing is published for the model, for those
    of 4 and more bits that were published for others.
    """
    if situation.choices(NAME):
        return values
    cost = {v: _costs(v[0], situation) for v in values if v[0] != OFF}
    if NAME in situation.excused:
        open_ = {v: c for v, c in cost.items() if not (f := weight_format(v[0])).trained and f.quality is not None}
        usual = [v for v, c in open_.items() if c[1][-1] <= USUAL]
        usual = usual or [v for v in open_ if (f := weight_format(v[0])).density * f.number_bits >= 4.0]
        cost = {v: c for v, c in cost.items() if v in usual} or cost
        values = tuple(v for v in values if v[0] == OFF or v in cost)
    else:
        reach = situation.within_reach({v: c[1][-1] for v, c in cost.items()})
        cost = {v: c for v, c in cost.items() if v in reach}
        values = tuple(v for v in values if v[0] == OFF or v in reach)

    def beaten(v: tuple[Any, ...]) -> bool:
        return any(
            cost[r][0] == cost[v][0]
            and all(p <= q for p, q in zip(cost[r][1], cost[v][1], strict=True))
            and (cost[r][1] != cost[v][1] or values.index(r) < values.index(v))
            for r in cost
            if r != v
        )

    return tuple(v for v in values if v not in cost or not beaten(v))


def _costs(name: str, situation: Situation) -> tuple[tuple[Any, ...], tuple[float, ...]]:
    """What makes formats alike, and what of it more is worse."""
    record, loss = weight_format(name), _loss(name, situation.architecture)
    kind = (_product(record, situation.machine.main), record.pattern, record.table > 0.0, record.codebooks)
    sums = 0.0 if record.group is None else 1.0 / record.group
    unknown = float("inf") if loss is None else loss.value
    return kind, (_bytes(name, situation.architecture), record.density * record.unpack.value, sums, unknown)


def describe(x: Plan) -> str:
    """The format by its title."""
    return "weights as stored" if x.packed_weights == OFF else weight_format(x.packed_weights).title


TECHNIQUE = Technique(
    name=NAME,
    summary="weights in fewer bits: quantised, by table, by codebook, or sparse",
    source="J. Lin et al. (AWQ), arXiv:2306.00978; S. Kim et al. (SqueezeLLM), arXiv:2306.07629; Y. Liu et al. (VPTQ), "
    "arXiv:2409.17066; H. Xia et al. (Flash-LLM), arXiv:2309.10285; G. Xiao et al. (SmoothQuant), arXiv:2211.10438",
    phases=frozenset({"serving"}),
    neutral={"packed_weights": OFF},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    opt_in=True,
    describe=describe,
    choice="packed_weights",
    undominated=undominated,
    quality=quality,
    telling=("packed_weights",),
)
