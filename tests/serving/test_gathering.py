"""Prompts that wait for each other: the closed forms against a queue stepped pass by pass."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from perfmodel.serving.gathering import Gathering, bunched, gathered
from perfmodel.serving.steady import closed_loop


def stepped(passes: int, most: int, rate: float, count: int = 40_000) -> tuple[float, float]:
    """Mean wait [passes] and prompts per release where a window opens with the first prompt."""
    chance, waiting, opened = random.Random(1), [], 0
    waits: list[int] = []
    releases = 0
    for now in range(count):
        if chance.random() < rate:
            opened = opened if waiting else now
            waiting.append(now)
        if waiting and (now - opened >= passes or len(waiting) >= most):
            waits += [now - came for came in waiting]
            waiting, releases = [], releases + 1
    return mean(waits), len(waits) / releases


@pytest.mark.parametrize(("passes", "most", "rate"), [(20, 16, 0.004), (20, 16, 0.12), (60, 8, 0.06), (60, 8, 0.3)])
def test_waits_are_those_of_a_window_that_closes_by_time_or_number(passes: int, most: int, rate: float) -> None:
    wait, together = stepped(passes, most, rate)
    found = gathered(float(passes), float(most), rate, 1.0)
    assert found.wait == pytest.approx(wait, rel=0.15)
    assert found.together == pytest.approx(together, rel=0.15)


def rounds(clients: int, room: int, output: int = 256, decode: float = 0.016, prompt: float = 0.32) -> float:
    """Mean time to the first token [prompts] where answers are equally long, without the first of every client."""
    now, coming = 0.0, [0.002 * n for n in range(clients)]
    waiting: list[float] = []
    left: list[int] = []
    times: list[float] = []
    while len(times) < 10 * clients:
        waiting += [t for t in coming if t <= now]
        coming = [t for t in coming if t > now]
        taken, waiting = waiting[:room], waiting[room:]
        if not taken and not left:
            now = min(coming)
            continue
        now += decode * bool(left) + prompt * len(taken)
        times += [now - came for came in taken]
        ended = sum(n == 1 for n in left)
        left = [n - 1 for n in left if n > 1] + [output - 1] * len(taken)
        coming += [now + 0.003] * ended  # the next requests miss the pass that follows at once
    return mean(times[clients:]) / prompt


@pytest.mark.parametrize(("clients", "room"), [(8, 2), (32, 2), (32, 4)])
def test_equal_requests_stay_bunched(clients: int, room: int) -> None:
    """Those that shared a pass end together; a prompt waits for more than its own, for less than all."""
    assert bunched(clients, room) == pytest.approx(rounds(clients, room), rel=0.35)
    assert 1.0 <= bunched(clients, room) <= clients


def test_held_prompts_trade_first_tokens_for_stalls() -> None:
    plain = closed_loop(0.01, 0.1, batch=16, output=256)
    held = closed_loop(0.01, 0.1, batch=16, output=256, gathering=Gathering(15.0, 20.0, 2.0))
    assert held.ttft == pytest.approx(plain.ttft + 0.15 + 0.1, rel=0.02)
    assert held.tpot == pytest.approx(plain.tpot - 0.1 / 256)
