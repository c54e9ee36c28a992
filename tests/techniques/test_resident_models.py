"""Requests among many models: what lies on the devices, what is fetched, and when it is worth it."""

from __future__ import annotations

from typing import Any

import pytest
from planning import neutral, setting

from perfmodel.insight.setting import Setting

MODELS = 150


def composition(machine: str = "sn40l-node", models: int = MODELS) -> Setting:
    return setting("llama-2-7b", machine, "batch", framework="bare", changes={"models": models, "prompt": 256})


def switch(found: Setting, resident: float, **columns: Any) -> float:
    replica = found.problem.evaluate(neutral(found, batch=1, resident_models=resident, **columns))
    return sum(r.busy for r in replica.prefill.exposed() if r.name == "model switch")


def test_a_model_comes_over_the_links_of_its_ranks() -> None:
    found = composition()
    size = found.problem.situation.architecture.parameters * 2.0
    alone = switch(found, 1.0, tp=1) / (1.0 - 1.0 / MODELS)
    assert alone == pytest.approx(size / found.machine.host_link, rel=0.01)
    assert switch(found, 1.0, tp=8) == pytest.approx(switch(found, 1.0, tp=1) / 8.0, rel=0.02)


def test_the_more_models_lie_on_the_devices_the_less_is_fetched_and_the_more_is_held() -> None:
    found = composition()
    times = [switch(found, n, tp=8) for n in (1.0, 20.0, MODELS)]
    assert times == sorted(times, reverse=True)
    assert times[-1] == 0.0
    held = []
    for n in (1.0, 20.0):
        replica = found.problem.evaluate(neutral(found, tp=8, batch=1, resident_models=n))
        held.append(sum(line.bytes for line in replica.ledgers["first"] if line.tier == "hbm"))
    model = found.problem.situation.architecture.parameters * 2.0 / 8.0
    assert held[1] - held[0] == pytest.approx(19.0 * model, rel=0.02)


def test_a_single_model_changes_nothing_and_searches_nothing() -> None:
    found = setting("llama-2-7b", "sn40l-node", "batch", framework="bare")
    assert {a.columns: len(a.values) for a in found.space.numeric}[("resident_models",)] == 1


def test_without_memory_behind_a_link_every_model_must_fit() -> None:
    found = composition("rtx-4090", models=4)
    replica = found.problem.evaluate(neutral(found, batch=1))
    assert replica.ratios["models within reach"] == pytest.approx(4.0)
