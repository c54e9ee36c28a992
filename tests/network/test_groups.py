"""Groups described by members per level against enumerated ranks; collectives against their bounds and limits."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from planning import system

from perfmodel.network import algorithms, bounds
from perfmodel.network import collectives as c
from perfmodel.network.build import build_network
from perfmodel.network.library import Protocol
from perfmodel.network.topology import Dim, Group, Network, NetworkLevel, group_along, replicas, subgroup

SPLITS = {
    "tensor": ({"weights", "kv", "sequence"}, 0.0, True),
    "context": ({"tokens"}, 1.0, True),
    "expert": ({"experts", "batch"}, 2.0, True),
    "data": ({"batch"}, 3.0, True),
    "stage": ({"layers"}, 4.0, True),
    "region": ({"batch"}, 99.0, False),
}
CLUSTERS = ("frontier", "dgx-h100", "dgx-a100", "lumi")


def net(*reaches: float, rates: tuple[float, ...] | None = None, latency: float = 1e-6) -> Network:
    rates = rates or tuple(100e9 / 4**i for i in range(len(reaches)))
    return Network(
        tuple(
            NetworkLevel(f"l{i}", r, b, latency * (i + 1), 0.9)
            for i, (r, b) in enumerate(zip(reaches, rates, strict=True))
        )
    )


def enumerate_group(dims: tuple[Dim, ...], names: frozenset[str]) -> list[int]:
    """Ranks that differ from rank 0 only along the named dims, nearest dims varying fastest."""
    ordered = sorted(dims, key=lambda d: d.near)
    ranks = [0]
    stride = 1
    for dim in ordered:
        steps = range(int(dim.degree)) if dim.name in names else (0,)
        ranks = [r + s * stride for s in steps for r in ranks]
        stride *= int(dim.degree)
    return sorted(ranks)


def most_in_a_domain(ranks: list[int], reach: float) -> int:
    return max(Counter(int(r // reach) for r in ranks).values())


def random_dims(rng: np.random.Generator, *, power: bool) -> tuple[Dim, ...]:
    choices = (1, 2, 4, 8) if power else (1, 2, 3, 4, 5, 6)
    return tuple(
        Dim(n, float(rng.choice(choices)), frozenset(s), near, synchronous)
        for n, (s, near, synchronous) in SPLITS.items()
    )


def test_members_equal_enumerated_ranks() -> None:
    """Hundreds of power-of-two layouts on four levels: every dim, every replica group, every pair of dims."""
    rng = np.random.default_rng(7)
    network = net(2, 8, 128, 2.0**20)
    for _ in range(400):
        dims = random_dims(rng, power=True)
        wanted = [frozenset({n}) for n in SPLITS] + [frozenset(p) for p in itertools.combinations(SPLITS, 2)]
        for names in wanted:
            ranks = enumerate_group(dims, names)
            group = group_along(network, dims, names)
            assert group.size == len(ranks)
            for level, members in zip(network.levels, group.members, strict=True):
                assert members == most_in_a_domain(ranks, level.reach), (dims, names, level)


def test_replicas_hold_the_same_parameters() -> None:
    """The group of a state: ranks with the same tensor, stage (and expert) coordinates; regions drift apart."""
    rng = np.random.default_rng(8)
    network = net(2, 8, 128, 2.0**20)
    for _ in range(300):
        dims = random_dims(rng, power=True)
        for states, names in (
            (("weights",), frozenset({"context", "expert", "data"})),
            (("weights", "experts"), frozenset({"context", "data"})),
        ):
            ranks = enumerate_group(dims, names)
            group = replicas(network, dims, *states)
            found = [most_in_a_domain(ranks, level.reach) for level in network.levels]
            assert list(group.members) == found


def test_other_sizes_are_never_taken_for_nearer_than_they_are() -> None:
    """Degrees that are no powers of two straddle domains: the group is exact in size and counts no domain too full."""
    rng = np.random.default_rng(9)
    network = net(8, 64, 2.0**20)
    exact = total = 0
    for _ in range(300):
        dims = random_dims(rng, power=False)
        for name in SPLITS:
            ranks = enumerate_group(dims, frozenset({name}))
            group = group_along(network, dims, frozenset({name}))
            assert group.size == len(ranks)
            for level, members in zip(network.levels, group.members, strict=True):
                assert 1 <= members <= most_in_a_domain(ranks, level.reach)
                exact += members == most_in_a_domain(ranks, level.reach)
                total += 1
    assert exact > 0.8 * total


def test_subgroups_equal_enumerated_ranks() -> None:
    rng = np.random.default_rng(10)
    network = net(2, 8, 128, 2.0**20)
    for _ in range(400):
        dims = random_dims(rng, power=True)
        names = frozenset({"context", "expert", "data"})
        ranks = enumerate_group(dims, names)
        group = group_along(network, dims, names)
        size = int(2 ** rng.integers(0, 1 + int(math.log2(len(ranks)))))
        skip = int(2 ** rng.integers(0, 1 + int(math.log2(size))))
        chosen = ranks[:size:skip]
        found = subgroup(group, float(size), float(skip))
        assert found.size == len(chosen)
        for level, members in zip(network.levels, found.members, strict=True):
            assert members == most_in_a_domain(chosen, level.reach)


def test_a_subgroup_is_never_larger_than_the_group() -> None:
    group = Group((2.0, 4.0))
    assert subgroup(group, 2.0**40) == group
    assert subgroup(group, 2.0**40, 2.0**40).size == 1.0


# --- collectives --------------------------------------------------------------------------------------------------

COLLECTIVES = (c.all_gather, c.reduce_scatter, c.all_reduce, c.all_to_all, c.broadcast, c.point_to_point)


def groups(network: Network, rng: np.random.Generator, count: int) -> list[Group]:
    """Random nested groups of a network."""
    found = []
    for _ in range(count):
        members, below = [], 1.0
        for level in network.levels:
            below = float(min(level.reach, below * 2 ** rng.integers(0, 5)))
            members.append(below)
        found.append(Group(tuple(members)))
    return found


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_collectives_respect_their_bounds(cluster: str) -> None:
    network = build_network(system(cluster).cluster)
    rng = np.random.default_rng(11)
    for group in groups(network, rng, 200):
        size = float(10 ** rng.uniform(1, 11))
        gather = c.all_gather(network, group, size)
        assert gather >= bounds.all_gather_bound(network, group, size) * (1 - 1e-12)
        assert c.reduce_scatter(network, group, size) == gather
        reduce = c.all_reduce(network, group, size)
        assert bounds.all_reduce_bound(network, group, size) * (1 - 1e-12) <= reduce
        assert reduce <= 2.0 * gather * (1 + 1e-12)
        assert c.broadcast(network, group, size) <= 2.0 * gather * (1 + 1e-12)


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("collective", COLLECTIVES, ids=lambda f: f.__name__)
def test_one_rank_waits_for_nobody(cluster: str, collective) -> None:
    network = build_network(system(cluster).cluster)
    alone = Group((1.0,) * len(network.levels))
    assert collective(network, alone, 1e9) == 0.0


@pytest.mark.parametrize("collective", COLLECTIVES, ids=lambda f: f.__name__)
def test_more_bytes_take_longer(collective) -> None:
    network = net(8, 64, 4096)
    rng = np.random.default_rng(12)
    sizes = np.logspace(0, 11, 40)
    for group in groups(network, rng, 60):
        times = [collective(network, group, s) for s in sizes]
        assert all(b >= a for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("collective", [c.all_gather, c.all_reduce, c.all_to_all], ids=lambda f: f.__name__)
def test_more_ranks_take_longer(collective) -> None:
    """Doubling a group outward, level by level, at the same bytes per rank's buffer."""
    network = net(8, 64, 4096)
    for size in (1e2, 1e5, 1e9):
        times = []
        for n in (1, 2, 4, 8, 16, 32, 64, 128, 1024, 4096):
            times.append(collective(network, Group((min(n, 8.0), min(n, 64.0), float(n))), size))
        assert all(b >= a * (1 - 1e-12) for a, b in itertools.pairwise(times))


