"""Power: parts add up, nothing exceeds the limit, caps lower clocks by the root, and published phases come out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning import neutral, setting

import perfmodel
from perfmodel.errors import SpecError
from perfmodel.machine.power import Draw, Use, average_power, clock_under_cap
from perfmodel.phases.memo import Memo
from perfmodel.solver.evaluate import evaluate_plan

DRAW = Draw(idle=70.0, active=210.0, compute=490.0, memory=440.0, network=28.0, limit=700.0)


def test_between_the_floor_and_the_limit() -> None:
    assert average_power(DRAW, Use(), 1.0).total == pytest.approx(210.0)
    assert average_power(DRAW, Use(compute=1.0), 1.0).total == pytest.approx(700.0)
    busy = average_power(DRAW, Use(compute=1.0, memory=1.0, network=1.0), 1.0)
    assert busy.total == pytest.approx(700.0)
    assert busy.memory / busy.compute == pytest.approx(440 / 490), "the cut is shared"
    assert average_power(DRAW, Use(compute=0.5), 1.0).total == pytest.approx(210 + 245)


def test_a_cap_lowers_the_clock_by_the_root() -> None:
    assert clock_under_cap(700.0, 70.0, 700.0, 3.0) == 1.0
    assert clock_under_cap(800.0, 70.0, 700.0, 3.0) == 1.0
    assert clock_under_cap(70 + 630 / 8, 70.0, 700.0, 3.0) == pytest.approx(0.5)


def plan(workload: str, hw: str = "dgx-h100", changes: dict[str, str] | None = None, **columns: float):  # type: ignore[no-untyped-def]
    devices = 8 if workload == "pretrain" else None
    return perfmodel.estimate("llama-2-7b", hw, workload, columns=columns, devices=devices, changes=changes).plan


@pytest.mark.parametrize("workload", ["pretrain", "chat"])
def test_energy_is_conserved(workload: str) -> None:
    found = plan(workload, changes={"pue": "1.3", "carbon": "0.4"})
    assert found.power is not None
    assert sum(found.power.values()) == pytest.approx(found.metrics["average_power_kw"], rel=1e-12)
    assert found.power["facility"] == pytest.approx(0.3 / 1.3 * found.metrics["average_power_kw"])
    if workload == "pretrain":
        metrics = found.metrics
        assert metrics["run_energy_mwh"] == pytest.approx(metrics["average_power_kw"] * metrics["run_days"] * 0.024)
        assert metrics["run_co2_tonnes"] == pytest.approx(0.4 * metrics["run_energy_mwh"])


def test_half_the_power_costs_prompts_a_third_and_tokens_nothing() -> None:
    """H100 at 350 of 700 W: prompts take 1.3 times as long, tokens as long (splitwise-sim performance data)."""
    full, half = plan("chat", tp=8.0), plan("chat", tp=8.0, changes={"power_limit": "350 W"})
    products = {
        name: sum(r.seconds for r in p.extra_terms["prefill"] if r.name in ("matrix multiply", "attention"))
        for name, p in (("full", full), ("half", half))
    }
    assert 1.1 < products["half"] / products["full"] < 1.35
    assert half.timed_seconds == pytest.approx(full.timed_seconds, rel=0.02)
    assert half.metrics["average_power_kw"] < full.metrics["average_power_kw"]


def test_a_cap_slows_training_less_than_it_saves() -> None:
    full, capped = plan("pretrain"), plan("pretrain", changes={"power_limit": "x0.7"})
    assert 1.0 < capped.seconds / full.seconds < (1 / 0.66) ** (1 / 3) + 0.01
    devices = [sum(v for n, v in p.power.items() if n != "node") * p.seconds for p in (full, capped)]
    assert devices[1] < devices[0], "a slower clock needs less energy per operation"
    assert capped.metrics["mfu"] < full.metrics["mfu"]
    same = plan("pretrain", changes={"power_limit": "x1"})
    assert same.seconds == full.seconds
    assert capped.metrics["power_headroom"] > full.metrics["power_headroom"] == 0.0


def test_a_cap_below_idle_is_refused() -> None:
    with pytest.raises(SpecError, match="nothing above the idle power"):
        plan("pretrain", changes={"power_limit": "50 W"})


def test_the_energy_objective_judges_what_is_reported() -> None:
    """Score of the mesh and metrics of the plan come from the same power."""
    best = perfmodel.plan("llama-2-7b", "dgx-h100", "pretrain", devices=16, objective="energy").training.best
    other = perfmodel.plan("llama-2-7b", "dgx-h100", "pretrain", devices=16, objective="time").training.best
    assert best.metrics["run_energy_mwh"] <= other.metrics["run_energy_mwh"] * (1 + 1e-12)
    assert other.seconds <= best.seconds * (1 + 1e-12)


def test_a_fleet_of_replicas_needs_less_than_its_peaks() -> None:
    def room(rate: float) -> float:
        found = perfmodel.estimate("llama-2-7b", "dgx-h100", "chat", columns={"batch": 32},
                                   workload_changes={"rate": f"{rate} requests/s"})  # fmt: skip
        return float(found.plan.metrics["power_headroom"])

    assert 0.0 <= room(1.0) < room(500.0) <= room(5000.0)


def test_an_engine_beside_the_device_draws_while_it_works() -> None:
    """Per device: no more than the limit of the engine, and that for the share of the time in which it attends."""
    found = setting("llama-2-13b", "npu-pim", "batch")
    x = neutral(found, tp=8.0, batch=64.0, attention_engine="pim")
    engines = found.machine.engines
    silent = {**engines, "pim": replace(engines["pim"], draw=Draw())}
    quiet = replace(found.problem, machine=replace(found.machine, engines=silent), memo=Memo())
    drawn = []
    for problem in (found.problem, quiet):
        m = evaluate_plan(problem, x).metrics
        drawn.append(
            float(m["joules_per_output_token"] or 0.0) * float(m["output_tokens_per_second_per_device"] or 0.0)
        )
    plan = evaluate_plan(found.problem, x)
    attention = next(r for r in plan.terms if r.resource == "pim hbm")
    share = attention.seconds / plan.metrics["tpot_seconds"]
    assert drawn[0] - drawn[1] == pytest.approx(60.0 * share, rel=0.02)
    assert 0.0 < share < 1.0
