"""Values that techniques leave out of a search: the best plan is the same with them."""

from __future__ import annotations

from typing import Any

import pytest
from planning import setting

from perfmodel.insight.setting import Setting
from perfmodel.solver.search import search
from perfmodel.solver.space import build_space

LOSSY = ("compressed_collectives", "local_steps", "fused_sums", "state_exchange")
PIN = {"tp": [1, 4], "pp": [1, 2, 4], "virtual": 1, "cp": [1, 2], "micro_batch": [1, 2], "optimizer_host": 0,
       "weights_group": 1, "recompute": [0, 2]}  # fmt: skip


def asked(model: str, machine: str, objective: str = "time", **pin: Any) -> Setting:
    changes = {"sequence": 2048, "global_batch": 2048 * 128}
    return setting(model, machine, "pretrain", devices=32, pin={**PIN, **pin}, use=LOSSY, changes=changes,
                   objective=objective)  # fmt: skip


@pytest.mark.parametrize("objective", ["time", "energy"])
@pytest.mark.parametrize(("model", "machine"), [("llama-2-13b", "frontier"), ("linear-llama3-1b", "two-regions")])
def test_the_best_plan_is_that_of_every_value(model: str, machine: str, objective: str) -> None:
    found = asked(model, machine, objective)
    techniques = [t._replace(undominated=lambda values, _: values) for t in found.problem.techniques]
    whole = build_space(techniques, found.problem.situation, {**PIN, "devices": 32})
    assert whole.cells > 5 * found.space.cells
    fewer, more = search(found.space, found.problem), search(whole, found.problem)
    assert fewer.best[0].score == pytest.approx(more.best[0].score, rel=1e-12)
    assert found.space.cells + found.space.left_out == whole.cells + whole.left_out


def test_what_is_pinned_is_searched() -> None:
    found = asked("llama-2-13b", "frontier", sums="after", compressor="qsdp", local_steps=30)
    plans = [vars(x) for x in found.space.plans()]
    assert {x["sums"] for x in plans} == {"after"}
    assert {x["compressor"] for x in plans} == {"qsdp"}
    assert {x["local_steps"] for x in plans} == {30.0}


def test_models_without_states_have_no_exchange_to_choose() -> None:
    for model, ways in (("llama-2-13b", 1), ("linear-llama3-1b", 3)):
        plans = asked(model, "frontier", sums="after", compressor="none").space.plans()
        assert len({x.state_exchange for x in plans}) == ways
