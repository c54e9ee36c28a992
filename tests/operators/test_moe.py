"""Loads of experts add up, few tokens spread, and the time of fused experts follows them; fits find constants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.calibration.fit import fit_one
from perfmodel.calibration.model import Group, Key
from perfmodel.calibration.operators import model_named
from perfmodel.calibration.subjects import Unpredictable, engine_of
from perfmodel.machine.engine import Constants
from perfmodel.machine.kernels import MOE_HEIGHTS, kernel_lower_bound, kernel_time
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.operators.moe import (
    HEIGHTS,
    busiest,
    chance_load,
    chosen,
    even_loads,
    expected_loads,
    group_limited,
    moe,
    sampled_loads,
    skewed_loads,
    summed,
)
from perfmodel.operators.work import Work
from perfmodel.specs.architecture import Architecture
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model

ROUTING = st.sampled_from([(2, 8), (8, 128), (8, 256), (10, 512), (4, 32), (1, 16), (6, 384)])
TOKENS = st.sampled_from([1, 2, 4, 16, 48, 80, 256, 1024, 16384])
SKEW = st.sampled_from([1.0, 1.01, 1.2])


@settings(max_examples=60, deadline=None)
@given(tokens=TOKENS, routing=ROUTING, skew=SKEW, ranks=st.sampled_from([1, 2, 4, 8]))
def test_loads_add_up_to_what_the_tokens_choose(tokens: int, routing: tuple[int, int], skew: float, ranks: int) -> None:
    top_k, experts = routing
    loads = skewed_loads(tokens, top_k, experts, skew, ranks=ranks, samples=3)
    assert np.all(loads.sum(axis=(1, 2)) == tokens * top_k)
    assert loads.min() >= 0
    assert loads.max() <= tokens
    assert even_loads(tokens, top_k, experts).sum() == tokens * top_k
    assert np.all(busiest(loads).sum(axis=-1) >= tokens * top_k / ranks)


@settings(max_examples=60, deadline=None)
@given(tokens=TOKENS, routing=ROUTING, skew=st.sampled_from([0.0, 1.01, 1.2]), ranks=st.sampled_from([1, 2, 8]))
def test_active_experts_and_tiles_lie_between_their_bounds(
    tokens: int, routing: tuple[int, int], skew: float, ranks: int
) -> None:
    top_k, experts = routing
    loads = sampled_loads(tokens, top_k, experts, skew, ranks)
    assert 0 < loads.active <= min(experts / ranks, loads.rows)
    assert loads.rows <= tokens * min(top_k, experts / ranks)
    for height, count in zip(HEIGHTS, loads.tiles, strict=True):
        assert max(loads.active, loads.rows / height) <= count <= loads.rows / height + loads.active


def test_few_tokens_are_spread_over_ranks_and_experts() -> None:
    for ranks in (1, 8, 64):
        loads = sampled_loads(1, 8, 256, 1.2, ranks)
        assert loads.active == loads.rows <= max(1.0, 8 / ranks) + 1


def test_even_routing_is_the_limit_of_no_skew() -> None:
    even = sampled_loads(4096, 8, 128, 0.0, 4)
    assert even.rows == 8192
    flat = skewed_loads(4096, 8, 128, 1e-6, samples=2)
    assert flat.mean() == even.rows / 32
    more = [sampled_loads(4096, 8, 128, skew, 4).rows for skew in (0.0, 1.01, 1.5)]
    assert more[0] < min(more[1:])


def test_tokens_choose_different_experts_that_add_up() -> None:
    loads = skewed_loads(64, 8, 256, 1.2, ranks=8, samples=1)[0].ravel()
    choice = chosen(loads, 64, 8)
    assert all(len(set(row)) == 8 for row in choice.tolist())
    assert np.array_equal(np.bincount(choice.ravel(), minlength=256), loads)
    kept = group_limited(choice, 256, 8, 4)
    assert all(len(set(row)) == 8 for row in kept.tolist())
    assert max(len(set(row)) for row in (kept // 32).tolist()) <= 4


def test_the_closed_form_agrees_with_counting() -> None:
    counted = summed(np.random.default_rng(0).poisson(90.0, size=(20, 64)))
    closed = expected_loads(counted.rows, counted.active)
    assert closed.tiles == pytest.approx(counted.tiles, rel=0.25)
    assert HEIGHTS == MOE_HEIGHTS


def work(tokens: float = 64.0, *, experts: float = 32.0, width: float = 1024.0, format: str = "bf16") -> Work:
    rows = tokens * 8.0 / 4.0
    loads = expected_loads(rows, min(experts, rows))
    return moe(tokens, 4096.0, width, loads, experts=experts, top_k=8.0, format=format)


@pytest.mark.parametrize("device", ["h100-sxm", "b200", "l40s", "mi300x"])
def test_no_layer_is_faster_than_its_bound_and_more_tokens_take_longer(device: str) -> None:
    engine, last = engine_of(device), 0.0
    for tokens in (1.0, 8.0, 64.0, 512.0, 4096.0, 32768.0):
        seconds = float(kernel_time(work(tokens), engine).seconds)
        assert seconds >= kernel_lower_bound(work(tokens), engine) * (1.0 - 1e-12)
        assert seconds >= last * (1.0 - 1e-9)
        last = seconds


def test_routing_costs_are_off_until_measured_and_add_up_when_set() -> None:
    engine, one = engine_of("h100-sxm"), work(1024.0)
    plain = engine.calibrated("moe", "bf16", Constants(compute_fraction=0.5))
    dear = Constants(compute_fraction=0.5, token_cost=1e-6, expert_cost=1e-7, permute_fraction=0.5, idle_share=0.5)
    extra = kernel_time(one, engine.calibrated("moe", "bf16", dear)).seconds - kernel_time(one, plain).seconds
    assert extra > 32e-6 + 3.2e-6
    assert kernel_time(one, plain).overhead == 0.0


def test_symbols_give_the_same_time() -> None:
    engine, tokens = engine_of("h100-sxm"), sympy.Symbol("t", positive=True)
    rows = 2.0 * tokens
    symbolic = moe(tokens, 4096.0, 1024.0, expected_loads(rows, 32.0), experts=32.0, top_k=8.0)
    seconds = kernel_time(symbolic, engine).seconds.subs(tokens, 100)
    assert float(seconds) == pytest.approx(float(kernel_time(work(100.0), engine).seconds), rel=1e-9)


ROW = {
    "dtype": "bfloat16", "tokens": "64", "hidden": "4096", "inter": "2048", "topk": "8", "experts": "128", "tp": "2",
    "ep": "4", "distribution": "power_law_1.2", "framework": "vllm",
    "kernel": "vllm_unquantizedfusedmoe_triton_tritonexperts",
}  # fmt: skip


def test_rows_are_read_as_one_rank_sees_them() -> None:
    read = model_named("moe").read
    identity, sizes = read(ROW)
    assert identity[:3] == ("bfloat16", "vllm", "triton")
    assert (sizes["width"], sizes["experts"], sizes["gated"]) == (1024.0, 32.0, 1.0)
    assert read({**ROW, "kernel": "moe_torch_flow_nongated"})[1]["gated"] == 0.0
    assert read({**ROW, "distribution": "balanced"})[1]["rows"] == 128.0
    for change in ({"dtype": "fp7"}, {"distribution": "zipf"}, {"ep": "3"}):
        with pytest.raises(Unpredictable):
            read({**ROW, **change})


def test_a_fit_finds_the_constants_that_made_its_data() -> None:
    model = model_named("moe")
    rng, sizes = np.random.default_rng(3), []
    for _ in range(120):
        tokens = int(2 ** rng.integers(0, 15))
        change = {"tokens": str(tokens), "ep": str(2 ** rng.integers(0, 5)), "tp": str(2 ** rng.integers(0, 4))}
        sizes.append(model.read({**ROW, **change})[1])
    columns = {name: np.array([s[name] for s in sizes]) for name in sizes[0]}
    true = {"compute_fraction": 0.6, "memory_fraction": 0.85, "launch": 12e-6, "token_cost": 0.5e-6}
    parameters = model.parameters(Key("moe", "h100-sxm", "bfloat16", "vllm/triton", "made up"))
    assert len(parameters) <= 12
    values = {p.name: true.get(p.name, p.default) for p in parameters}
    seconds = model.predict(columns, engine_of("h100-sxm"), Constants(**values), "bfloat16")
    key = Key("moe", "h100-sxm", "bfloat16", "vllm/triton", "made up")
    group = Group(key, "", "", "vllm", "", "bfloat16", columns, seconds, tuple(range(120)))
    centre = np.log([p.default for p in parameters])
    fit = fit_one(model, [group], parameters, centre, np.array([p.sigma for p in parameters]))
    assert np.median(np.abs(fit.residuals)) < 0.01
    for name in ("compute_fraction", "memory_fraction", "launch"):
        assert fit.values[name] == pytest.approx(true[name], rel=0.12)


def test_whole_experts_on_tensor_ranks_do_the_work_of_slices() -> None:
    """Eight ranks with all experts sliced, or with an eighth of them whole: the same weights and operations in all."""
    sizes = Sizes(sequences=64.0, queries=1.0, context=1024.0, weight_split=8.0, decode=True)
    architecture = load_model(find_model("qwen3-235b-a22b")).architecture
    for whole in (2.0, 8.0):
        sliced, own = (_experts(architecture, s) for s in (sizes, replace(sizes, expert_tensor=whole)))
        assert own.flops == pytest.approx(sliced.flops)
        assert own.compulsory_bytes == pytest.approx(sliced.compulsory_bytes, rel=0.05)


def _experts(architecture: Architecture, sizes: Sizes) -> Work:
    return next(c.work for c in layer_calls(architecture, sizes) if c.component == "experts")


@pytest.mark.parametrize(
    ("tokens", "ranks", "groups", "kept"), [(4, 8, 8, 4), (32, 8, 8, 4), (32, 4, 1, 1), (16, 16, 8, 4)]
)
def test_chance_loads_the_busiest_rank_as_drawn_choices_do(tokens: int, ranks: int, groups: int, kept: int) -> None:
    """256 experts of which a token takes 8, those of the groups that its router keeps."""
    draw = np.random.default_rng(0)
    most = []
    for _ in range(200):
        loads = np.zeros(256)
        for _ in range(tokens):
            open_ = np.isin(np.arange(256) // (256 // groups), draw.choice(groups, kept, replace=False))
            loads[draw.choice(np.flatnonzero(open_), 8, replace=False)] += 1
        most.append(loads.reshape(ranks, -1).sum(axis=1).max())
    found = chance_load(float(tokens), float(ranks), top_k=8.0, experts=256.0, groups=float(groups), kept=float(kept))
    assert found == pytest.approx(np.mean(most) / (tokens * 8 / ranks), rel=0.09)
    assert chance_load(float(tokens), 1.0, top_k=8.0, experts=256.0) == 1.0
