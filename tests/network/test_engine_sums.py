"""All-reduces of an inference engine beside those of the communication library."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.network.bounds import all_reduce_bound
from perfmodel.network.build import build_network
from perfmodel.network.collectives import all_gather, all_reduce
from perfmodel.network.topology import Dim, Group, group_along
from perfmodel.specs.framework import load_framework
from perfmodel.specs.system import load_system

SIZES = 2.0 ** np.arange(8, 31)
MACHINES = ("dgx-h100", "b200-8x", "a100-8x", "l40s-8x", "aws-p5", "mi300x-8x")


@pytest.mark.parametrize("machine", MACHINES)
def test_the_quicker_library_adds_where_ranks_share_device_links(machine: str) -> None:
    cluster = load_system(machine).cluster
    usual, both = build_network(cluster), build_network(cluster, sums="custom")
    inside = Group(tuple(min(level.reach, 4.0) for level in usual.levels))
    quicker, slower = all_reduce(both, inside, SIZES), all_reduce(usual, inside, SIZES)
    assert np.all(quicker <= slower)
    if machine != "l40s-8x":  # without device links its one shot crosses the host
        assert quicker[2] < 0.8 * slower[2]
    assert np.all(all_reduce_bound(both, inside, SIZES) <= quicker * (1 + 1e-9))
    assert np.array_equal(all_gather(both, inside, SIZES), all_gather(usual, inside, SIZES))


def test_nothing_changes_between_nodes_and_where_a_machine_has_no_such_library() -> None:
    cluster = load_system("dgx-h100").cluster
    usual, both = build_network(cluster), build_network(cluster, sums="custom")
    across = Group((8.0, 16.0))
    assert np.array_equal(all_reduce(both, across, SIZES), all_reduce(usual, across, SIZES))
    assert build_network(load_system("frontier").cluster, sums="custom").sums is None


def test_engines_say_that_they_have_one() -> None:
    assert {load_framework(name).all_reduce for name in ("vllm", "sglang", "tensorrt-llm")} == {"custom"}
    assert load_framework("megatron-core").all_reduce == ""


@pytest.mark.parametrize(("size", "microseconds"), [(24, 6.3), (384, 13.1), (1536, 24.2)])
def test_sums_over_infinity_fabric_are_near_what_vllm_times(size: int, microseconds: float) -> None:
    """Eight MI355X, vLLM before its pull 39080, whose table this is: nothing of it went into the constants."""
    network = build_network(load_system("mi355x-pod").cluster, sums="custom")
    group = group_along(network, (Dim("ranks", 8.0, frozenset(), 0.0),), frozenset({"ranks"}))
    assert float(all_reduce(network, group, size * 1024.0)) == pytest.approx(microseconds * 1e-6, rel=0.4)
