"""How tokens travel to their experts and back, other than by the all-to-all of the communication library.

Level by level, messages between nodes are fewer and longer; by node, a token crosses to a node once; kernels made for
the exchange send a token once to every rank that holds one of its experts, in the format of the products, and start
sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perfmodel.elementwise import Scalar, maximum
from perfmodel.errors import UnknownName
from perfmodel.machine.build import Machine
from perfmodel.network.exchange import exchange_by_level, exchange_once, expert_exchange, levels_crossed, vectors_sent
from perfmodel.network.exchange_kernels import ExchangeKernel, measured_exchanges
from perfmodel.network.topology import Group, Network, device_links
from perfmodel.operators.formats import storage
from perfmodel.specs.architecture import Moe
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan, Settled, TokensSent
from perfmodel.units import Seconds

__all__ = ["TECHNIQUE", "by_kernel", "by_level", "by_node"]

NAME = "token_exchange"
LIBRARY, BY_LEVEL, BY_NODE = "library", "by-level", "by-node"
SCALED = 1.0 + 4.0 / 128.0
"""Bytes of a number in 8 bits with a 32-bit scale for 128 of them [B]."""


def by_level(net: Network, machine: Machine, group: Group, sent: TokensSent) -> Seconds:
    """There and back, an exchange per level; between two of them every rank sorts what it holds in memory [s]."""
    sorting = 2.0 * sent.size / machine.main.bandwidth * maximum(levels_crossed(group) - 1.0, 0.0)
    return 2.0 * (exchange_by_level(net, group, sent.size) + sorting)


def by_node(net: Network, machine: Machine, group: Group, sent: TokensSent) -> Seconds:
    """There and back, once to every node that holds any of a token's experts, then inside it, sorted in between [s]."""
    vector = sent.count * sent.width * sent.element_bytes
    arrived = vector * vectors_sent(sent.top_k, group.size)
    sorting = 2.0 * arrived / machine.main.bandwidth * maximum(levels_crossed(group) - 1.0, 0.0)
    return 2.0 * (exchange_once(net, group, vector, sent.top_k) + sorting)


def by_kernel(kernel: ExchangeKernel) -> Callable[[Network, Machine, Group, TokensSent], Seconds]:
    """Exchange by a measured kernel: to the experts in the format of their products, back as computed."""

    def exchange(net: Network, machine: Machine, group: Group, sent: TokensSent) -> Seconds:
        del machine
        vectors = vectors_sent(sent.top_k, group.size, kernel.copies) * sent.width
        narrow = SCALED if storage(sent.format).bytes == 1.0 else storage(sent.format).bytes
        seconds: Seconds = 0.0
        for constants, width in (
            (kernel.prepare, 0.0), (kernel.dispatch, min(narrow, 2.0)), (kernel.combine, sent.element_bytes)
        ):  # fmt: skip
            if constants is not None:
                step = expert_exchange(net, group, constants, sent.count, sent.experts, vectors * width)
                seconds = seconds + step
        return seconds

    return exchange


STEPS: Mapping[str, Callable[[Network, Machine, Group, TokensSent], Seconds]] = {BY_LEVEL: by_level, BY_NODE: by_node}
"""Exchanges in steps of the library's own calls."""


def _kernels(situation: Situation) -> Mapping[str, ExchangeKernel]:
    return measured_exchanges(situation.machine.name, situation.machine.family)


def axes(situation: Situation) -> tuple[Axis, ...]:
    """For models with experts: the library, level by level, and the kernels measured on such machines."""
    routed = any(isinstance(run.layer.ffn, Moe) for run in situation.architecture.runs)
    found = [*STEPS, *_kernels(situation)] if routed else []
    named = situation.choices(NAME)
    for name in named:
        if name not in found:
            raise UnknownName("exchange of tokens", name, found, remedy="there are " + ", ".join((LIBRARY, *found)))
    return (Axis.of("token_exchange", [LIBRARY, *(named or found)], structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """The function that times the exchange, where it is not the library's."""
    if x.token_exchange == LIBRARY:
        return {}
    if x.token_exchange in STEPS:
        return {"token_exchange": STEPS[x.token_exchange]}
    return {"token_exchange": by_kernel(_kernels(situation)[x.token_exchange])}


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Kernels are known among ranks that share device links: beyond them nothing was measured."""
    del situation
    if x.token_exchange in (LIBRARY, *STEPS):
        return {}
    group = s.along("expert")
    return {"measured exchange": group.size / device_links(s.network, group)}


def describe(x: Plan) -> str:
    """How tokens travel."""
    return "" if x.token_exchange == LIBRARY else f"tokens exchanged {x.token_exchange}"


TECHNIQUE = Technique(
    name=NAME,
    summary="tokens travel to their experts level by level, once per node, or by kernels made for it",
    source="X. Nie et al. (HetuMoE), arXiv:2203.14685; DeepSeek-AI (DeepEP), github deepseek-ai/DeepEP; TensorRT-LLM",
    phases=frozenset({"training", "serving"}),
    neutral={"token_exchange": LIBRARY},
    axes=axes,
    layout=layout,
    legal=legal,
    describe=describe,
    by_name=True,
    choice="token_exchange",
)
