"""Closed forms of continuous batching against the simulator, and their limits."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import pytest

from perfmodel.serving.arrivals import Synthetic
from perfmodel.serving.pool import Pool
from perfmodel.serving.queueing import batch_at_rate, first_token, operating_point, stable_rate, token_seconds
from perfmodel.serving.replica import Replica
from perfmodel.serving.schedulers import choose_scheduler
from perfmodel.serving.simulation import Run, drive
from perfmodel.serving.stability import stability
from perfmodel.serving.statistics import Totals
from perfmodel.serving.tables import IterationTables, constant_tables, tabulate
from tests.planning import setting

PASS, PER_TOKEN, PROMPT, OUTPUT = 0.01, 1e-5, 500, 50


def simulated(tables: IterationTables, load: Synthetic, *, sequences: int, budget: int) -> tuple[Totals, Run]:
    totals = Totals()
    rules = choose_scheduler("vllm", max_sequences=sequences, token_budget=budget)
    run = Run([Replica(tables, rules, Pool(10**6, 16), totals)], totals)
    return drive(run, iter(load)).totals, run


@pytest.mark.parametrize("rate", [20.0, 100.0])
@pytest.mark.parametrize("variation", [0.0, 1.0])
def test_moments_of_the_first_token_are_exact_where_passes_never_cease(rate: float, variation: float) -> None:
    tables = constant_tables(PASS, PER_TOKEN, sequences=1024, tokens=60_000, context=4096)
    load = Synthetic(rate, PROMPT, OUTPUT, 20_000, length_variation=variation, seed=3)
    totals, _ = simulated(tables, load, sequences=1024, budget=50_000)
    form = first_token(rate, PASS, PROMPT * PER_TOKEN, prompt_variation=variation)
    assert form is not None
    assert np.mean(totals.ttft) == pytest.approx(form.mean, rel=0.02)
    assert np.std(totals.ttft) == pytest.approx(form.variance**0.5, rel=0.15)
    for share in (50, 90, 99):
        assert np.percentile(totals.ttft, share) == pytest.approx(form.percentile(share), rel=0.1)
    batch = batch_at_rate(rate, OUTPUT - 1, lambda b: PASS, lambda b: PROMPT * PER_TOKEN, most=1024)
    assert totals.sequence_seconds / totals.busy == pytest.approx(batch, rel=0.03)
    assert np.nanmean(totals.tpot) == pytest.approx(token_seconds(PASS, rate, PROMPT * PER_TOKEN), rel=0.03)


@lru_cache(maxsize=1)
def tables_of_a_plan() -> IterationTables:
    from perfmodel.api import plan_columns
    from perfmodel.phases.iteration import Iteration

    built = setting("llama8b", "h100-sxm", "chat")
    p = built.problem
    model = Iteration(plan_columns(built, {}, None), p.techniques, p.situation, p.machine, p.network, p.framework)
    return tabulate(model, sequences=256, tokens=8192, context=8192)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_closed_form_of_a_plan_is_near_its_simulation(load: float) -> None:
    tables = tables_of_a_plan()
    probe = operating_point(tables, 1.0, 512, 256, most=256)
    assert probe is not None
    rate = load * probe.stable_rate
    form = operating_point(tables, rate, 512, 256, most=256)
    assert form is not None
    totals, _ = simulated(tables, Synthetic(rate, 512, 256, 6000, seed=1), sequences=256, budget=8192)
    assert np.mean(totals.ttft) == pytest.approx(form.ttft.mean, rel=0.15)
    assert np.percentile(totals.ttft, 99) == pytest.approx(form.ttft.percentile(99), rel=0.2)
    assert np.nanmean(totals.tpot) == pytest.approx(form.tpot, rel=0.12)


@pytest.mark.parametrize(("load", "stable"), [(0.8, True), (1.3, False)])
def test_the_stable_rate_is_where_the_simulation_stops_keeping_up(load: float, stable: bool) -> None:
    tables = tables_of_a_plan()
    point = operating_point(tables, 1.0, 512, 256, most=256)
    assert point is not None
    rate = load * point.stable_rate
    totals, run = simulated(tables, Synthetic(rate, 512, 256, 6000, seed=2), sequences=256, budget=8192)
    verdict = stability(run.arrivals, run.outstanding, totals.ended)
    assert verdict.stable is stable
    assert (operating_point(tables, rate, 512, 256, most=256) is not None) is stable
    if not stable:
        assert verdict.sustained == pytest.approx(point.stable_rate, rel=0.1)


def test_latency_and_batch_grow_with_the_rate_and_end_at_the_stable_rate() -> None:
    most = stable_rate(100, 200, 0.02, 0.01)
    batches = [
        batch_at_rate(f * most, 200, lambda b: 0.01 + 1e-4 * b, lambda b: 0.01, most=100) for f in (0.2, 0.5, 0.99)
    ]
    assert all(a < b for a, b in itertools.pairwise(batches))
    assert batch_at_rate(1.01 * most, 200, lambda b: 0.01 + 1e-4 * b, lambda b: 0.01, most=100) is None
    means = [first_token(r, 0.01, 0.01) for r in (1.0, 50.0, 99.0)]
    assert all(a.mean < b.mean for a, b in itertools.pairwise(means))
    assert first_token(101.0, 0.01, 0.01) is None
    idle = first_token(1e-9, 0.01, 0.01)
    assert idle.mean == pytest.approx(0.5 * 0.01 + 0.01 + 0.01), "half a pass, then one with the prompt"
