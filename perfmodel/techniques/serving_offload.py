"""Serving from memory beyond the nearest: weights and cache in shares over a device's memories, host and storage.

What is streamed passes to the device layer by layer, the next layer's while one is computed (two buffers of each); what
another engine of the node holds may instead be computed there, layer by layer. A device's own memory behind the one
that holds weights and cache (DDR behind HBM) is read at its own bandwidth, beside all other streams. Shares are
continuous: terms, ledger lines and legality are affine in them, so the solver finds them exactly for every choice of
the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from perfmodel.elementwise import Scalar, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.record import Placed
from perfmodel.techniques.room import lacks_room
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import BytesPerSecond

__all__ = ["TECHNIQUE"]

NAME = "serving_offload"
SHARES = (
    "weights_at_host", "weights_at_storage", "layers_share", "cache_at_host", "cache_at_storage",
    "weights_behind", "cache_behind",
)  # fmt: skip
WEIGHT_STEPS, CACHE_STEPS = 4, 2
"""Grid on which shares are searched before they are solved for."""
NONE, STREAMED = "none", "streamed"
"""Everything on the device; all computed there, what lies elsewhere streamed. Else: the engine that runs a share."""
BUFFERS = 2.0
"""Layers in flight: one is computed while the next arrives."""
PARTS = 8.0
"""Parts of a batch whose cache passes one after the other under the weights of a layer: FlexGen's own runs have 3 to 12
(bench_suite.py: ``--num-gpu-batches``)."""


def _holders(machine: Machine) -> list[str]:
    """Engines with a memory of their own and a link, which run whole layers."""
    return [
        name for name, engine in machine.engines.items()
        if name != "main" and engine.link and engine.tier != machine.main.tier
        and {"gemm", "decode_attention", "elementwise"} <= engine.runs
    ]  # fmt: skip


def _shares(parts: int, steps: int) -> list[tuple[float, ...]]:
    """Every division of a whole in ``steps`` steps among ``parts`` places and the device."""
    counts = product(range(steps + 1), repeat=parts)
    return [tuple(n / steps for n in found) for found in counts if sum(found) <= steps]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Where the model has room only a device's own farther memory, unless asked for by name; else every place."""
    machine = situation.machine
    neutral = (0.0,) * len(SHARES)
    beyond, behind = lacks_room(situation) or NAME in situation.excused, machine.behind is not None
    if not (beyond or behind):
        return (Axis.of("offload", (NONE,), structural=True), Axis(SHARES, (neutral,)))
    host = beyond and bool(machine.host_link) and "host" in machine.engines
    stored, holders = beyond and machine.storage_read is not None, _holders(machine) if beyond else []
    weights, caches = [host, stored, bool(holders), behind], [host, stored, behind]
    found = []
    for w in _shares(sum(weights), WEIGHT_STEPS):
        *near, last = _spread(w, weights)
        for c in _shares(sum(caches), CACHE_STEPS):
            *kept, rest = _spread(c, caches)
            found.append((*near, *kept, last, rest))
    tuples = tuple(dict.fromkeys((neutral, *found)))
    return (
        Axis.of("offload", (NONE, *((STREAMED,) if host or stored or behind else ()), *holders), structural=True),
        Axis(SHARES, tuples),
    )


def _spread(values: Sequence[float], present: Sequence[bool]) -> tuple[float, ...]:
    """Shares of the places that exist, zero for the others."""
    given = iter(values)
    return tuple(next(given) if here else 0.0 for here in present)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """What leaves the device, and which layers another engine runs."""
    del situation
    if x.offload == NONE:
        return {}
    changes: dict[str, Any] = {
        "weights_off": x.weights_at_host + x.weights_at_storage + x.weights_behind,
        "cache_off": x.cache_at_host + x.cache_at_storage + x.cache_behind,
    }
    if x.offload != STREAMED:
        changes["placed"] = (Placed("layers", x.offload, x.layers_share),)
    return changes


