"""Tensor parallelism: ranks share each matrix and, with sequence parallelism, the activations between matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, ceil, is_nothing, maximum, minimum, where
from perfmodel.machine.build import Machine
from perfmodel.network.bounds import all_reduce_bound
from perfmodel.network.collectives import all_gather, all_reduce
from perfmodel.network.topology import Dim, Group, Network, on_device_links
from perfmodel.operators.sums import sums_per_layer
from perfmodel.specs.architecture import Architecture, Attention, LatentAttention
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import Seconds

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Powers of two up to the number of query heads; training within two nodes, serving up to 64 ranks.

    Sequence parallelism costs nothing and is always on in a search; plans of older software can switch it off.
    """
    far = 2 * situation.machine.per_node if situation.phase == "training" else 64
    most = min(_heads(situation.architecture), situation.devices, max(far, 8))
    degrees = [2**i for i in range(most.bit_length()) if 2**i <= most]
    return (Axis(("tp", "sequence_parallel"), tuple((tp, 1) for tp in degrees)),)


def _heads(architecture: Architecture) -> int:
    """Fewest heads of any attention layer; the hidden width where there is none."""
    mixers = (run.layer.mixer for run in architecture.runs)
    return min((m.heads for m in mixers if isinstance(m, (Attention, LatentAttention))), default=architecture.hidden)


def dims(x: Plan) -> Sequence[Dim]:
    """The nearest ranks."""
    return (Dim("tensor", x.tp, frozenset({"weights", "kv", "sequence"}), near=0.0),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Whether the activations between matrices stay whole on every rank."""
    del situation
    return {"activations_whole": 1.0 - x.sequence_parallel}


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """One all-reduce, or its two halves around the sharded activations, per sum and pass."""
    del x
    group = s.along("tensor")
    size = s.sizes.tokens * s.architecture.hidden * s.sizes.element_bytes
    training, framework = s.situation.phase == "training", s.framework or {}
    seconds = maximum(all_reduce(net, group, size), _in_one_step(s, net, group, size))
    if training or s.layout.sums_hidden is not None:
        half = all_gather(net, group, size)  # a reduce-scatter mirrors it
        if training:
            seconds = where(s.layout.activations_whole > 0.0, seconds, 2.0 * half)
        if s.layout.sums_hidden is not None:
            seconds = minimum(seconds, 2.0 * half - s.layout.sums_hidden(s, machine, size, half, half))
    exposed = framework.get("tensor_exposed", 1.0)
    waiting = call_latency(group, framework)
    bound = all_reduce_bound(net, group, size)
    sums = sums_per_layer(s.architecture, framework.get("sums_apart", 0.0))
    return [
        Term(
            "tensor sync",
            slot,
            "network",
            passes * sums * (seconds * exposed + waiting),
            replayed=True,
            bound=passes * sums * bound,
        )
        for slot, passes in s.slots
    ]


def _in_one_step(s: Settled, net: Network, group: Group, size: Scalar) -> Seconds:
    """Time of a sum in one step, where software takes it for few tokens: every rank reads what all others have [s]."""
    framework = s.framework or {}
    most = framework.get("one_shot_tokens", 0.0)
    if is_nothing(most):
        return 0.0
    read = (group.size - 1.0) * size / (net.levels[0].bandwidth * framework.get("one_shot_share", 1.0))
    return where((s.sizes.tokens <= most) & (on_device_links(net, group) > 0.0), read, 0.0)


def call_latency(group: Group, framework: Mapping[str, float]) -> Seconds:
    """Time per sum in which ranks wait for each other beside the transfer: more for every rank, and every domain."""
    near, far = framework.get("tensor_latency", 0.0), framework.get("tensor_latency_far", 0.0)
    if is_nothing(near) and is_nothing(far):
        return 0.0
    domains = group.size / group.members[0]
    return near * (group.size - 1.0) + far * (domains - 1.0)


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Activations gathered along the sequence before a product, one layer at a time."""
    gathered = s.sizes.tokens * s.architecture.hidden * s.sizes.element_bytes
    return [Line("communication buffers", machine.main.tier, where(x.tp > 1.0, gathered, 0.0))]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Heads and vocabulary divide; key-value heads divide or are replicated evenly."""
    del s
    worst: Scalar = 1.0
    for run in situation.architecture.runs:
        mixer = run.layer.mixer
        if isinstance(mixer, (Attention, LatentAttention)):
            worst = maximum(worst, ceil(mixer.heads / x.tp) * x.tp / mixer.heads)
        if isinstance(mixer, Attention):
            few = maximum(mixer.kv_heads / x.tp, x.tp / mixer.kv_heads)
            worst = maximum(worst, ceil(few) / few)
    return {"heads": worst}


TECHNIQUE = Technique(
    name="tensor_parallel",
    summary="ranks share every matrix; activations between matrices are sharded along the sequence",
    source="M. Shoeybi et al., arXiv:1909.08053; V. Korthikanti et al., arXiv:2205.05198",
    phases=frozenset({"training", "serving"}),
    neutral={"tp": 1, "sequence_parallel": 1},
    axes=axes,
    dims=dims,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    telling=("tp",),
)