def test_faster_links_are_never_slower() -> None:
    rng = np.random.default_rng(13)
    for _ in range(100):
        rates = tuple(10 ** rng.uniform(9, 12) for _ in range(3))
        slow = net(8, 64, 4096, rates=rates)
        (group,) = groups(slow, rng, 1)
        size = float(10 ** rng.uniform(2, 10))
        for level in range(3):
            fast = net(8, 64, 4096, rates=tuple(r * (2 if i == level else 1) for i, r in enumerate(rates)))
            for collective in COLLECTIVES:
                assert collective(fast, group, size) <= collective(slow, group, size) * (1 + 1e-12)


def time_of(path, network: Network, group: Group, size: float) -> float:
    """Time of an algorithm by its ideal protocol."""
    return Protocol().lines(path(network, group), group.size)[0].seconds(size)


def test_hierarchy_beats_one_ring_where_the_inner_level_is_faster() -> None:
    network = net(8, 4096)
    group = Group((8.0, 512.0))
    for size in (1e3, 1e6, 1e9):
        ring, nested = (time_of(path, network, group, size) for path in (algorithms.ring, algorithms.hierarchical))
        assert c.all_gather(network, group, size) == min(ring, nested)
    assert time_of(algorithms.hierarchical, network, group, 1e3) < 0.2 * time_of(algorithms.ring, network, group, 1e3)


