"""Latencies as distributions under random arrivals: against the simulator, Little's law, limits and monotonicity."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import perfmodel
from perfmodel import services
from perfmodel.api import plan_columns
from perfmodel.serving.arrivals import Synthetic
from perfmodel.serving.moments import Moments
from perfmodel.serving.steady import Replica
from tests.planning import setting

SHARES = (50, 90, 99)


def loaded(model: str, machine: str, columns: dict[str, Any], **changes: Any) -> Replica:
    found = setting(model, machine, "chat", changes={"slo.percentile": 90, **changes})
    return found.problem.evaluate(plan_columns(found, columns, None))


@pytest.mark.parametrize(
    ("model", "machine", "columns", "variation"),
    [
        ("llama8b", "h100-sxm", {"batch": 32}, 0.0),
        ("llama8b", "h100-sxm", {"batch": 96}, 0.0),
        ("llama70b", "dgx-h100", {"tp": 8, "batch": 64}, 0.0),
        ("llama8b", "h100-sxm", {"batch": 48}, 1.0),
    ],
)
def test_percentiles_are_near_those_of_the_simulation(
    model: str, machine: str, columns: dict[str, Any], variation: float
) -> None:
    replica = loaded(model, machine, columns, length_variation=variation)
    tails = replica.tails
    degrees = {n: v for n, v in columns.items() if n != "batch"}
    load = Synthetic(float(replica.rate), 1024, 256, 6000, length_variation=variation, seed=5)
    found = services.simulate(model, machine, load, columns=degrees, max_sequences=int(3 * tails.peak)).found
    assert found.metrics["mean_batch"] == pytest.approx(columns["batch"], rel=0.12)
    for name, moments in (("ttft", tails.ttft), ("tpot", tails.tpot), ("e2e", tails.e2e)):
        simulated = found.latencies[name]
        assert simulated.mean == pytest.approx(moments.mean, rel=0.1)
        for share in SHARES:
            near = 0.2 if name != "e2e" or variation == 0.0 else 0.3
            assert getattr(simulated, f"p{share}") == pytest.approx(float(moments.percentile(share)), rel=near)


def test_percentiles_are_those_of_a_gamma_distribution() -> None:
    from scipy.stats import gamma

    for shape, share in itertools.product((1.0, 2.0, 8.0, 50.0), SHARES):
        moments = Moments(3.0 + shape, shape, 3.0)
        assert moments.percentile(share) == pytest.approx(3.0 + gamma.ppf(share / 100.0, shape), rel=0.02)
    assert Moments(2.0, 0.0, 1.0).percentile(99) == pytest.approx(2.0)


def test_the_batch_is_that_of_littles_law() -> None:
    for batch in (1.0, 7.0, 40.0):
        replica = loaded("llama8b", "h100-sxm", {"batch": batch})
        decoding = 255.0 * float(replica.tails.tpot.mean)
        assert float(replica.rate) * decoding == pytest.approx(batch, rel=1e-3)


def test_a_mesh_of_batches_holds_the_numbers_of_single_plans() -> None:
    found = setting("llama70b", "dgx-h100", "chat", changes={"slo.percentile": 95})
    columns = vars(plan_columns(found, {"tp": 8, "pp": 1}, None))
    batches = np.array([1.0, 6.0, 48.0, 200.0])
    mesh = found.problem.evaluate(type(plan_columns(found, {}, None))(**{**columns, "batch": batches}))
    for i, batch in enumerate(batches):
        one = found.problem.evaluate(plan_columns(found, {"tp": 8, "batch": float(batch)}, None))
        assert float(one.rate) == pytest.approx(mesh.rate[i], rel=1e-12)
        assert float(one.tails.e2e.percentile(95)) == pytest.approx(mesh.tails.e2e.percentile(95)[i], rel=1e-12)


def planned(**changes: Any) -> perfmodel.EvaluatedPlan | None:
    return perfmodel.plan("llama70b", "dgx-h100", "chat", workload_changes=changes, changes={"nodes": 16}).serving.best


def test_more_requests_never_need_fewer_devices_and_tighter_limits_are_never_cheaper() -> None:
    counts = [planned(rate=f"{r} requests/s").devices for r in (1, 4, 16, 64)]
    assert all(a <= b for a, b in itertools.pairwise(counts))
    limits = ("80 ms", "50 ms", "30 ms", "20 ms")
    sizes = [planned(**{"rate": "30 requests/s", "slo.tpot_p99": limit}).devices for limit in limits]
    assert all(a <= b for a, b in itertools.pairwise(sizes))
    shares = [planned(**{"rate": "30 requests/s", "slo.percentile": share}).devices for share in (50, 90, 99)]
    assert all(a <= b for a, b in itertools.pairwise(shares))


def test_every_limit_is_kept_and_the_bill_is_the_sum_of_its_parts() -> None:
    best = planned(rate="20 requests/s", **{"slo.percentile": 99, "slo.e2e_p90": "14 s", "slo.tbt_p99": "300 ms"})
    m = best.metrics
    assert m["ttft_p99_seconds"] <= 1.0
    assert m["tpot_p99_seconds"] <= 0.05
    assert m["e2e_p90_seconds"] <= 14.0
    assert m["tbt_p99_seconds"] <= 0.3
    assert m["requests_per_second"] == pytest.approx(20.0)
    paid = 1024 * m["usd_per_million_input_tokens"] + 256 * m["usd_per_million_generated_tokens"]
    assert paid == pytest.approx(256 * m["usd_per_million_output_tokens"])
    energy = 1024 * m["joules_per_input_token"] + 256 * m["joules_per_generated_token"]
    assert energy == pytest.approx(256 * m["joules_per_output_token"])
    hourly = m["usd_per_million_output_tokens"] * m["output_tokens_per_second"] / 1e6
    assert best.devices > 0
    assert hourly > 0
