"""Protocols of communication libraries: what is true of every machine, and published timings with their provenance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from planning import system

from perfmodel.errors import UnknownName
from perfmodel.network import algorithms, bounds
from perfmodel.network import collectives as c
from perfmodel.network.build import build_network
from perfmodel.network.exchange import ExchangeConstants, expert_exchange, vectors_sent
from perfmodel.network.library import Library, Protocol
from perfmodel.network.topology import Group, Network, NetworkLevel
from perfmodel.specs.locate import cluster_names

MACHINES = [(e.name, library) for e in cluster_names() for library in system(e.name).cluster.collectives]
SIZES = np.logspace(0, math.log10(4 * 2**30), 40)


def nearest(network: Network, ranks: float) -> Group:
    return Group(tuple(float(min(ranks, level.reach)) for level in network.levels))


def counts(network: Network) -> list[float]:
    return [2.0**i for i in range(1, 18) if 2**i <= network.levels[-1].reach]


@pytest.mark.parametrize(("machine", "library"), MACHINES)
def test_no_library_beats_the_bounds_and_more_bytes_take_longer(machine: str, library: str) -> None:
    network = build_network(system(machine).cluster, library)
    pairs = (
        (c.all_gather, bounds.all_gather_bound),
        (c.all_reduce, bounds.all_reduce_bound),
        (c.all_to_all, bounds.all_to_all_bound),
        (c.broadcast, bounds.broadcast_bound),
        (c.point_to_point, bounds.neighbour_bound),
    )
    for ranks in counts(network):
        group = nearest(network, ranks)
        for collective, bound in pairs:
            times = [collective(network, group, s) for s in SIZES]
            assert all(t >= bound(network, group, s) * (1 - 1e-12) for t, s in zip(times, SIZES, strict=True))
            assert all(b >= a for a, b in itertools.pairwise(times))


@pytest.mark.parametrize(("machine", "library"), MACHINES)
def test_more_ranks_are_never_faster_by_the_same_protocol(machine: str, library: str) -> None:
    """At the same bytes per rank: every algorithm's path grows with the group."""
    network = build_network(system(machine).cluster, library)
    assert network.library is not None
    for algorithm, protocols in network.library.protocols.items():
        for names in algorithms.OPERATIONS.values():
            if algorithm not in names:
                continue
            path = algorithms.PATHS[names[algorithm]]
            for protocol in protocols:
                for size in (1e3, 1e6, 1e9):
                    times = []
                    for ranks in counts(network):
                        lines = protocol.lines(path(network, nearest(network, ranks)), ranks)
                        times.append(min(line.seconds(size) for line in lines))
                    pairs = itertools.pairwise(times)
                    assert all(b >= a * (1 - 1e-9) for a, b in pairs), (algorithm, protocol, size)


def test_one_level_makes_hierarchy_flat() -> None:
    network = Network((NetworkLevel("only", 64.0, 100e9, 2e-6, 0.8),))
    group = Group((16.0,))
    assert algorithms.hierarchical(network, group) == pytest.approx(algorithms.ring(network, group))
    assert algorithms.overlapping(network, group) == pytest.approx(algorithms.ring(network, group))
    assert algorithms.hierarchical_twice(network, group) == pytest.approx(algorithms.ring_twice(network, group))
    assert algorithms.two_shot(network, group).transfer == pytest.approx(algorithms.ring_twice(network, group).transfer)


@pytest.mark.parametrize(("machine", "library"), MACHINES)
def test_rings_of_all_levels_respect_the_bounds_and_are_never_slower_than_without(machine: str, library: str) -> None:
    single = build_network(system(machine).cluster, library)
    network = single._replace(overlapping=True)
    for ranks in counts(network):
        group = nearest(network, ranks)
        for size in (1e3, 1e6, 1e9):
            for collective, bound in ((c.all_gather, bounds.all_gather_bound), (c.all_reduce, bounds.all_reduce_bound)):
                time = collective(network, group, size)
                assert bound(network, group, size) * (1 - 1e-12) <= time <= collective(single, group, size)


