"""Context parallelism: ranks share the tokens of a sequence and pass keys and values around a ring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfmodel.elementwise import Scalar, ceil, where
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import point_to_point
from perfmodel.network.topology import Dim, Network
from perfmodel.operators.state import cache_bytes
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

LEAST_TOKENS = 4096
"""Shortest piece of a sequence worth a rank of its own in the default search."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Powers of two while each rank keeps at least 4,096 tokens of the sequence."""
    most = max(1, min(situation.workload.sequence // LEAST_TOKENS, 64))
    return (Axis.of("cp", [2**i for i in range(most.bit_length()) if 2**i <= most]),)


def dims(x: Plan) -> Sequence[Dim]:
    """Just outside the tensor ranks."""
    return (Dim("context", x.cp, frozenset({"tokens"}), near=1.0),)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """``cp - 1`` exchanges of the local keys and values beside attention; backward their gradients, too."""
    del machine
    local = cache_bytes(s.architecture, s.sizes.queries, kv_split=s.split("kv"), kv_bytes=s.sizes.element_bytes)
    hop = point_to_point(net, s.along("context"), s.sizes.sequences * local)
    volumes = {"layer_backward": 2.0}
    return [
        Term("context exchange", slot, "network", (x.cp - 1.0) * volumes.get(slot, 1.0) * hop, "net", prefetch=True)
        for slot, _ in s.slots
    ]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Each rank takes two chunks of the sequence, so that the causal triangle is shared evenly."""
    del s
    chunks = situation.workload.sequence / (2.0 * x.cp)
    return {"sequence": where(x.cp > 1.0, ceil(chunks) / chunks, 1.0)}


TECHNIQUE = Technique(
    name="context_parallel",
    summary="ranks share the tokens of a sequence; keys and values travel a ring",
    source="H. Liu, M. Zaharia, P. Abbeel, arXiv:2310.01889",
    phases=frozenset({"training"}),
    neutral={"cp": 1},
    axes=axes,
    dims=dims,
    terms=terms,
    legal=legal,
)
