"""Ranks share an image: each computes a strip of it and needs keys, values and edges of the others.

Every layer waits for them, unless the record says that a step takes those of the step before: then they travel while
it computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import where
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.collectives import all_gather, all_reduce, point_to_point
from perfmodel.network.topology import Dim, Network
from perfmodel.operators.denoiser import halo_bytes, key_bytes
from perfmodel.operators.streaming import elementwise
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan
from perfmodel.units import Seconds

__all__ = ["TECHNIQUE"]

STATISTICS = 2.0 * 32.0 * 4.0
"""Sums of a group norm that ranks exchange per image: 32 groups, two numbers, in fp32 [B]."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Powers of two of ranks inside a node."""
    reach = min(situation.devices, situation.machine.per_node)
    return (Axis.of("patches", tuple(2**i for i in range(12) if 2**i <= reach)),)


def dims(x: Plan) -> Sequence[Dim]:
    """Ranks of one image lie next to each other."""
    return (Dim("patches", x.patches, frozenset({"tokens"}), 0.0),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Strips of an image."""
    del situation
    return {"image_split": x.patches}


def _exchange(s: Any, net: Network) -> Seconds:
    """One step's keys and values, edges of convolutions and sums of norms, layer by layer [s]."""
    group, sizes = s.along("patches"), s.sizes
    sent = 1.0 if s.kind == "first" else s.layout.others_seen
    total: Any = 0.0
    for size, count in key_bytes(s.denoiser, sizes):
        total = total + count * all_gather(net, group, size * sent)
    layers = 0
    for size, _, count in halo_bytes(s.denoiser, sizes):
        total = total + count * point_to_point(net, group, size)
        layers += count
    return total + layers * all_reduce(net, group, STATISTICS * sizes.samples)


def _joining(s: Any, machine: Machine) -> Seconds:
    """What arrived is put beside what is there: inputs of convolutions with their edges, keys and values whole [s]."""
    sizes, numbers = s.sizes, 0.0
    for size, rows, count in halo_bytes(s.denoiser, sizes):
        numbers = numbers + count * size * rows / sizes.split / sizes.element_bytes
    for size, count in key_bytes(s.denoiser, sizes):
        numbers = numbers + count * size * sizes.seen / sizes.element_bytes
    copied = elementwise(numbers, reads=1.0, writes=1.0, flops_per_element=0.0, element_bytes=sizes.element_bytes)
    return where(sizes.split > 1.0, kernel_time(copied, machine.main).seconds, 0.0)


def terms(x: Plan, s: Any, machine: Machine, net: Network) -> Sequence[Term]:
    """What a step exchanges, in front of every layer or beside the computation, and the latent at its end."""
    del x
    latent = s.layout.images * s.denoiser.channels * s.sizes.pixels(1) * s.sizes.element_bytes
    lane = "main" if s.synchronous else "net"
    return [
        Term("latent together", s.kind, "network", all_gather(net, s.along("patches"), latent)),
        Term("patches joined", s.kind, machine.main.tier, _joining(s, machine)),
        Term("exchange of patches", s.kind, "network", _exchange(s, net), lane, prefetch=not s.synchronous),
    ]


def legal(x: Plan, s: Any, situation: Situation) -> Mapping[str, Any]:
    """At least one row at the coarsest resolution."""
    del s
    model: Any = situation.architecture
    return {"patches": x.patches * model.multiple / situation.workload.height}


TECHNIQUE = Technique(
    name="patch_parallel",
    summary="ranks share an image, strip by strip",
    source="M. Li et al. (DistriFusion), arXiv:2402.19481",
    phases=frozenset({"image"}),
    neutral={"patches": 1},
    axes=axes,
    dims=dims,
    layout=layout,
    terms=terms,
    legal=legal,
)
