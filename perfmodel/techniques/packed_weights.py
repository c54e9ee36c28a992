"""Weights stored in fewer bits: what a matrix costs to hold and to read is one record of a table.

The technique knows bits, not names. An engine with kernels for packed weights unpacks inside its products, on its
vector units and beside their loads; another one unpacks a layer to 16 bits in memory first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import ceil
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.formats import mean_row, stored_bytes
from perfmodel.operators.streaming import elementwise
from perfmodel.specs.quality import published_loss, published_rows
from perfmodel.specs.weight_formats import weight_format, weight_formats
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, family_sum

__all__ = ["TECHNIQUE"]

OFF = "none"
"""As the checkpoint stores them."""
NAME = "packed_weights"
TILE_ROWS = 128.0
"""Rows of activations for which a weight is unpacked once."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, and the formats that were named; without names those whose quality is published for some model."""
    named = situation.choices(NAME)
    published = {row.variant for row in published_rows() if row.technique == NAME}
    formats = named or tuple(name for name in weight_formats() if name in published)
    for name in formats:
        weight_format(name)
    return (Axis.of("packed_weights", (OFF, *formats), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Storage width, and the published loss for this very model."""
    if x.packed_weights == OFF:
        return {}
    architecture = situation.architecture
    loss = published_loss(NAME, x.packed_weights, architecture.family, architecture.parameters)
    return {
        "weights_format": x.packed_weights,
        "weights_bytes": stored_bytes(weight_format(x.packed_weights), mean_row(architecture)),
        "quality_loss": float("nan") if loss is None else loss.value,
    }


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Unpacking: inside the products beside their loads, or a pass of its own over each layer."""
    del net
    if x.packed_weights == OFF:
        return []
    main, record = machine.main, weight_format(x.packed_weights)
    layer, operations = family_sum(s.families, lambda f: f.layer), record.unpack.value
    if main.native("int4"):
        seconds = layer * operations * ceil(s.sizes.tokens / TILE_ROWS) / main.vector_peak()
        return [Term("unpack weights", slot, "vector", n * seconds, NAME, prefetch=True) for slot, n in s.slots]
    work = elementwise(layer, reads=s.weights_bytes / 2.0, writes=1.0, flops_per_element=operations)
    seconds = kernel_time(work, main).seconds
    return [Term("unpack weights", slot, main.tier, n * seconds) for slot, n in s.slots]


def describe(x: Plan) -> str:
    """The format by its title."""
    return "weights as stored" if x.packed_weights == OFF else weight_format(x.packed_weights).title


TECHNIQUE = Technique(
    name=NAME,
    summary="weights in fewer bits: quantised, by table, or sparse",
    source="J. Lin et al. (AWQ), arXiv:2306.00978; S. Kim et al. (SqueezeLLM), arXiv:2306.07629; "
    "H. Xia et al. (Flash-LLM), arXiv:2309.10285",
    phases=frozenset({"serving"}),
    neutral={"packed_weights": OFF},
    axes=axes,
    layout=layout,
    terms=terms,
    opt_in=True,
    describe=describe,
    choice="packed_weights",
)
