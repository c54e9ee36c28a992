"""The exchange of tokens of one layer, at once and level by level."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.build import Machine, build_machine
from perfmodel.network.build import build_network
from perfmodel.network.collectives import all_to_all
from perfmodel.network.exchange import exchange_by_level
from perfmodel.network.topology import Dim, Group, Network, group_along
from perfmodel.specs.system import load_system
from perfmodel.techniques.expert_parallel import all_at_once
from perfmodel.techniques.settled import TokensSent
from perfmodel.techniques.token_exchange import by_level

__all__ = ["bytes_between_nodes", "gain", "growth", "on_one_node"]

SENT = TokensSent(count=4096.0, top_k=1.0, experts=64.0, vectors=1.0, width=2048.0, element_bytes=2.0)
"""Tokens of 16 MiB per rank."""


def _place(run: Run, nodes: int) -> tuple[Machine, Network, Group]:
    system = load_system(str(run.asked().hw))
    machine, network = build_machine(system), build_network(system.cluster)
    ranks = Dim("expert", float(nodes * machine.per_node), frozenset(), 0.0)
    return machine, network, group_along(network, (ranks,), frozenset({"expert"}))


def gain(run: Run, nodes: int) -> float:
    """Time of the direct exchange over that of the one level by level."""
    machine, network, group = _place(run, nodes)
    return float(all_at_once(network, machine, group, SENT) / by_level(network, machine, group, SENT))


def growth(run: Run) -> float:
    """Gain among twice the nodes over the gain among half of them."""
    return gain(run, 8) / gain(run, 4)


def on_one_node(run: Run) -> float:
    """Inside a node there is one level, so nothing to gain."""
    return 1.0 / gain(run, 1)


def bytes_between_nodes(run: Run, nodes: int) -> float:
    """Time of both where nothing but the bytes between nodes takes any."""
    _, network, group = _place(run, nodes)
    inner, outer = network.levels
    bare = Network((inner._replace(latency=0.0, bandwidth=1e30), outer._replace(latency=0.0, occupancy=0.0)))
    return float(exchange_by_level(bare, group, SENT.size) / all_to_all(bare, group, SENT.size))