def test_one_ring_carries_all_but_a_rank_over_every_border_rings_per_level_what_a_node_lacks() -> None:
    network, group = (
        Network((NetworkLevel("a", 8.0, 1e12, 0.0, 1.0), NetworkLevel("b", 64.0, 1e9, 0.0, 1.0))),
        Group((8.0, 32.0)),
    )
    assert algorithms.ring(network, group).transfer == pytest.approx(31 / 32 / 8e9)
    assert algorithms.overlapping(network, group).transfer == pytest.approx(24 / 32 / 8e9)
    slow = network._replace(levels=tuple(level._replace(latency=1e-6) for level in network.levels))
    assert algorithms.ring(slow, group).latency == pytest.approx(31e-6)
    assert algorithms.overlapping(slow, group).latency == pytest.approx((7 + 3) * 1e-6)


def test_shapes_of_algorithms() -> None:
    """Chan et al. 2007: steps and bytes of every algorithm among 16 ranks of one switch."""
    network, group, alpha, rate = Network((NetworkLevel("l", 64.0, 1e9, 1e-6, 1.0),)), Group((16.0,)), 1e-6, 1e9
    expected = {
        "ring": (15, 15 / 16),
        "ring_twice": (30, 30 / 16),
        "both_ways": (8, 15 / 16),
        "both_ways_twice": (16, 30 / 16),
        "recursive": (4, 15 / 16),
        "recursive_twice": (8, 30 / 16),
        "tree": (8, 30 / 16),
        "one_shot": (15, 15),
        "two_shot": (15, 30 / 16),
        "pairwise": (15, 15 / 16),
        "star": (2, 30),
        "broadcast_tree": (4, 4),
        "neighbour": (1, 1),
    }
    for name, (steps, volume) in expected.items():
        path = algorithms.PATHS[name](network, group)
        assert (path.latency / alpha, path.transfer * rate) == pytest.approx((steps, volume)), name


def test_a_star_wins_where_latency_is_all_and_loses_where_bytes_are() -> None:
    """TPI-LLM (arXiv:2410.00531): on slow links at the edge, two messages beat a tree and a ring."""
    edge = Network((NetworkLevel("edge", 8.0, 37.5e6, 1e-3, 1.0),))
    group = Group((8.0,))

    def time(algorithm: str, size: float) -> float:
        network = edge._replace(library=Library("one", {algorithm: (Protocol(),)}))
        return float(c.all_reduce(network, group, size))

    assert time("star", 1e2) < time("tree", 1e2) < time("ring", 1e2)
    assert time("star", 1e8) > time("ring", 1e8)


def test_a_chunk_bounds_what_is_stored() -> None:
    """Below the chunk every byte is stored at every hop; beyond it the cost of storing stays."""
    network, group = Network((NetworkLevel("l", 64.0, 1e12, 1e-6, 1.0),)), Group((16.0,))
    path = algorithms.tree(network, group)
    lines = Protocol(pace=1e5, chunk=1e6).lines(path, 16.0)
    piped = Protocol().lines(path, 16.0)
    extra = [min(x.seconds(s) for x in lines) - piped[0].seconds(s) for s in (1e5, 1e6, 1e7, 1e9)]
    assert extra[0] == pytest.approx(path.latency)
    assert extra[1:] == pytest.approx([10 * path.latency] * 3)


def test_latency_hides_behind_long_pieces_only() -> None:
    network, group = Network((NetworkLevel("l", 4096.0, 1e9, 1e-5, 1.0),)), Group((1024.0,))
    path = algorithms.ring(network, group)
    lines = Protocol(overlapped=True, chunk=1e5).lines(path, 1024.0)

    def time(size: float) -> float:
        return min(line.seconds(size) for line in lines)

    assert time(1e6) == pytest.approx(path.latency + 1e6 * path.transfer)
    assert time(1e11) == pytest.approx(1e11 * path.transfer)


def test_a_library_is_named_or_refused() -> None:
    assert build_network(system("frontier").cluster, "cray-mpich").library.name == "cray-mpich"  # type: ignore[union-attr]
    with pytest.raises(UnknownName, match="communication library"):
        build_network(system("frontier").cluster, "ncl")


