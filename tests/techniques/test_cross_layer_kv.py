"""Layers that share keys and values: what is cached, what is computed, what prompts pass."""

from __future__ import annotations

from typing import Any

import pytest
from planning import model, neutral, setting

from perfmodel.errors import SpecError
from perfmodel.insight.replicas import Options
from perfmodel.insight.simulation import simulate
from perfmodel.serving.arrivals import Synthetic
from perfmodel.serving.schedulers import choose_scheduler
from perfmodel.specs.sharing import PATTERNS, attention_layers, leading_layers, map_of, share_keys

TINY = "tinyllama-1.1b"


def served(*maps: str, name: str = TINY, **options: Any) -> Any:
    lengths, use = {"prompt": 1024, "output": 512}, ("cross_layer_kv=" + ",".join(maps),)
    return setting(name, "a100-80gb-sxm", "batch", use=use, changes=lengths, **options)


@pytest.mark.parametrize(("text", "stored"), [("cla-2", 11), ("cla-3", 8), ("yoco", 2), ("lckv", 3), ("0x22", 1)])
def test_cache_is_that_of_the_layers_that_store(text: str, stored: int) -> None:
    found = served(text)
    plans = [found.problem.evaluate(neutral(found, batch=8, cross_layer_kv=v)) for v in ("none", text)]
    whole, less = (float(p.settled.cache_per_sequence) for p in plans)
    assert whole / less == pytest.approx(22 / stored)
    assert map_of(text, 22).stored == stored


def test_patterns_are_the_published_maps() -> None:
    written = {
        "cla-2": "0_0_2_2_4_4_6_6_8_8_10_10_12_12_14_14_16_16_18_18_20_20",
        "yoco": "0x10_10x12",
        "lckv": "0_20x20_21",
    }
    for name, text in written.items():
        assert map_of(name, 22).sources == map_of(text, 22).sources


def test_every_layer_its_own_is_the_model_itself() -> None:
    architecture = model(TINY).architecture
    own = "_".join(str(i) for i in range(22))
    assert share_keys(architecture, map_of(own, 22)) == architecture
    assert leading_layers(architecture) is architecture


def test_readers_have_no_projections_of_keys_and_values() -> None:
    """2 h h_kv d parameters less for every reader."""
    architecture = model(TINY).architecture
    for text in PATTERNS:
        kv_map = map_of(text, 22)
        less = (22 - kv_map.stored) * 2 * 2048 * 4 * 64
        assert share_keys(architecture, kv_map).parameters == architecture.parameters - less


def test_decode_reads_as_much_as_before() -> None:
    """Sharing saves memory and projections; every layer still reads keys and values."""
    found = served("cla-2")
    plans = [found.problem.evaluate(neutral(found, batch=32, cross_layer_kv=v)) for v in ("none", "cla-2")]
    times = [sum(r.exposed for r in p.decode.exposed() if r.name == "attention") for p in plans]
    assert times[0] == pytest.approx(times[1], rel=1e-9)
    assert plans[1].pass_seconds < plans[0].pass_seconds


def test_prompts_pass_once_half_the_layers_or_again_and_again() -> None:
    found = served("cla-2", "yoco", "lckv")
    times = {
        v: float(found.problem.evaluate(neutral(found, batch=1, cross_layer_kv=v)).prefill.elapsed())
        for v in ("none", "cla-2", "yoco", "lckv")
    }
    assert 0.9 * times["none"] < times["cla-2"] <= times["none"]
    assert 0.4 * times["none"] < times["yoco"] < 0.55 * times["none"]
    assert 5.5 * times["none"] < times["lckv"] < 7.0 * times["none"]


def test_a_model_may_declare_its_map() -> None:
    declared, plain = model("tinyllama-lckv").architecture, model(TINY).architecture
    shared = share_keys(plain, map_of("lckv", 22))
    assert (declared.runs, declared.prompt_passes) == (shared.runs, 7)


def test_layers_of_hybrids_are_counted_among_those_with_attention() -> None:
    architecture = model("jamba-1.5-mini").architecture
    count = attention_layers(architecture)
    shared = share_keys(architecture, map_of("0x" + str(count), count))
    assert 0 < count < architecture.layers == shared.layers


@pytest.mark.parametrize("text", ["0_1_2", "0x21_22", "pairs", "0_0_1x20", "0xx22", ""])
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="cross_layer_kv"):
        map_of(text, 22)


@pytest.mark.parametrize("kind", ["none", "cla-2", "yoco", "lckv"])
def test_a_lone_simulated_request_takes_what_the_plan_says(kind: str) -> None:
    """Prompts that pass half of the layers, or all of them seven times, beside decodes that pass all once."""
    found = served("cla-2", "yoco", "lckv", framework="bare")
    x = neutral(found, batch=1, cross_layer_kv=kind)
    work, plan = found.problem.situation.workload, found.problem.evaluate(x)
    load = Synthetic(1e-3, work.prompt, work.output, 12, variation=0.0)
    options = Options(choose_scheduler("vllm", max_sequences=8, token_budget=work.prompt + 8), prefix_cache=False)
    run = simulate(found, x, load, options)
    assert run.latencies["tpot"].mean == pytest.approx(float(plan.pass_seconds), rel=0.01)
    assert run.latencies["ttft"].mean == pytest.approx(float(plan.prefill.elapsed()), rel=0.05)
