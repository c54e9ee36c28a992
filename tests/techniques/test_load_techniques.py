"""Chunks of prompts beside decodes, and parts of a pass side by side: bounds, limits, and the simulator."""

from __future__ import annotations

from typing import Any

import pytest

import perfmodel
from perfmodel import services
from perfmodel.api import plan_columns
from perfmodel.machine.build import build_machine
from perfmodel.phases.side_by_side import EXCHANGE_UNITS, overlapped
from perfmodel.serving.arrivals import Synthetic
from perfmodel.techniques.base import Term
from tests.planning import setting, system

LONG = {"prompt": 2560, "output": 200}


def test_a_replica_with_chunks_serves_what_its_simulation_does() -> None:
    chunk, batch = 2048, 24
    found = setting(
        "mistral-7b", "a100-80gb-sxm", "chat", use=("chunked_prefill",), changes={**LONG, "slo.percentile": 90}
    )
    replica = found.problem.evaluate(plan_columns(found, {"chunk": chunk, "batch": batch}, None))
    load = Synthetic(float(replica.rate), 2560, 200, 4000, seed=3)
    run = services.simulate("mistral-7b", "a100-80gb-sxm", load, token_budget=chunk + batch, max_sequences=200).found
    assert run.stability.stable
    assert run.latencies["ttft"].mean == pytest.approx(float(replica.tails.ttft.mean), rel=0.2)
    assert run.latencies["tpot"].mean == pytest.approx(float(replica.tails.tpot.mean), rel=0.25)
    assert run.gaps["p99"] == pytest.approx(float(replica.tails.tbt(99.0)), rel=0.25)


def capacity(limit: str, chunks: tuple[int, ...]) -> tuple[float, float]:
    """Requests per second, and the chunk that gives them."""
    best = perfmodel.plan(
        "mistral-7b", "a100-80gb-sxm", "chat", use=("chunked_prefill",), pin={"chunk": chunks}, pools="together",
        workload_changes={**LONG, "slo": {"tbt_p99": limit, "ttft_p99": "10 s"}},
    ).serving.best  # fmt: skip
    assert best.metrics["tbt_p99_seconds"] <= float(limit.split()[0]) / 1e3 * (1 + 1e-9)
    return best.metrics["requests_per_second"], best.columns["chunk"]


def test_budgets_grow_with_the_limit_and_chunks_pay_where_tokens_must_come_evenly() -> None:
    found = [capacity(limit, (256, 512, 1024, 2048)) for limit in ("50 ms", "100 ms", "400 ms")]
    assert [rate for rate, _ in found] == sorted(rate for rate, _ in found)
    assert [chunk for _, chunk in found] == sorted(chunk for _, chunk in found)
    strict, relaxed = (capacity(limit, (0,))[0] for limit in ("100 ms", "500 ms"))
    assert found[1][0] > 1.5 * strict
    assert found[2][0] < 1.2 * relaxed


def served(nano: float, batch: int, **changes: Any) -> perfmodel.EvaluatedPlan:
    return perfmodel.estimate(
        "llama70b", "dgx-a100", "batch", columns={"tp": 8, "batch": batch, "nano": nano}, use=("nano_batches",),
        workload_changes={"prompt": 512, "output": 512, **changes},
    ).plan  # fmt: skip


@pytest.mark.parametrize("batch", [256, 1024])
def test_parts_side_by_side_never_beat_any_of_the_resources(batch: int) -> None:
    whole, parts = served(1.0, batch), served(2.0, batch)
    products = 2.0 * 68.5e9 / 312e12
    assert 1.0 / parts.metrics["total_tokens_per_second_per_device"] > products
    busy: dict[str, float] = {}
    for row in (r for r in parts.terms if not r.name.startswith("host")):
        kind = row.resource if row.name in ("attention", "tensor sync") else "main"
        busy[kind] = busy.get(kind, 0.0) + row.busy_seconds
    assert parts.timed_seconds >= max(busy.values()) * (1 - 1e-9)
    assert sum(row.seconds for row in parts.terms) == pytest.approx(parts.timed_seconds)
    if batch == 1024:
        assert parts.metrics["total_tokens_per_second_per_device"] > whole.metrics["total_tokens_per_second_per_device"]


def test_parts_do_not_pay_where_weights_are_all_that_is_read() -> None:
    assert served(2.0, 16).timed_seconds > served(1.0, 16).timed_seconds


def test_parts_side_by_side_lend_units_to_attention_and_exchanges() -> None:
    """As many as stream the memory: a fifth of an A100's, by 64 bytes per clock and unit; more where none are left."""
    machine = build_machine(system("dgx-a100"))
    assert machine.main.streaming_units == pytest.approx(2.039e12 / (108 * 64 * 1.41e9))
    terms = [
        Term("matrix multiply", "layer", "matrix", 1e-3, compute=1e-3),
        Term("attention", "layer", "memory", 4e-4, core=True, memory=3e-4),
        Term("tensor sync", "layer", "network", 2e-4),
    ]
    alone = overlapped(terms[:1], 2.0, machine.main).elapsed()
    lent = 3e-4 * machine.main.streaming_units + 2e-4 * EXCHANGE_UNITS
    assert overlapped(terms, 2.0, machine.main).elapsed() == pytest.approx(alone + 2.0 * lent)
    assert overlapped(terms, 2.0, machine.main).elapsed() < 2.0 * 1.6e-3, "and still sooner than in turn"


def test_simulated_passes_overlap_as_planned_ones_do() -> None:
    """Passes with prompts, too, are cut into parts side by side."""
    rates = []
    for nano in (1, 2):
        load = Synthetic(float("inf"), 512, 512, 1200)
        run = services.simulate(
            "llama70b", "dgx-a100", load, "batch", columns={"tp": 8, "nano": nano}, use=("nano_batches",),
            max_sequences=512, token_budget=2048, prefix_cache=False,
        ).found  # fmt: skip
        rates.append(run.metrics["output_tokens_per_second"])
    planned = [served(float(n), 512).metrics["output_tokens_per_second"] for n in (1, 2)]
    assert rates[1] / rates[0] == pytest.approx(planned[1] / planned[0], rel=0.15)
    assert rates[1] > 1.1 * rates[0]
