"""Pools of prefill and decode workers: limits of the closed loop, and what is handed over."""

from __future__ import annotations

import pytest

from perfmodel.network.topology import Network, NetworkLevel
from perfmodel.serving.pools import PoolLoad, closed_pools, transfer_seconds


def load(clients: float, **changes: float) -> PoolLoad:
    """A prefill of 0.2 s that two workers take turns at, 100 tokens of 10 ms."""
    usual = {"prefill": 0.2, "between": 0.1, "decode_pass": 0.01, "output": 101.0, **changes}
    return closed_pools(clients=clients, **usual)


def test_a_lone_request_waits_for_nobody() -> None:
    """Its prefill, its cache on the way, and the first decode pass."""
    assert load(1.0, hand_over=0.05).ttft == pytest.approx(0.2 + 0.05 + 0.01)


@pytest.mark.parametrize("clients", [1.0, 4.0, 30.0, 1000.0])
def test_clients_are_those_that_wait_and_those_that_decode(clients: float) -> None:
    """Little's law over the whole life; nobody is lost between the pools."""
    found = load(clients)
    life = found.ttft + 100.0 * found.tpot
    assert found.rate * life == pytest.approx(clients)
    assert found.decoding < clients * 1.01
    assert found.busy <= 1.0


def test_the_prefill_pool_limits_many_clients() -> None:
    """Prompts leave every 0.1 s however many wait; further workers help, faster decodes do not."""
    many = load(1000.0)
    assert many.rate == pytest.approx(10.0, rel=1e-3)
    assert load(1000.0, decode_pass=0.001).rate == pytest.approx(many.rate, rel=1e-2)
    assert load(1000.0, between=0.05).rate == pytest.approx(20.0, rel=1e-3)
    assert load(1000.0).ttft > load(100.0).ttft > load(1.0).ttft


def test_latency_grows_and_rate_does_not_fall_with_clients() -> None:
    """Monotone in the load."""
    found = [load(float(n)) for n in (1, 2, 4, 8, 16, 32, 64)]
    assert [f.ttft for f in found] == sorted(f.ttft for f in found)
    assert [f.rate for f in found] == sorted(f.rate for f in found)


def test_a_cache_crosses_the_farthest_level() -> None:
    """Bytes over what that level gives a device, after its latency."""
    near = NetworkLevel("node", 8.0, 900e9, 1e-6, 0.8)
    far = NetworkLevel("pod", 64.0, 50e9, 8e-6, 0.75, "nic")
    assert transfer_seconds(Network((near, far)), 1e9) == pytest.approx(8e-6 + 1e9 / (50e9 * 0.75))
