"""Experts in host memory: a share of them lies on the device, the others are fetched when a token chooses them.

What is chosen is known in the layer itself, or a layer ahead: by a router in front of the model, exactly, or by a
prediction, in part. What is known ahead travels beside the layer before; the rest is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, minimum, where
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.operators.layers import busy_experts
from perfmodel.specs.architecture import Moe
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

OFF_SHARES = (0.125, 0.25, 0.5, 0.75, 0.875, 1.0)
"""Shares of the experts off the device."""
FORESEEN = (0.0, 1.0)
"""Shares of the choices known a layer ahead: on demand, and by a router in front of the model."""
BUFFERS = 2.0
"""Layers whose fetched experts are on the device: one computes while those of the next arrive."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """For models with experts on machines with a host: how many lie there, and how many are known ahead."""
    routed = any(isinstance(run.layer.ffn, Moe) for run in situation.architecture.runs)
    host = situation.machine.host_link is not None and "host" in situation.machine.tiers
    values = [(0.0, 0.0)]
    if routed and host:
        values += [(off, ahead) for off in OFF_SHARES for ahead in FORESEEN]
    return (Axis(("experts_at_host", "experts_foreseen"), tuple(values)),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """What leaves the device."""
    del situation
    return {"experts_off": x.experts_at_host}


def _fetched(x: Plan, s: Settled) -> Scalar:
    """Bytes of the experts of an average layer that a pass chooses and that are not there, on one rank.

    Every expert is as likely to be on the device as any other: popularity is even, so the hits of the cache are its
    share of the experts.
    """
    total: Scalar = 0.0
    experts: Scalar = 0.0
    ranks = s.sizes.expert_split * s.sizes.expert_tensor
    for run in s.architecture.runs:
        if isinstance(run.layer.ffn, Moe):
            share = run.count / s.layers
            here = run.layer.ffn.experts / ranks
            total = total + share * minimum(busy_experts(run.layer.ffn, s.sizes), here) / here
            experts = experts + share
    return x.experts_at_host * s.experts_stored * total / experts


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Fetching what was known ahead beside the layer before, and the rest when it is chosen."""
    del net
    if machine.host_link is None or not _routed(s):
        return []
    seconds = _fetched(x, s) / machine.host_link
    ahead, late = x.experts_foreseen * seconds, (1.0 - x.experts_foreseen) * seconds
    return [
        Term("experts fetched ahead", "layer", "host link up", ahead, "up", prefetch=True, bound=ahead),
        Term("experts fetched on demand", "layer", "host link up", late, bound=late),
    ]


def _routed(s: Settled) -> bool:
    return any(isinstance(run.layer.ffn, Moe) for run in s.architecture.runs)


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """The experts in host memory, and on the device those of two layers in flight."""
    if machine.host_link is None or not _routed(s):
        return []
    moved = x.experts_at_host * s.first_layers * s.experts_stored
    flying = where(x.experts_at_host > 0.0, BUFFERS * _fetched(x, s), 0.0)
    return [Line("weights", "host", moved), Line("experts in flight", machine.main.tier, flying)]


def describe(x: Plan) -> str:
    """How many lie where."""
    if not x.experts_at_host:
        return ""
    known = f", {x.experts_foreseen:.0%} of them known a layer ahead" if x.experts_foreseen else ", fetched on demand"
    return f"{x.experts_at_host:.0%} of the experts at the host{known}"


TECHNIQUE = Technique(
    name="expert_offload",
    summary="experts lie in host memory and are fetched when, or a layer before, a token needs them",
    source="R. Cai et al. (Read-ME), arXiv:2410.19123; N. Bhendawade et al. (M2R2), arXiv:2502.02040",
    phases=frozenset({"serving"}),
    neutral={"experts_at_host": 0.0, "experts_foreseen": 0.0},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    describe=describe,
    by_name=True,
)
