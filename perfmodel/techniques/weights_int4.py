"""Four-bit weights with one scale and zero point per group (AWQ); products stay in 16 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import choose
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.formats import storage
from perfmodel.operators.streaming import elementwise
from perfmodel.specs.quality import published_loss
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, family_sum

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off or on; storage formats select code paths."""
    del situation
    return (Axis.of("int4", (0, 1), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Storage width, and the published loss for this very model."""
    if not x.int4:
        return {}
    architecture = situation.architecture
    loss = published_loss("weights_int4", "awq-g128", architecture.family, architecture.parameters)
    quality = float("nan") if loss is None else loss.value
    return {"weights_format": "int4", "weights_bytes": storage("int4").bytes, "quality_loss": quality}


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Engines that do not multiply packed weights unpack each layer first."""
    del net
    if not x.int4 or machine.main.native("int4"):
        return []
    layer = family_sum(s.families, lambda f: f.layer)
    work = elementwise(layer, reads=0.25, writes=1.0, flops_per_element=2.0)
    seconds = kernel_time(work, machine.main).seconds * choose(int(x.int4), (0.0, 1.0))
    return [Term("unpack weights", slot, machine.main.tier, passes * seconds) for slot, passes in s.slots]


TECHNIQUE = Technique(
    name="weights_int4",
    summary="4-bit weights, group scales of 128 (AWQ)",
    source="J. Lin et al. (AWQ), arXiv:2306.00978",
    phases=frozenset({"serving"}),
    neutral={"int4": 0},
    axes=axes,
    layout=layout,
    terms=terms,
    opt_in=True,
)
