"""Paths, rails and what switches cost: exact small cases, a simulation, limits and monotony."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.network.bill import Bill, clos_parts, network_bill
from perfmodel.network.bounds import all_to_all_bound
from perfmodel.network.build import build_bill, build_network
from perfmodel.network.collectives import all_gather, all_to_all
from perfmodel.network.congestion import bandwidth_share, hashed_load, single_load, split_factor, split_load
from perfmodel.network.topology import Group, Network, NetworkLevel
from perfmodel.specs.system import load_system

CASES = [(8, 8), (16, 16), (64, 16), (12, 8), (40, 16)]


@pytest.mark.parametrize(("flows", "paths"), CASES)
def test_hashing_is_that_of_a_simulation(flows: int, paths: int) -> None:
    rng = np.random.default_rng(61)
    thrown = rng.multinomial(flows, np.full(paths, 1 / paths), size=100_000).max(axis=1)
    assert hashed_load(flows, paths) == pytest.approx(thrown.mean(), abs=5 * thrown.std() / np.sqrt(thrown.size))


def test_two_flows_over_two_paths_by_hand() -> None:
    assert hashed_load(2, 2) == pytest.approx(1.5)
    assert hashed_load(5, 1) == 5.0


@pytest.mark.parametrize(("flows", "paths"), CASES)
def test_routings_are_ordered(flows: int, paths: int) -> None:
    ideal = flows / paths
    assert split_load(flows, paths) == pytest.approx(ideal)
    assert ideal <= single_load(flows, paths) < ideal + 1
    assert single_load(flows, paths) < hashed_load(flows, paths)
    shares = [bandwidth_share(r, flows, paths) for r in ("spray", "split", "single", "ecmp")]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0
    assert all((flows * m) % paths for m in range(1, split_factor(flows, paths))), "no fewer subflows do"


def test_many_flows_hash_evenly() -> None:
    shares = [bandwidth_share("ecmp", flows, 8) for flows in (8, 32, 128)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.7 > shares[0]


def rails(near: float, far: float, joined: float) -> Network:
    return Network(
        (NetworkLevel("node", 8.0, near, 0.0, 1.0), NetworkLevel("net", 4096.0, far, 0.0, 1.0, rails=joined))
    )


def test_rails_forward_what_is_for_others() -> None:
    """Seven eighths of what leaves a node of eight is for another rail and crosses the node once more."""
    group = Group((8.0, 4096.0))
    clos, rail = (all_to_all(rails(300e9, 25e9, r), group, 1e9) for r in (0.0, 1.0))
    assert rail / clos - 1.0 == pytest.approx(7 / 8 * 25 / 300)
    assert all_gather(rails(300e9, 25e9, 1.0), group, 1e9) == all_gather(rails(300e9, 25e9, 0.0), group, 1e9)
    assert all_to_all_bound(rails(300e9, 25e9, 1.0), group, 1e9) <= rail
    one_per_node = Group((1.0, 512.0))
    assert all_to_all(rails(300e9, 25e9, 1.0), one_per_node, 1e9) == all_to_all(
        rails(300e9, 25e9, 0.0), one_per_node, 1e9
    )


def test_tiers_follow_the_radix() -> None:
    assert clos_parts(64.0, 64.0) == (1.0, 64.0)
    assert clos_parts(2048.0, 64.0) == (96.0, 4096.0)
    assert clos_parts(65536.0, 64.0) == (5120.0, 196608.0)
    ports = np.array([64.0, 2048.0, 65536.0])
    assert np.all(np.diff(clos_parts(ports, 64.0)[0] / ports) > 0)


def test_rails_never_cost_more_than_a_clos() -> None:
    parts = (Bill(64000.0, 2500.0), Bill(700.0, 8.0))
    for ports in (512.0, 4096.0, 32768.0):
        whole = network_bill(ports, 1.0, 128.0, *parts)
        split = [network_bill(ports, k, 128.0, *parts).price for k in (1.0, 8.0, 64.0, 256.0)]
        assert split == sorted(split, reverse=True)
        assert split[0] == whole.price


def test_shipped_machines_say_what_they_cost() -> None:
    clos, rail = (build_bill(load_system(n).cluster) for n in ("h100-clos-32k", "h100-rail-32k"))
    assert clos is not None
    assert rail is not None
    assert rail.price < clos.price
    assert rail.power < clos.power
    assert build_bill(load_system("dgx-h100").cluster) is None
    assert build_network(load_system("h100-rail-32k").cluster).levels[-1].rails == 1.0
