"""Optimizer state in host memory: gradients travel down, the host updates, new weights travel up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.streaming import optimizer_update
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, family_sum

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """All or nothing, where the node has a host."""
    possible = (0.0, 1.0) if "host" in situation.machine.engines else (0.0,)
    return (Axis.of("optimizer_host", possible),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Share of the state that leaves the device."""
    del situation
    return {"optimizer_off": x.optimizer_host}


def _owned(s: Settled) -> Scalar:
    return family_sum(s.families, lambda f: f.heaviest / f.shards(s.layout.optimizer_shards))


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Down, update, up: streamed through each other beside the device's own share, so the slowest decides."""
    del net
    if machine.host_link is None or "host" not in machine.engines:
        return []
    moved = x.optimizer_host * _owned(s)
    update = kernel_time(
        optimizer_update(moved, bytes_per_parameter=s.optimizer_bytes * 2.0 + 6.0), machine.engine("host")
    )
    link = machine.host_link
    on = moved / (moved + 1e-30)  # no launch where nothing is offloaded
    return [
        Term("gradients to host", "update", "host link down", moved * s.gradients_bytes / link, "down", prefetch=True),
        Term("host optimizer", "update", "host", update.seconds * on, "host", prefetch=True),
        Term("weights from host", "update", "host link up", moved * s.weights_bytes / link, "up", prefetch=True),
    ]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """The state in host memory, and staging buffers on the device."""
    del machine
    moved = x.optimizer_host * _owned(s)
    return [Line("offloaded optimizer", "host", moved * s.optimizer_bytes)]


TECHNIQUE = Technique(
    name="optimizer_offload",
    summary="optimizer state and update on the host",
    source="J. Ren et al. (ZeRO-Offload), arXiv:2101.06840",
    phases=frozenset({"training"}),
    neutral={"optimizer_host": 0.0},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
)