def test_limits_of_latency_and_bandwidth() -> None:
    """A flat group: (n-1) steps and (n-1)/n of the bytes; all-reduce twice that, or a tree where bytes are few."""
    network = net(4096, rates=(100e9,))
    n, rate, alpha = 16.0, 100e9 * 0.9, 1e-6
    group = Group((n,))
    assert c.all_gather(network, group, 0.0) == pytest.approx((n - 1) * alpha)
    assert bounds.all_gather_bound(network, group, 0.0) == pytest.approx(math.log2(n) * alpha)
    assert bounds.all_gather_bound(network, group, 1e12) == pytest.approx((n - 1) / n * 1e12 / 100e9)
    assert c.all_gather(network, group, 1e12) == pytest.approx((n - 1) / n * 1e12 / rate, rel=1e-4)
    assert c.all_reduce(network, group, 1e12) == pytest.approx(2 * (n - 1) / n * 1e12 / rate, rel=1e-4)
    assert c.all_reduce(network, group, 8.0) == pytest.approx(2 * math.log2(n) * alpha, rel=1e-3)
    assert c.all_to_all(network, group, 1e12) == pytest.approx((n - 1) / n * 1e12 / rate, rel=1e-4)
    assert c.point_to_point(network, group, 1e12) == pytest.approx(1e12 / rate, rel=1e-4)


def test_what_leaves_a_domain_decides_an_exchange() -> None:
    """64 ranks in domains of 8: seven eighths of the bytes cross the outer level."""
    network = net(8, 4096, rates=(1e12, 10e9), latency=0.0)
    group = Group((8.0, 64.0))
    assert c.all_to_all(network, group, 1e9) == pytest.approx(1e9 * 56 / 64 / (10e9 * 0.9))


def test_reduction_in_the_network_halves_the_bound() -> None:
    plain = net(64)
    adding = Network((plain.levels[0]._replace(in_network_reduction=0.8),))
    group = Group((64.0,))
    assert bounds.all_reduce_bound(adding, group, 1e9) == pytest.approx(
        bounds.all_reduce_bound(plain, group, 1e9) / 2.0, rel=1e-3
    )
    assert c.all_reduce(adding, group, 1e9) <= c.all_reduce(plain, group, 1e9)


def test_arrays_of_groups_agree_with_single_groups() -> None:
    network = net(8, 64, 4096)
    rng = np.random.default_rng(14)
    many = groups(network, rng, 50)
    stacked = Group(tuple(np.array([g.members[i] for g in many]) for i in range(3)))
    sizes = 10 ** rng.uniform(2, 10, 50)
    for collective in COLLECTIVES:
        together = collective(network, stacked, sizes)
        single = [collective(network, g, float(s)) for g, s in zip(many, sizes, strict=True)]
        assert together == pytest.approx(single, rel=1e-12)
