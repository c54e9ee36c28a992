"""Offloaded optimizer state, every k-th part of it updated on the device (Deep Optimizer States).

While the host updates k - 1 parts, one part travels to the device, is updated there and travels back. The smallest
whole k for which the device is done before the host keeps both busy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, ceil, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.streaming import optimizer_update
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, family_sum
from perfmodel.units import Bytes

__all__ = ["TECHNIQUE", "stride"]

PART = 1e8
"""Parameters per part: large enough that launches do not count."""


def stride(host: Scalar, device: Scalar) -> Scalar:
    r"""Smallest :math:`k \ge 2` with :math:`(k-1)\,t_{host} \ge t_{device}`: every k-th part belongs to the device.

    Parameters
    ----------
    host : seconds in which the host updates a part, less those in which its gradients and weights use the link.
    device : seconds in which the device fetches, updates or returns a part, whichever is slowest (the three overlap).

    References
    ----------
    .. [1] A. Maurya et al., "Deep Optimizer States", arXiv:2410.21316.

    Examples
    --------
    >>> stride(1.0, 0.5), stride(1.0, 2.5)
    (2.0, 4.0)
    """
    return maximum(1.0 + ceil(device / host), 2.0)


def axes(situation: Situation) -> tuple[Axis, ...]:
    """On or off, where the node has a host."""
    possible = (0.0, 1.0) if situation.machine.host_link and "host" in situation.machine.engines else (0.0,)
    return (Axis.of("interleaved", possible),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Share of the offloaded state that the device updates: one k-th."""
    machine, recipe = situation.machine, situation.workload.recipe
    if machine.host_link is None or "host" not in machine.engines:
        return {}
    traffic = _traffic(recipe.optimizer_bytes, recipe.gradients, recipe.weights)
    work = optimizer_update(PART, bytes_per_parameter=traffic)
    host, device = (kernel_time(work, machine.engine(name)).seconds for name in ("host", "main"))
    flush = PART * max(recipe.gradients, recipe.weights) / machine.host_link
    if host <= flush:  # the link is busy all the time as it is
        return {}
    k = stride(host - flush, max(device, PART * recipe.optimizer_bytes / machine.host_link))
    return {"updated_on_device": x.interleaved / k}


def _traffic(optimizer: Bytes, gradients: Bytes, weights: Bytes) -> Bytes:
    """Bytes that an update reads and writes per parameter [B]."""
    return 2.0 * optimizer + gradients + weights


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """State to the device and back on both directions of the link, and its update beside the host's."""
    del net
    if machine.host_link is None:
        return []
    owned = family_sum(s.families, lambda f: f.heaviest / f.shards(s.layout.optimizer_shards))
    part = x.interleaved * s.layout.updated_on_device * s.layout.optimizer_off * owned
    work = optimizer_update(part, bytes_per_parameter=_traffic(s.optimizer_bytes, s.gradients_bytes, s.weights_bytes))
    update = where(part > 0.0, kernel_time(work, machine.main).seconds, 0.0)
    seconds = part * s.optimizer_bytes / machine.host_link
    return [
        Term("optimizer state to device", "update", "host link up", seconds, "up", prefetch=True),
        Term("optimizer state to host", "update", "host link down", seconds, "down", prefetch=True),
        Term("update of fetched state", "update", machine.main.tier, update, "device", prefetch=True, memory=update),
    ]


TECHNIQUE = Technique(
    name="interleaved_update",
    summary="every k-th part of the offloaded optimizer state is updated on the device",
    source="A. Maurya et al. (Deep Optimizer States), arXiv:2410.21316",
    phases=frozenset({"training"}),
    neutral={"interleaved": 0.0},
    axes=axes,
    layout=layout,
    terms=terms,
    by_name=True,
)
