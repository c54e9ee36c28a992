"""States beyond device memory: weights, gradients and activations in host memory, part of it on node storage.

Every rank moves only its shard over its own link and gathers the rest among its replicas, so the bandwidth to host and
storage grows with the ranks. All transfers run ahead of the layer that needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, family_sum
from perfmodel.units import Bytes

__all__ = ["TECHNIQUE"]

COLUMNS = ("weights_host", "activations_host", "on_storage")
STORED_OPTIMIZER, STORED_WEIGHTS = 1.0, 2.0
"""What of the states in host memory lies on storage: nothing, the optimizer, or weights and gradients as well."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Weights (with their gradients) and activations on the host or not, as far as the node has host and storage."""
    machine = situation.machine
    host = (0.0, 1.0) if machine.host_link and "host" in machine.engines else (0.0,)
    stored = (0.0, STORED_OPTIMIZER, STORED_WEIGHTS) if "storage" in machine.tiers and len(host) > 1 else (0.0,)
    tuples = [(w, a, s) for w in host for a in host for s in stored if w > 0.0 or s < STORED_WEIGHTS]
    return (Axis(COLUMNS, tuple(tuples), left_out=len(host) ** 2 * len(stored) - len(tuples)),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Shares of the states that leave the device, and what of the optimizer goes on to storage."""
    del situation
    return {
        "weights_off": x.weights_host,
        "gradients_off": x.weights_host,
        "activations_off": x.activations_host,
        "optimizer_stored": where(x.on_storage >= STORED_OPTIMIZER, 1.0, 0.0),
    }


def _activations(s: Settled) -> Bytes:
    """What one layer keeps for its backward pass [B]."""
    if s.kept is None:
        return 0.0
    return s.sizes.tokens * (s.kept.boundary + s.layout.kept * s.kept.inner + s.layout.kept_scores * s.kept.scores)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Weights up before each pass over a layer, gradients down after it, activations down and up again."""
    del net
    link, read, write = machine.host_link, machine.storage_read, machine.storage_write
    if link is None:
        return []
    stored = where(x.on_storage >= STORED_WEIGHTS, 1.0, 0.0)
    host = machine.engine("host").bandwidth if "host" in machine.engines else float("inf")
    emitted: list[Term] = []

    def down(name: str, slot: str, size: Bytes) -> None:
        emitted.append(Term(name, slot, "host link down", size / link, "down", prefetch=True))

    def up(name: str, slot: str, size: Bytes) -> None:
        emitted.append(Term(name, slot, "host link up", size / link, "up", prefetch=True))

    def states(slot: str, weights: Bytes, gradients: Bytes, passes: float) -> None:
        up("weights to device", slot, passes * weights)
        down("gradients to host", slot, gradients)
        adding = (3.0 - 2.0 / s.micro_batches) * gradients / host  # written, and where there is a sum, read with it
        emitted.append(Term("gradients added on host", slot, "host", adding, "host", prefetch=True))
        if read is not None and write is not None:
            stores = stored * passes * weights / read, stored * gradients / write
            emitted.append(Term("weights from storage", slot, "storage", stores[0], "storage", prefetch=True))
            emitted.append(Term("gradients to storage", slot, "storage", stores[1], "storage", prefetch=True))

    for f in s.families:
        weights = x.weights_host * s.weights_bytes / f.shards(s.layout.weights_shards)
        gradients = x.weights_host * s.gradients_bytes / f.shards(s.layout.gradients_shards)
        states("layer_forward", f.layer * weights, 0.0, 1.0)
        states("layer_backward", f.layer * weights, f.layer * gradients, 1.0)
        if f.name == "dense":
            states("embed", s.embedding * weights, s.embedding * gradients, 1.0)
            states("head", s.head * weights, s.head * gradients, 2.0)
    moved = x.activations_host * _activations(s)
    down("activations to host", "layer_forward", moved)
    up("activations to device", "layer_backward", moved)
    return emitted


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Where the states lie, and on the device two layers of each kind in flight."""
    stored = where(x.on_storage >= STORED_WEIGHTS, 1.0, 0.0)
    tier = machine.main.tier
    weights = family_sum(s.families, lambda f: f.heaviest / f.shards(s.layout.weights_shards)) * s.weights_bytes
    gradients = family_sum(s.families, lambda f: f.heaviest / f.shards(s.layout.gradients_shards)) * s.gradients_bytes
    whole = family_sum(s.families, lambda f: where(f.shards(s.layout.weights_shards) <= 1.0, f.layer, 0.0))
    layer = family_sum(s.families, lambda f: f.layer)
    in_flight = 2.0 * whole * s.weights_bytes + 2.0 * layer * s.gradients_bytes
    return [
        Line("offloaded weights", "host", x.weights_host * (1.0 - stored) * weights),
        Line("offloaded gradients", "host", x.weights_host * (1.0 - stored) * gradients),
        Line("offloaded weights", "storage", x.weights_host * stored * weights),
        Line("offloaded gradients", "storage", x.weights_host * stored * gradients),
        Line("layers in flight", tier, x.weights_host * in_flight),
        Line("activations in flight", tier, 2.0 * x.activations_host * _activations(s)),
    ]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """What leaves the device after the optimizer state: weights follow it to the host, and only it goes to storage."""
    del situation
    off = s.layout.optimizer_off
    ahead = maximum(x.weights_host, where(x.on_storage > 0.0, 1.0, 0.0))
    return {"optimizer off the device": where(ahead > off, 2.0, 1.0), "optimizer state": maximum(off, 1.0)}


def describe(x: Plan) -> str:
    """What lies where; nothing where all is on the device."""
    host = [name for name, on in (("weights and gradients", x.weights_host), ("activations", x.activations_host)) if on]
    words = [" and ".join(host) + " in host memory"] if host else []
    if x.on_storage > 0.0:
        what = "optimizer" if x.on_storage < STORED_WEIGHTS else "optimizer, weights and gradients"
        words.append(f"{what} on storage")
    return ", ".join(words)


TECHNIQUE = Technique(
    name="zero_infinity",
    summary="weights, gradients and activations in host memory, states on node storage",
    source="S. Rajbhandari et al. (ZeRO-Infinity), arXiv:2104.07857",
    phases=frozenset({"training"}),
    neutral=dict.fromkeys(COLUMNS, 0.0),
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    by_name=True,
    describe=describe,
)
