"""Context parallelism: ranks share the tokens of a sequence; keys and values, or queries, travel a ring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfmodel.elementwise import Scalar, ceil, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_gather, point_to_point
from perfmodel.network.topology import Dim, Group, Network
from perfmodel.operators.state import crossing_elements, key_value_bytes, recurrent_bytes
from perfmodel.specs.architecture import Architecture, Attention, LatentAttention
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import Bytes, Seconds

__all__ = ["LEAST_TOKENS", "TECHNIQUE", "gather_states", "one_way_bytes", "two_way_bytes"]

LEAST_TOKENS = 4096
"""Shortest piece of a sequence worth a rank of its own in the default search."""
TWO_WAY = 4
"""Fewest ranks of a ring whose two directions are different links."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Powers of two while each rank keeps at least 4,096 tokens of the sequence; one or both directions of the ring."""
    most = max(1, min(situation.workload.sequence // LEAST_TOKENS, 64))
    ranks = [2**i for i in range(most.bit_length()) if 2**i <= most]
    pairs = [(n, ways) for n in ranks for ways in (1, 2) if ways == 1 or n >= TWO_WAY]
    return (Axis(("cp", "cp_directions"), tuple(pairs), left_out=2 * len(ranks) - len(pairs)),)


def dims(x: Plan) -> Sequence[Dim]:
    """Just outside the tensor ranks."""
    return (Dim("context", x.cp, frozenset({"tokens"}), near=1.0),)


def one_way_bytes(architecture: Architecture, queries: Scalar, ranks: Scalar, split: Scalar, element: Bytes) -> Bytes:
    """Keys and values that a rank passes on in all steps of a ring together, per sequence and layer [B].

    Layers with a sliding window need no more than the window, however many ranks there are.

    Parameters
    ----------
    architecture : the model.
    queries : tokens of the sequence on one rank.
    ranks : ranks of the ring.
    split : ranks that share the heads.
    element : bytes per number.
    """
    return key_value_bytes(architecture, queries, kv_split=split, kv_bytes=element, reach=ranks - 1.0)


def two_way_bytes(architecture: Architecture, queries: Scalar, ranks: Scalar, split: Scalar, element: Bytes) -> Bytes:
    """The busier direction when queries travel one way, outputs with their normalisers the other, all steps [B].

    Parameters as in :func:`one_way_bytes`.

    References
    ----------
    .. [1] Z. Wang et al., "TokenRing: an efficient parallelism framework for infinite-context LLMs via bidirectional
       communication", arXiv:2412.20501.
    """
    both, _ = crossing_elements(architecture, recurrent=False)
    mixers = ((run.layer.mixer, run.count) for run in architecture.runs)
    heads = sum(count * m.heads for m, count in mixers if isinstance(m, (Attention, LatentAttention)))
    outputs = both / 2.0 + heads / architecture.layers
    return (ranks - 1.0) * queries * outputs / split * element


def gather_states(net: Network, group: Group, state: Bytes, tokens: Bytes) -> tuple[Seconds, bool]:
    """Recurrent states gathered at once, beside what a rank computes from its own tokens (LASP-2, arXiv:2502.07563).

    Parameters
    ----------
    net, group : ranks that share the sequence.
    state : recurrent state of a layer on one rank [B].
    tokens : keys and values of a rank's own tokens [B]; not moved.

    Returns
    -------
    Seconds, and whether other work hides them.
    """
    del tokens
    return all_gather(net, group, group.size * state), True


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """``cp - 1`` steps of the ring beside attention, an exchange of recurrent states; backward their gradients, too."""
    del machine
    group, element = s.along("context"), s.sizes.element_bytes
    others = maximum(x.cp - 1.0, 1.0)
    local = (s.sizes.queries, x.cp)
    one_way = one_way_bytes(s.architecture, *local, s.split("kv"), element)
    two_ways = two_way_bytes(s.architecture, *local, s.sizes.weight_split, element)
    moved = where(x.cp_directions > 1.0, two_ways, one_way)
    ring = (x.cp - 1.0) * point_to_point(net, group, s.sizes.sequences * moved / others)
    volumes = {"layer_backward": 2.0}
    emitted = [
        Term("context exchange", slot, "network", volumes.get(slot, 1.0) * ring, "net", prefetch=True)
        for slot, _ in s.slots
    ]
    state = recurrent_bytes(s.architecture, kv_split=s.split("kv"))
    if isinstance(state, float) and state == 0.0:
        return emitted
    exchange = s.layout.state_exchange or gather_states
    crossing, _ = crossing_elements(s.architecture, attention=False)
    tokens = s.sizes.tokens * crossing / 2.0 / s.sizes.weight_split * element
    seconds, hidden = exchange(net, group, s.sizes.sequences * state, tokens)
    lane = "net" if hidden else "main"
    return [*emitted, *(Term("state exchange", slot, "network", seconds, lane, prefetch=hidden) for slot, _ in s.slots)]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Each rank takes two chunks of the sequence, so that the causal triangle is shared evenly."""
    chunks = situation.workload.sequence / (2.0 * s.split("tokens"))
    return {"sequence": where(x.cp > 1.0, ceil(chunks) / chunks, 1.0)}


TECHNIQUE = Technique(
    name="context_parallel",
    summary="ranks share the tokens of a sequence; keys and values travel a ring",
    source="H. Liu, M. Zaharia, P. Abbeel, arXiv:2310.01889; both directions: Z. Wang et al., arXiv:2412.20501",
    phases=frozenset({"training"}),
    neutral={"cp": 1, "cp_directions": 1},
    axes=axes,
    dims=dims,
    terms=terms,
    legal=legal,
    telling=("cp",),
)
