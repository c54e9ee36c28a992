"""How tokens travel to their experts: level by level, by measured kernels; and experts that are not equally loaded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from planning import neutral, setting, system

from perfmodel.errors import UnknownName
from perfmodel.network import bounds
from perfmodel.network import collectives as c
from perfmodel.network.build import build_network
from perfmodel.network.exchange import exchange_by_level, exchange_once, levels_crossed
from perfmodel.network.exchange_kernels import measured_exchanges
from perfmodel.network.topology import Group, Network, NetworkLevel
from perfmodel.operators.moe import busiest_rank
from perfmodel.techniques.base import Situation
from perfmodel.techniques.token_exchange import TECHNIQUE

LEVELS = Network(
    (
        NetworkLevel("node", 8.0, 300e9, 1e-6, 0.8),
        NetworkLevel("pod", 4096.0, 12.5e9, 5e-6, 0.8, kind="nic", occupancy=20e-6),
    )
)


def exchanged(way: str, hw: str = "dgx-h100", devices: int = 64, **changes: float) -> float:
    found = setting("deepseek-v2-lite", hw, "pretrain", devices=devices, use=("token_exchange",),
                    changes=changes)  # fmt: skip
    step = found.problem.evaluate(neutral(found, ep=float(devices), token_exchange=way))
    return sum(float(t.seconds) for t in step.terms if t.name == "expert exchange")


@pytest.mark.parametrize("machine", ["dgx-h100", "frontier", "h100-rail-32k", "v100-8x-edr", "gb200-nvl72"])
def test_no_exchange_level_by_level_beats_the_bound(machine: str) -> None:
    network = build_network(system(machine).cluster)
    for ranks in (2.0, 8.0, 16.0, 64.0, 512.0):
        group = Group(tuple(float(min(ranks, level.reach)) for level in network.levels))
        for size in (1e3, 1e6, 1e9):
            assert exchange_by_level(network, group, size) >= bounds.all_to_all_bound(network, group, size)


def test_fewer_and_longer_messages_win_where_messages_are_short() -> None:
    """The bytes between nodes are the same: long messages gain nothing, short ones up to the ratio of their numbers."""
    group = Group((8.0, 64.0))
    gain = [float(c.all_to_all(LEVELS._replace(library=None), group, s) / exchange_by_level(LEVELS, group, s))
            for s in (1e3, 1e6, 1e9)]  # fmt: skip
    direct = [float(_pairwise(group, s) / exchange_by_level(LEVELS, group, s)) for s in (1e3, 1e6, 1e9)]
    assert direct == sorted(direct, reverse=True)
    assert 1.0 < direct[0] <= 8.0 + 1e-9
    assert direct[-1] == pytest.approx(1.0, abs=0.05)
    assert max(gain) <= 1.0 + 1e-9  # ideal levels already exchange level by level, all levels at once


def _pairwise(group: Group, size: float) -> float:
    from perfmodel.network.algorithms import pairwise

    path = pairwise(LEVELS, group)
    return float(path.latency + path.occupied + size * path.transfer)


def test_one_level_is_one_exchange() -> None:
    group = Group((8.0, 8.0))
    assert levels_crossed(group) == 1.0
    assert exchange_by_level(LEVELS, group, 1e6) == pytest.approx(c.all_to_all(LEVELS, group, 1e6))


def test_messages_of_devices_that_share_an_interface_follow_each_other() -> None:
    """Twice the devices on one interface, each with its own messages: twice the wait, whatever the size."""
    found = {}
    for count in (1.0, 4.0):
        cluster = system("v100-8x-edr").cluster
        pod = cluster.levels["pod"]
        assert pod.nics is not None
        nics = pod.nics.model_copy(update={"count": pod.nics.count.model_copy(update={"value": count})})
        levels = {**cluster.levels, "pod": pod.model_copy(update={"nics": nics})}
        found[count] = build_network(cluster.model_copy(update={"levels": levels})).levels[1].occupancy
    assert found[1.0] == pytest.approx(8 * 31e-6)
    assert found[4.0] == pytest.approx(2 * 31e-6)


def test_measured_kernels_are_those_of_the_machine_or_of_its_family() -> None:
    own, kin = measured_exchanges("dgx-h100", "hopper"), measured_exchanges("another", "hopper")
    assert set(own) == {"deepep-normal", "deepep-low-latency"} == set(kin)
    rates = [measured_exchanges(m, "")["deepep-normal"].combine.rate for m in ("dgx-h100", "h200-8x")]
    assert min(rates) <= kin["deepep-normal"].combine.rate <= max(rates)
    assert measured_exchanges("another", "volta") == {}


def test_a_kernel_sends_a_token_once_to_every_rank_and_is_legal_inside_device_links_alone() -> None:
    """Six copies of a token go to 4.4 of 8 ranks on average: less moves than by an exchange of copies."""
    assert exchanged("deepep-normal", "h200-8x", 8) < exchanged("library", "h200-8x", 8)
    found = setting("deepseek-v2-lite", "dgx-h100", "pretrain", devices=64, use=("token_exchange",))
    for ranks, ratio in ((8.0, 1.0), (64.0, 8.0)):
        step = found.problem.evaluate(neutral(found, ep=ranks, token_exchange="deepep-normal"))
        assert step.ratios["measured exchange"] == pytest.approx(ratio)


def test_an_unknown_way_is_refused_by_name() -> None:
    found = setting("deepseek-v2-lite", "dgx-h100", "pretrain", devices=64, use=("token_exchange",))
    situation: Situation = found.problem.situation._replace(chosen=(("token_exchange", ("deepep",)),))
    with pytest.raises(UnknownName, match="deepep-normal"):
        TECHNIQUE.axes(situation)


def test_busiest_rank_is_that_of_a_simulation_and_never_more_than_everything() -> None:
    """Loads of 256 experts drawn with a coefficient of variation of 0.5; the closed form bounds the mean of maxima."""
    rng, sigma = np.random.default_rng(1), math.sqrt(math.log(1.25))
    for ranks in (2, 8, 32):
        loads = rng.lognormal(-sigma * sigma / 2.0, sigma, (4000, ranks, 256 // ranks)).sum(axis=-1)
        drawn = float((loads.max(axis=-1) / loads.mean(axis=-1)).mean())
        closed = float(busiest_rank(0.5, 256.0, float(ranks)))
        assert drawn <= closed <= 1.0 + 2.2 * (drawn - 1.0)
    assert busiest_rank(9.0, 8.0, 8.0) == 8.0
    assert busiest_rank(0.0, 64.0, 8.0) == busiest_rank(3.0, 64.0, 1.0) == 1.0


def test_unequal_experts_lengthen_exchange_products_and_memory() -> None:
    found = {v: setting("deepseek-v2-lite", "h200-8x", "pretrain", devices=8, changes={"expert_variation": v})
             for v in (0.0, 0.5)}  # fmt: skip
    even, uneven = (f.problem.evaluate(neutral(f, ep=8.0)) for f in found.values())
    factor = float(busiest_rank(0.5, 64.0, 8.0))
    rows = found[0.0].problem.situation.workload.sequence * 6.0 * 8.0 / 64.0  # of an expert, on average
    for name, tile in (("expert exchange", 0.0), ("experts", 256.0)):  # products advance in whole tiles of so many rows
        before, after = (sum(float(t.seconds) for t in step.terms if t.name == name) for step in (even, uneven))
        assert 1.0 < after / before <= (factor + tile / rows) * (1 + 1e-9), name
    kept = [next(line.bytes for line in step.ledgers["first"] if line.name == "activations") for step in (even, uneven)]
    assert kept[1] > kept[0]
    alone = found[0.5].problem.evaluate(neutral(found[0.5], ep=1.0))
    assert float(alone.seconds) == pytest.approx(
        float(found[0.0].problem.evaluate(neutral(found[0.0], ep=1.0)).seconds)
    )


def test_capacity_pads_whatever_the_load() -> None:
    padded = exchanged("library", expert_capacity=1.25)
    assert padded / exchanged("library") == pytest.approx(1.25, rel=0.01)
    assert padded == pytest.approx(exchanged("library", expert_capacity=1.25, expert_variation=2.0))


def test_a_token_crosses_to_a_node_once() -> None:
    """Bytes between nodes against drawn experts: 8 of 64 on eight nodes of eight ranks; one expert changes nothing."""
    rng, wide = np.random.default_rng(2), LEVELS.levels[0]._replace(bandwidth=1e30, latency=0.0)
    bare = Network((wide, LEVELS.levels[1]._replace(latency=0.0, occupancy=0.0, efficiency=1.0)))
    group, size = Group((8.0, 64.0)), 1e9
    seconds = float(exchange_once(bare, group, size, 8.0))
    experts = np.array([rng.integers(0, 64, 8) for _ in range(4000)])
    nodes = np.array([len(set(row // 8)) for row in experts])
    assert seconds * bare.levels[1].bandwidth / size == pytest.approx(nodes.mean() * 7 / 8, rel=0.01)
    alone = float(exchange_once(LEVELS, group, size, 1.0))
    assert alone == pytest.approx(float(exchange_by_level(LEVELS, group, size)), rel=0.02)


def test_more_experts_of_a_token_share_a_node_the_fewer_nodes_there_are() -> None:
    """DeepSeek-V3 takes 8 of 256: on two nodes a token crosses once where four copies would."""
    ways = {way: exchanged_on_nodes(way, 16) for way in ("by-level", "by-node")}
    assert 1.5 < ways["by-level"] / ways["by-node"] < 8.0


def exchanged_on_nodes(way: str, ranks: int) -> float:
    found = setting("deepseek-v3", "dgx-h100", "pretrain", devices=64, use=("token_exchange",))
    step = found.problem.evaluate(neutral(found, ep=float(ranks), pp=4.0, token_exchange=way))
    return sum(float(t.seconds) for t in step.terms if t.name == "expert exchange")