def _weights(x: Plan, s: Settled, machine: Machine) -> Iterator[Term]:
    """Weights of a layer on their way to the device, once for all sub-batches of a decode pass.

    Passes with prompts run on the device, whoever decodes the layers, and take those weights over the engine's link.
    """
    layer = s.layer_stored / (s.layout.sub_batches if s.sizes.decode else 1.0)
    link, read = machine.host_link, machine.storage_read
    away = x.weights_at_host + x.weights_at_storage
    if x.offload == "host" and not s.sizes.decode:
        away = away + x.layers_share
    if link is not None:
        yield _stream("weights to device", "host link up", away * layer / link, "up")
    if read is not None:
        yield _stream("weights from storage", "storage", x.weights_at_storage * layer / read, "storage")
    if x.offload not in (STREAMED, "host") and not s.sizes.decode:
        other = machine.engine(x.offload).link
        yield _stream("weights to device", f"{x.offload} link", x.layers_share * layer / _rate(other), "other link")


def _cache(x: Plan, s: Settled, machine: Machine) -> Iterator[Term]:
    """Keys and values: the whole of a sequence up before its attention, those of new tokens down."""
    link, read, write = machine.host_link, machine.storage_read, machine.storage_write
    token = s.cache_per_sequence / s.context
    new, away = s.sizes.tokens * token, x.cache_at_host + x.cache_at_storage
    kept = new * (away if s.sizes.decode else away + x.layers_share)
    if link is not None:
        yield _stream("cache to host", "host link down", kept / link, "down")
    if write is not None:
        yield _stream("cache to storage", "storage", x.cache_at_storage * new / write, "storage")
    if s.sizes.decode:
        whole = s.sizes.sequences * s.sizes.context * token
        if link is not None:
            yield _stream("cache to device", "host link up", away * whole / link, "up")._replace(core=True)
        if read is not None:
            seconds = x.cache_at_storage * whole / read
            yield _stream("cache from storage", "storage", seconds, "storage")._replace(core=True)


def _behind(x: Plan, s: Settled, machine: Machine) -> Iterator[Term]:
    """What the memory behind the nearer one delivers, and the new keys and values that it takes."""
    if machine.behind is None:
        return
    name, rate = machine.behind.name, _rate(machine.behind.bandwidth)
    layer = s.layer_stored / (s.layout.sub_batches if s.sizes.decode else 1.0)
    token = s.cache_per_sequence / s.context
    read = s.sizes.sequences * s.sizes.context * token if s.sizes.decode else 0.0
    yield _stream(f"weights from {name}", name, x.weights_behind * layer / rate, name)
    cached = x.cache_behind * (read + s.sizes.tokens * token) / rate
    yield _stream(f"cache in {name}", name, cached, name)._replace(core=s.sizes.decode)


def _rate(link: BytesPerSecond | None) -> BytesPerSecond:
    return float("inf") if link is None else link


def _stream(name: str, resource: str, seconds: Scalar, lane: str) -> Term:
    return Term(name, "layer", resource, seconds, lane, prefetch=True, bound=seconds)


def _handover(x: Plan, s: Settled, machine: Machine) -> Iterator[Term]:
    """Activations that cross to the engine of the other layers and back, once each per pass."""
    if x.offload != STREAMED and s.sizes.decode:
        link = _rate(machine.engine(x.offload).link)
        crossing = 2.0 * s.sizes.tokens * s.architecture.hidden * s.sizes.element_bytes / link
        yield Term("activations to other layers", "embed", f"{x.offload} link", crossing, "link")


