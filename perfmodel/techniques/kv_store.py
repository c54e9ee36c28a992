"""Keys and values of reused text fetched from a store instead of computed again.

The store lies in device memory, host memory, on node storage or on shared storage; what travels may be compressed.
Which is quicker, text or keys and values, is left to the search: both are values of one column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, maximum, minimum
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.state import key_value_bytes
from perfmodel.operators.streaming import elementwise
from perfmodel.specs.kv_streams import kv_stream, kv_streams
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

OFF = "none"
"""Reused text is computed again."""
NAME = "kv_store"
FILES = "files"
"""Storage that all nodes share; it has no capacity of its own."""


def _sources(machine: Machine) -> tuple[str, ...]:
    """Where a store may lie."""
    found = [machine.main.tier]
    if machine.host_link is not None and "host" in machine.tiers:
        found.append("host")
    if machine.storage_read is not None and "storage" in machine.tiers:
        found.append("storage")
    if minimum(*machine.file_read) < float("inf"):
        found.append(FILES)
    return tuple(found)


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Nothing to fetch without reused text; then every store, as cached or in the forms that were named."""
    if not situation.workload.reused:
        return (Axis(("kv_source", "kv_stream"), ((OFF, "plain"),), structural=True),)
    forms = situation.choices(NAME) or tuple(n for n, r in kv_streams().items() if r.exact)
    for name in forms:
        kv_stream(name)
    here = situation.machine.main.tier
    away = [place for place in _sources(situation.machine) if place != here]
    pairs = [(here, "plain"), *((place, form) for place in away for form in forms)]
    return (Axis(("kv_source", "kv_stream"), ((OFF, "plain"), *pairs), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """All of the reused text is fetched; nobody published what a compressed form costs a given model."""
    if x.kv_source == OFF:
        return {}
    changes = {"kv_fetched": 1.0}
    return changes if kv_stream(x.kv_stream).exact else {**changes, "quality_loss": float("nan")}


def _cached(s: Settled, tokens: Scalar) -> Scalar:
    """Keys and values of so many tokens on one rank, as cached [B]."""
    split = s.split("kv")
    return s.first_layers * key_value_bytes(s.architecture, tokens, kv_split=split, kv_bytes=s.sizes.kv_bytes)


def _sent(x: Plan, s: Settled) -> Scalar:
    """Share of the cached bytes that travels [1]."""
    ratio = kv_stream(x.kv_stream).ratio
    return minimum(2.0 / ratio / s.sizes.kv_bytes, 1.0)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Transfer of every rank's part over its own share of the link, unpacked while more arrives."""
    del net
    if x.kv_source == OFF or s.sizes.decode:
        return []
    size = _cached(s, s.sizes.sequences * s.situation.workload.reused)
    files = maximum(machine.devices / machine.file_read[0], 1.0 / machine.file_read[1])
    pace = {"host": machine.host_link, "storage": machine.storage_read}.get(x.kv_source)
    each: Scalar = files if x.kv_source == FILES else 0.0 if pace is None else 1.0 / pace
    emitted = [
        Term("keys and values fetched", "fetch", f"{x.kv_source} link", size * _sent(x, s) * each, "fetch", True)
    ]
    work = kv_stream(x.kv_stream).unpack.value
    if work:
        numbers = size / s.sizes.kv_bytes
        unpack = elementwise(numbers, reads=_sent(x, s), writes=1.0, flops_per_element=work)
        emitted.append(Term("unpack keys and values", "fetch", "vector", kernel_time(unpack, machine.main).seconds))
    return emitted


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Everything that may be asked for again, in the tier of the store; that of a device holds its rank's part."""
    if x.kv_source in (OFF, FILES):
        return []
    workload = s.situation.workload
    kept = _cached(s, 1.0 * max(workload.collection, workload.reused))
    return [Line("store of keys and values", x.kv_source, kept * _sent(x, s))]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Pieces in any order can be fetched only where each attends within itself."""
    if x.kv_source == OFF:
        return {}
    return {"pieces in any order": 1.0 if s.layout.pieces_apart else 1.0 * situation.workload.pieces}


def describe(x: Plan) -> str:
    """Where from and how; nothing where text is computed again."""
    if x.kv_source == OFF:
        return ""
    form = "" if x.kv_stream == "plain" else f" ({kv_stream(x.kv_stream).title})"
    return f"keys and values of reused text from {x.kv_source}{form}"


TECHNIQUE = Technique(
    name=NAME,
    summary="keys and values of reused text fetched from a store, compressed or not, instead of computed again",
    source="Y. Liu et al. (CacheGen), arXiv:2310.07240; R. Qin et al. (Mooncake), arXiv:2407.00079",
    phases=frozenset({"serving"}),
    neutral={"kv_source": OFF, "kv_stream": "plain"},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    describe=describe,
    choice="kv_stream",
)
