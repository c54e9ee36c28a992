"""Loading of data: hidden while it is shorter than a step, then in full; storage and host cores bound it."""

from __future__ import annotations

from typing import Any

import pytest

import perfmodel
from perfmodel.errors import SpecError
from perfmodel.solver.result import EvaluatedPlan


def run(devices: int = 64, **data: Any) -> EvaluatedPlan:
    changes = {f"data.{n}": v for n, v in data.items()}
    return perfmodel.estimate("llama-3-8b", "dgx-h100", "pretrain", columns={"tp": 8}, devices=devices,
                              workload_changes=changes).plan  # fmt: skip


def loading(plan: EvaluatedPlan) -> tuple[float, float]:
    row = next(r for r in plan.terms if r.name == "data loading")
    return row.seconds, row.busy_seconds


def test_what_a_step_hides_costs_nothing() -> None:
    """Four bytes a token are nothing beside a step; terms still add up to it."""
    found, without = run(token_bytes="4 B"), run()
    exposed, busy = loading(found)
    assert exposed == 0.0 < busy
    assert found.seconds == pytest.approx(without.seconds)


def test_a_step_lasts_no_less_than_its_data() -> None:
    """Eight nodes read 3.9 GB/s each."""
    step = run().seconds
    tokens = 4 * 2**20
    for factor in (0.5, 2.0, 10.0):
        wanted = factor * step * 8 * 3.9e9 / tokens
        found = run(token_bytes=f"{wanted} B")
        assert loading(found)[1] == pytest.approx(factor * step, rel=1e-6)
        assert found.seconds == pytest.approx(max(step, factor * step), rel=1e-6)
        assert sum(r.seconds for r in found.terms) == pytest.approx(found.seconds)


def test_loaded_when_needed_it_is_paid_in_full() -> None:
    ahead, late = run(token_bytes="4 kB"), run(token_bytes="4 kB", ahead=False)
    assert late.seconds - run().seconds == pytest.approx(loading(ahead)[1])


def test_cores_prepare_tokens_side_by_side_and_are_as_many_as_there_are() -> None:
    times = [loading(run(token_bytes="4 B", token_seconds="1 ms", workers=n))[1] for n in (1, 2, 4, 10**4, 10**5)]
    assert times[0] == pytest.approx(2.0 * times[1]) == pytest.approx(4.0 * times[2])
    assert times[3] == times[4] > 0.0
    assert times == sorted(times, reverse=True)


def test_node_storage_must_be_there() -> None:
    assert loading(run(token_bytes="4 kB", local=True))[1] < loading(run(token_bytes="4 kB"))[1]
    with pytest.raises(SpecError, match="no storage"):
        perfmodel.estimate("llama-3-8b", "gb200-nvl72", "pretrain", columns={"tp": 8}, devices=8,
                           workload_changes={"data.token_bytes": "4 B", "data.local": True})  # fmt: skip