def _host_memory(x: Plan, s: Settled, machine: Machine) -> Iterator[Term]:
    """All that passes through the memory of the host in a layer: what streams, and what is computed there."""
    if "host" not in machine.engines:
        return
    host = machine.engine("host")
    layer = s.layer_stored / (s.layout.sub_batches if s.sizes.decode else 1.0)
    cache = s.sizes.sequences * s.sizes.context * s.cache_per_sequence / s.context if s.sizes.decode else 0.0
    there = x.layers_share if x.offload == "host" else 0.0
    attended = 1.0 - x.cache_at_host - x.cache_at_storage - there if s.layout.attention_engine == "host" else 0.0
    moved = (x.weights_at_host + 2.0 * x.weights_at_storage + there) * layer
    moved = moved + (x.cache_at_host + 2.0 * x.cache_at_storage + there + attended) * cache
    reached = host.bandwidth * host.constant("elementwise", "bf16").memory_fraction
    yield _stream("host memory", "host memory", moved / reached, "host memory")._replace(bound=moved / host.bandwidth)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Streams beside the computation of a layer, in lanes of their own."""
    del net
    if x.offload == NONE:
        return []
    behind = _behind(x, s, machine)
    streams = (*_weights(x, s, machine), *_cache(x, s, machine), *behind, *_host_memory(x, s, machine))
    return [*streams, *_handover(x, s, machine)]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Where the shares lie, and on the device two layers of weights and two parts of the cache that stream."""
    if x.offload == NONE:
        return []
    weights, cache = s.first_layers * s.layer_stored, s.batch * s.first_layers * s.cache_per_sequence
    streamed = x.weights_at_host + x.weights_at_storage + x.weights_behind
    cached = x.cache_at_host + x.cache_at_storage + x.cache_behind
    flying = where(streamed > 0.0, BUFFERS, 0.0) * s.layer_stored
    reading = BUFFERS * cached * maximum(s.batch / PARTS, 1.0) * s.cache_per_sequence
    passing = where(x.weights_at_storage > 0.0, BUFFERS, 0.0) * s.layer_stored
    lines = [
        Line("layers in flight", machine.main.tier, flying),
        Line("cache in flight", machine.main.tier, reading),
        Line("weights", "storage", x.weights_at_storage * weights),
        Line("KV cache", "storage", x.cache_at_storage * cache),
    ]
    if machine.host_link is not None:
        lines += [
            Line("weights", "host", x.weights_at_host * weights),
            Line("KV cache", "host", x.cache_at_host * cache),
            Line("layers in flight", "host", passing),
        ]
    if machine.behind is not None:
        lines += [
            Line("weights", machine.behind.name, x.weights_behind * weights),
            Line("KV cache", machine.behind.name, x.cache_behind * cache),
        ]
    return [line for line in lines if line.tier in machine.tiers]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Every byte in one place; layers elsewhere need an engine there; a cache read where it lies is not streamed."""
    del situation
    weights = x.weights_at_host + x.weights_at_storage + x.weights_behind + x.layers_share
    cached = x.cache_at_host + x.cache_at_storage + x.cache_behind
    if x.offload == NONE:
        return {"offload": 1.0 + weights + cached}
    elsewhere = s.layout.attention_engine != "main"
    other = x.layers_share if x.offload == STREAMED else where(x.layers_share > 0.0, 0.0, 1.0)
    return {
        "weights in one place": weights,
        "cache in one place": 1.0 + cached if elsewhere else cached + x.layers_share,
        "offload": 1.0 + other,
    }


def describe(x: Plan) -> str:
    """What lies where; nothing where all is on the device."""
    said = [
        (x.weights_at_host, "of the weights streamed from the host"),
        (x.weights_at_storage, "of the weights streamed from storage"),
        (x.layers_share, f"of the layers on {x.offload}"),
        (x.cache_at_host, "of the cache streamed from the host"),
        (x.cache_at_storage, "of the cache streamed from storage"),
        (x.weights_behind, "of the weights in the farther memory"),
        (x.cache_behind, "of the cache in the farther memory"),
    ]
    return ", ".join(f"{share:.0%} {words}" for share, words in said if share > 0.0)


TECHNIQUE = Technique(
    name=NAME,
    summary="weights and cache in shares over the device's memories, host and storage, or layers on another engine",
    source="Y. Sheng et al. (FlexGen), arXiv:2303.06865; Z. Li et al. (TPI-LLM), arXiv:2410.00531",
    phases=frozenset({"serving"}),
    neutral={"offload": NONE, **dict.fromkeys(SHARES, 0.0)},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    describe=describe,
    continuous=SHARES,
    telling=("offload",),
)