@pytest.mark.parametrize(
    ("machine", "library", "collective", "ranks", "size", "measured"),
    [
        # github ggracelii/mpich-rccl @4f8739e, Frontier: OSU and rccl-tests
        ("frontier", "rccl", c.all_reduce, 128, 4096, 147.9e-6 - 19e-6),
        ("frontier", "rccl", c.all_reduce, 2048, 2**24, 3.68e-3),
        ("frontier", "rccl", c.all_reduce, 16384, 2**32, 140.5e-3),
        ("frontier", "cray-mpich", c.all_reduce, 1024, 2**20, 462e-6),
        ("frontier", "cray-mpich", c.all_reduce, 32768, 2**30, 103.7e-3),
        # ai-dynamo/aiconfigurator (Apache-2.0): nccl-tests on one node
        ("h200-8x", "nccl", c.all_reduce, 8, 2**20, 26.1e-6),
        ("h200-8x", "nccl", c.all_gather, 8, 2**26, 206e-6),
        ("h200-8x", "nccl", c.all_to_all, 4, 2**24, 64.8e-6),
    ],
)
def test_near_published_timings(
    machine: str, library: str, collective, ranks: int, size: float, measured: float
) -> None:
    """Within 30 %: nine tenths of the rows are, so one in ten may leave it when constants are fitted anew."""
    network = build_network(system(machine).cluster, library)
    assert collective(network, nearest(network, ranks), size) == pytest.approx(measured, rel=0.3)


def test_the_whole_of_frontier_sums_four_gibibytes() -> None:
    """Between the bound by the interfaces of a node, and the largest machine measured plus a fifth."""
    network = build_network(system("frontier").cluster)
    group = nearest(network, 65536)
    found = c.all_reduce(network, group, 2.0**32)
    assert 2.0 * 2**32 / 100e9 < found < 1.2 * 142.2e-3


def test_exchange_of_tokens() -> None:
    assert vectors_sent(8.0, 8.0, 1.0) == 8.0
    assert vectors_sent(8.0, 8.0) < 8.0
    network, group = build_network(system("dgx-h100").cluster), Group((8.0, 8.0))
    constants = ExchangeConstants(10e-6, 1e-7, 3e-6, 0.7, 0.2, 1e-9, 1e-8)
    times = [expert_exchange(network, group, constants, t, 256.0, 5.25 * 7168.0) for t in (1.0, 64.0, 4096.0)]
    assert times == sorted(times)
    assert expert_exchange(network, Group((1.0, 1.0)), constants, 64.0, 256.0, 7168.0) == 0.0
    moved = 4096.0 * 5.25 * 7168.0 * 7 / 8 / 450e9
    assert times[-1] > moved


def test_no_algorithm_beats_the_bounds_on_drawn_networks() -> None:
    """One to four levels of any bandwidths, outer ones faster, too; any group; every algorithm as the only one."""
    rng = np.random.default_rng(7)
    pairs = {
        "all_gather": bounds.all_gather_bound,
        "all_reduce": bounds.all_reduce_bound,
        "all_to_all": bounds.all_to_all_bound,
        "broadcast": bounds.broadcast_bound,
        "point_to_point": bounds.neighbour_bound,
    }
    for _ in range(300):
        network, group = drawn(rng)
        for operation, bound in pairs.items():
            for algorithm, path in algorithms.OPERATIONS[operation].items():
                alone = network._replace(library=Library("one", {algorithm: (Protocol(),)}))
                (line,) = Protocol().lines(algorithms.PATHS[path](alone, group), float(group.size))
                for size in (1e2, 1e8):
                    least = float(bound(alone, group, size))
                    assert float(line.seconds(size)) >= least * (1 - 1e-9), (operation, algorithm)


def drawn(rng: np.random.Generator) -> tuple[Network, Group]:
    """A network, and a group of at least two of its ranks."""
    levels, members, reach, bandwidth, size = [], [], 1.0, 10 ** rng.uniform(10, 12), 1.0
    for i in range(int(rng.integers(1, 5))):
        joined = int(rng.integers(1, 5))
        reach, size = reach * 2.0**joined, size * 2.0 ** int(rng.integers(0 if i else 1, joined + 1))
        members.append(size)
        latency, efficiency = 10 ** rng.uniform(-7, -4.5), float(rng.uniform(0.3, 1.0))
        level = NetworkLevel(str(i), reach, bandwidth, latency, efficiency)
        adds, rails = float(rng.choice([0.0, 0.8])), float(rng.choice([0.0, 1.0])) if i else 0.0
        occupancy = float(rng.choice([0.0, 1e-5]))
        levels.append(level._replace(in_network_reduction=adds, rails=rails, occupancy=occupancy))
        bandwidth *= 10 ** rng.uniform(-1.5, 0.3)
    return Network(tuple(levels)), Group(tuple(members))
