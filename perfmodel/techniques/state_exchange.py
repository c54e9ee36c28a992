"""How ranks that share a sequence exchange the states of linear attention and state spaces, other than by a gather."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perfmodel.network.collectives import point_to_point
from perfmodel.network.topology import Group, Network
from perfmodel.operators.state import recurrent_bytes
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan
from perfmodel.units import Bytes, Seconds

__all__ = ["TECHNIQUE", "chain", "token_ring"]


def chain(net: Network, group: Group, state: Bytes, tokens: Bytes) -> tuple[Seconds, bool]:
    """The state passes from rank to rank, each waiting for the one before it (LASP, arXiv:2404.02882) [s]."""
    del tokens
    return (group.size - 1.0) * point_to_point(net, group, state), False


def token_ring(net: Network, group: Group, state: Bytes, tokens: Bytes) -> tuple[Seconds, bool]:
    """Keys and values of all tokens travel the ring as for softmax attention (arXiv:2310.01889) [s]."""
    del state
    return (group.size - 1.0) * point_to_point(net, group, tokens), True


EXCHANGES: dict[str, Callable[[Network, Group, Bytes, Bytes], tuple[Seconds, bool]]] = {
    "chain": chain,
    "tokens": token_ring,
}


def axes(situation: Situation) -> tuple[Axis, ...]:
    """The gather of states, and the two older ways."""
    return (Axis.of("state_exchange", ["gather", *EXCHANGES], structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """The function that times the exchange, where it is not the gather."""
    del situation
    return {} if x.state_exchange == "gather" else {"state_exchange": EXCHANGES[x.state_exchange]}


def undominated(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    """All of them for models that have states; without any, all are the same."""
    if recurrent_bytes(situation.architecture, kv_split=1.0) > 0.0:
        return values
    return values[:1]


TECHNIQUE = Technique(
    name="state_exchange",
    summary="recurrent states of a shared sequence pass from rank to rank, or its tokens do",
    source="W. Sun et al. (LASP, LASP-2), arXiv:2404.02882, arXiv:2502.07563",
    phases=frozenset({"training"}),
    neutral={"state_exchange": "gather"},
    axes=axes,
    layout=layout,
    by_name=True,
    undominated=undominated,
)
