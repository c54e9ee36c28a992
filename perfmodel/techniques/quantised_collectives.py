"""Quantised communication: weights gathered in 8 bits, gradients reduced in 4 bits (ZeRO++ qwZ and qgZ)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import choose
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.streaming import elementwise
from perfmodel.specs.quality import published_loss
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, family_sum

__all__ = ["TECHNIQUE"]

BLOCK = 2048.0
"""Numbers per scale; one 4-byte scale each."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, or both."""
    del situation
    return (Axis.of("quantised_wire", (0, 1)),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Bytes on the wire; what is stored does not change. Scales of weights travel apart, those of gradients do not.

    What 4-bit gradients cost in quality is unknown where it was not published for that very model.
    """
    recipe, architecture = situation.workload.recipe, situation.architecture
    loss = published_loss("quantised_collectives", "int8-int4", architecture.family, architecture.parameters)
    scale = 4.0 / BLOCK
    return {
        "weights_wire": choose(x.quantised_wire, (recipe.weights, 1.0)),
        "scales_wire": choose(x.quantised_wire, (0.0, scale)),
        "gradients_wire": choose(x.quantised_wire, (recipe.gradients, 0.5 + scale)),
        "quality_loss": choose(x.quantised_wire, (0.0, float("nan") if loss is None else loss.value)),
    }


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Quantise and unpack on the way: two streaming passes over what is gathered or scattered."""
    del net
    layer = family_sum(s.families, lambda f: f.layer)
    gathers = kernel_time(elementwise(layer, reads=1.5, writes=1.5, flops_per_element=2.0), machine.main).seconds
    on = choose(x.quantised_wire, (0.0, 1.0))
    return [Term("quantise", slot, "memory", on * passes * gathers) for slot, passes in s.slots]


TECHNIQUE = Technique(
    name="quantised_collectives",
    summary="weights travel in 8 bits, gradients in 4",
    source="G. Wang et al. (ZeRO++), arXiv:2306.10209; the paper reports unchanged convergence on its models; "
    "what travels in which collective: github deepspeedai/DeepSpeed, runtime/zero/partition_parameters.py",
    phases=frozenset({"training"}),
    neutral={"quantised_wire": 0},
    axes=axes,
    layout=layout,
    terms=terms,
    opt_in=True,
)
