"""Training without a backward pass: two perturbed forward passes, and one byte per replica instead of its gradient.

Every replica draws its perturbation from a seed that all know, so that the difference of its two losses is all the
others need to repeat its update. Nothing is kept but the weights, as in inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.streaming import elementwise
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

MESSAGE = 1.0
"""What a replica sends per step [B]."""
OWN_PASSES = 3.0
"""Passes over the weights for a replica's own perturbation: forth, back over to the other side, and undone."""
FLOPS_PER_RANDOM = 20.0
"""Operations to draw one normal number again from its seed."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """On or off where asked for by name: nobody published what it costs in quality for a model."""
    return (Axis.of("zeroth_order", (0.0, 1.0) if "zeroth_order" in situation.excused else (0.0,), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Two forward passes and no backward pass; scalars are gathered. What it costs in quality is not published."""
    if not x.zeroth_order:
        return {}
    return {
        "forward_passes": 2.0,
        "backward_passes": 0.0,
        "gradients_wire": MESSAGE / situation.architecture.parameters,
        "gradients_gathered": True,
        "sync_at_update": True,
        "quality_loss": float("nan"),
    }


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Perturb the weights, and repeat the update of every replica: each a pass over the weights."""
    del net
    if not x.zeroth_order:
        return []
    seconds: Scalar = 0.0
    for f in s.families:
        numbers = f.heaviest * (f.group.size + OWN_PASSES * s.micro_batches)
        work = elementwise(
            numbers, reads=1.0, writes=1.0, flops_per_element=FLOPS_PER_RANDOM, element_bytes=s.weights_bytes
        )
        seconds = seconds + kernel_time(work, machine.main).seconds
    return [Term("perturbations", "update", machine.main.tier, seconds, memory=seconds)]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """There is no gradient to shard, and no optimizer state."""
    del situation
    return {"nothing to shard": s.families[0].shards(s.layout.gradients_shards)} if x.zeroth_order else {}


def describe(x: Plan) -> str:
    """Say that there is no backward pass; nothing where there is one."""
    return "two forward passes and no backward pass, one byte per replica" if x.zeroth_order else ""


TECHNIQUE = Technique(
    name="zeroth_order",
    summary="two perturbed forward passes instead of a gradient; replicas exchange one byte",
    source="E. Zelikman et al., 'Just One Byte (per gradient)', arXiv:2306.10015; S. Malladi et al., arXiv:2305.17333",
    phases=frozenset({"training"}),
    neutral={"zeroth_order": 0.0},
    axes=axes,
    layout=layout,
    terms=terms,
    legal=legal,
    opt_in=True,
    describe=describe,
)
