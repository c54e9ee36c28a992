"""Copies that stay in the node: less time between nodes, none saved inside one."""

from __future__ import annotations

from planning import neutral, setting


def exchanged(near: float, devices: int = 64) -> float:
    found = setting("deepseek-v2-lite", "dgx-a100", "pretrain", devices=devices, use=("expert_locality",))
    step = found.problem.evaluate(neutral(found, ep=float(devices), expert_locality=near))
    return sum(float(t.seconds) for t in step.terms if t.name == "expert exchange")


def test_less_is_exchanged_the_more_stays_near() -> None:
    times = [exchanged(near) for near in (0.0, 0.25, 0.5, 1.0)]
    assert times == sorted(times, reverse=True)
    assert times[0] > 3.0 * times[-1]


def test_inside_one_node_there_is_nothing_to_save() -> None:
    """Two exchanges of half the copies each take no less than one of all."""
    assert min(exchanged(0.5, devices=8), exchanged(1.0, devices=8)) >= exchanged(0.0, devices=8)
