"""Optimizer state in host memory: gradients travel down, the host updates, new weights travel up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, is_nothing
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
    """Down, update, up: streamed through each other beside the device's own share, so the slowest decides.

    Gradients and weights that are off the device anyway do not travel again; what lies on storage is read and written.
    """
    del net
    if machine.host_link is None or "host" not in machine.engines:
        return []
    moved = x.optimizer_host * _owned(s)
    here = moved * (1.0 - s.layout.updated_on_device)
    traffic = 2.0 * s.optimizer_bytes + s.gradients_bytes + s.weights_bytes
    update = kernel_time(optimizer_update(here, bytes_per_parameter=traffic), machine.engine("host"))
    link = machine.host_link
    on = here / (here + 1e-30)  # no launch where nothing is offloaded
    down = here * (1.0 - s.layout.gradients_off) * s.gradients_bytes / link
    up = here * (1.0 - s.layout.weights_off) * s.weights_bytes / link
    emitted = [
        Term("gradients to host", "update", "host link down", down, "down", prefetch=True),
        Term("host optimizer", "update", "host", update.seconds * on, "host", prefetch=True),
        Term("weights from host", "update", "host link up", up, "up", prefetch=True),
    ]
    share, read, write = s.layout.optimizer_stored, machine.storage_read, machine.storage_write
    if not is_nothing(share) and read is not None and write is not None:
        stored = moved * share * s.optimizer_bytes
        seconds = stored / read + stored / write
        emitted.append(Term("optimizer through storage", "update", "storage", seconds, "storage", prefetch=True))
    return emitted


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """The state in host memory or on storage."""
    del machine
    state, stored = x.optimizer_host * _owned(s) * s.optimizer_bytes, s.layout.optimizer_stored
    if is_nothing(stored):
        return [Line("offloaded optimizer", "host", state)]
    return [
        Line("offloaded optimizer", "host", state * (1.0 - stored)),
        Line("offloaded optimizer", "storage", state * stored),
    ]


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
