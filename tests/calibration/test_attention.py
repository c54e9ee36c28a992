"""Attention kernels: fits find what made their data; windows, masks, groups of heads and splits are consistent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.calibration.fit import fit_groups, predicted
from perfmodel.calibration.model import Columns, Group, Identity, Key
from perfmodel.calibration.operators import OPERATOR_MODELS, attention, mla, model_named
from perfmodel.calibration.store import Store, constants_of
from perfmodel.calibration.subjects import DEVICES, Unpredictable, engine_of
from perfmodel.calibration.validate import predict_group
from perfmodel.machine.engine import Constants, Engine
from perfmodel.machine.kernels import kernel_lower_bound, kernel_time
from perfmodel.operators import attention as operators
from perfmodel.operators.work import Work

PREFILL = Constants(
    compute_fraction=0.7,
    memory_fraction=0.6,
    launch=7e-6,
    prologue=1e-6,
    exponential_cost=0.6,
    corner=2.0,
    ramp=1e-6,
    row_floor=40.0,
    window_margin=1.8,
)
DECODE = Constants(memory_fraction=0.9, launch=6e-6, kv_step=0.3e-6, prologue=2e-6, split_launch=3e-6, row_cost=0.3e-9)


def on(work: Work, constants: Constants, device: str = "h100-sxm") -> float:
    engine: Engine = engine_of(device).calibrated(work.operator, work.format, constants)
    return float(kernel_time(work, engine).seconds)


def prefill(q: float, kv: float, window: float | None = None, causal: bool = True, **changes: float) -> float:
    work = operators.attention(4.0, 16.0, 4.0, 128.0, 128.0, q, kv, window=window, causal=causal)
    return on(work, Constants(**{**vars(PREFILL), **changes}))


def decode(kv: float, kv_heads: float = 4.0, batch: float = 8.0, window: float | None = None) -> float:
    return on(operators.decode_attention(batch, 32.0, kv_heads, 128.0, 128.0, kv, window=window), DECODE)


@settings(max_examples=60, deadline=None)
@given(q=st.integers(1, 20000), cached=st.integers(0, 20000), window=st.integers(16, 40000))
def test_a_window_never_costs_more_than_all_keys(q: int, cached: int, window: int) -> None:
    full = prefill(float(q), float(q + cached))
    assert prefill(float(q), float(q + cached), float(window)) <= full * (1.0 + 1e-12)
    assert prefill(float(q), float(q + cached), float(q + cached + window)) == pytest.approx(full, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(q=st.integers(200, 20000), window=st.integers(16, 4000))
def test_kernels_that_skip_nothing_take_as_long_with_a_window(q: int, window: int) -> None:
    times = [prefill(float(q), float(q), float(window), masked_share=share) for share in (0.0, 0.1, 0.5, 1.0)]
    assert times == sorted(times)
    work, full = (operators.attention(4.0, 16.0, 4.0, 128.0, 128.0, q, q, window=w) for w in (float(window), None))
    engine = engine_of("h100-sxm").calibrated("attention", "bf16", Constants(**{**vars(PREFILL), "masked_share": 1.0}))
    assert kernel_time(work, engine).compute == pytest.approx(kernel_time(full, engine).compute, rel=1e-9)


def test_windows_grow_by_blocks_and_triangles_are_half_of_squares() -> None:
    assert prefill(8192.0, 8192.0, 128.0, window_margin=0.2) < prefill(8192.0, 8192.0, 128.0, window_margin=2.0)
    assert 0.5 < prefill(8192.0, 8192.0) / prefill(8192.0, 8192.0, causal=False) < 0.56
    widths = [prefill(8192.0, 8192.0, w) for w in (64.0, 128.0, 512.0, 2048.0, 8192.0)]
    assert widths == sorted(widths)


def test_every_constant_of_prefill_does_what_it_says() -> None:
    base = prefill(512.0, 512.0)
    assert prefill(512.0, 512.0, launch=8e-6) == pytest.approx(base + 1e-6)
    assert prefill(512.0, 512.0, ramp=4e-6) > base
    assert prefill(512.0, 512.0, exponential_cost=1.0) > base
    assert prefill(512.0, 512.0, prologue=2e-6) > base
    assert prefill(512.0, 512.0, row_floor=100.0) == base, "whole tiles have 128 rows"
    assert prefill(16.0, 4096.0, row_floor=100.0) > prefill(16.0, 4096.0)


def test_neutral_values_change_nothing() -> None:
    plain = {"compute_fraction": 0.6, "memory_fraction": 0.7, "launch": 5e-6, "prologue": 2e-6}
    neutral = {"ramp": 0.0, "row_floor": 0.0, "window_margin": 0.0, "masked_share": 0.0, "row_cost": 0.0}
    for work in (
        operators.attention(2.0, 8.0, 8.0, 128.0, 128.0, 3000.0, 3000.0, window=512.0),
        operators.decode_attention(8.0, 8.0, 1.0, 128.0, 128.0, 9000.0),
    ):
        assert on(work, constants_of(plain)) == on(work, constants_of({**plain, **neutral}))


@settings(max_examples=60, deadline=None)
@given(kv=st.integers(1, 100000), batch=st.integers(1, 512), step=st.integers(1, 5000))
def test_longer_caches_and_more_key_heads_take_longer(kv: int, batch: int, step: int) -> None:
    short = decode(float(kv), batch=float(batch))
    assert decode(float(kv + 64 * step), batch=float(batch)) >= short * (1.0 - 1e-12)
    assert decode(float(kv), 8.0, float(batch)) >= short * (1.0 - 1e-12)
    assert decode(float(kv), batch=float(batch), window=128.0) <= short * (1.0 + 1e-12)


def test_grouped_heads_read_a_cache_once() -> None:
    grouped, single = decode(65536.0, 4.0, 32.0), decode(65536.0, 32.0, 32.0)
    assert 6.0 < single / grouped < 8.5


def test_few_sequences_split_their_keys() -> None:
    work = operators.decode_attention(1.0, 8.0, 1.0, 128.0, 128.0, 131072.0)
    one_unit = 2048.0 * DECODE.kv_step
    assert on(work, DECODE) < 0.1 * one_unit
    dear = Constants(**{**vars(DECODE), "split_launch": 1.0})
    assert on(work, dear) > one_unit


@pytest.mark.parametrize(("q", "kv", "heads"), [(1, 1, 1), (200, 5000, 3), (4097, 4097, 64)])
def test_arrays_and_symbols_agree_with_numbers(q: int, kv: int, heads: int) -> None:
    engine = engine_of("b200").calibrated("attention", "bf16", PREFILL).calibrated("decode_attention", "bf16", DECODE)

    def both(q: object, kv: object, h: object) -> tuple[object, object]:
        return (
            kernel_time(operators.attention(2.0, h, 1.0, 64.0, 64.0, q, kv, window=256.0), engine).seconds,
            kernel_time(operators.decode_attention(2.0, h, 1.0, 64.0, 64.0, kv, window=256.0), engine).seconds,
        )

    numbers = both(float(q), float(kv), float(heads))
    arrays = both(*(np.array([float(x)]) for x in (q, kv, heads)))
    q_, kv_, h_ = sympy.symbols("q kv h", positive=True)
    for number, array, symbol in zip(numbers, arrays, both(q_, kv_, h_), strict=True):
        assert array[0] == pytest.approx(number, rel=1e-12)  # type: ignore[index]
        found = sympy.sympify(symbol).subs({q_: sympy.Integer(q), kv_: sympy.Integer(kv), h_: sympy.Integer(heads)})
        assert float(found) == pytest.approx(number, rel=1e-9)


@pytest.mark.parametrize("device", ["h100-sxm", "b200", "l40s", "mi300x"])
def test_measured_constants_stay_above_the_bound(device: str) -> None:
    engine = engine_of(device)
    for work in (
        operators.attention(8.0, 32.0, 8.0, 128.0, 128.0, 8192.0, 8192.0),
        operators.decode_attention(64.0, 32.0, 8.0, 128.0, 128.0, 8192.0),
    ):
        assert kernel_time(work, engine).seconds >= kernel_lower_bound(work, engine)


def sizes(rows: int, seed: int, phase: str) -> Columns:
    rng = np.random.default_rng(seed)

    def power(low: int, high: int) -> np.ndarray:
        return 2.0 ** rng.integers(low, high, rows)

    q = power(0, 14) if phase in ("prefill", "context") else np.ones(rows)
    kv = q if phase in ("prefill", "context") else power(4, 17)
    cost = power(0, 7)
    common = {"batch": np.maximum(cost, 1.0), "q_len": q, "kv_len": kv, "cache_bytes": np.full(rows, 2.0)}
    if phase in ("context", "generation"):
        return {
            **common,
            "heads_local": power(0, 8),
            "kv_lora_rank": np.full(rows, 512.0),
            "rope_dim": np.full(rows, 64.0),
        }
    kv_heads = power(0, 4)
    window = np.where(rng.random(rows) < 0.2, 128.0, kv + 1.0)
    heads = {"kv_heads": kv_heads, "q_heads": kv_heads * power(0, 4), "head_dim": 64.0 * power(0, 3)}
    return {**common, **heads, "window": window, "causal": np.ones(rows), "resident": np.zeros(rows)}


CASES = {
    "prefill": ("attention", "bf16", PREFILL),
    "decode": ("decode_attention", "bf16 kv fp8", DECODE),
    "context": ("mla", "context bf16", Constants(**{**vars(PREFILL), "exponential_cost": 0.0, "window_margin": 0.0})),
    "generation": ("mla", "generation bf16", Constants(**{**vars(DECODE), "compute_fraction": 0.6, "corner": 2.5})),
}


def made(phase: str, rows: int, seed: int, device: str = "h100-sxm", noise: float = 0.03) -> Group:
    operator, format, true = CASES[phase]
    key = Key(operator, device, format, "made", "synthetic")
    columns = sizes(rows, seed, phase)
    empty = Group(key, "made.csv", "synthetic", "made", device, format, columns, np.ones(rows), tuple(range(rows)))
    factor = np.exp(np.random.default_rng(seed + 9).normal(0.0, noise, rows))
    seconds = predicted(model_named(operator), empty, vars(true)) * factor
    return Group(key, "made.csv", "synthetic", "made", device, format, columns, seconds, empty.lines)


@pytest.mark.parametrize("phase", CASES)
def test_a_fit_of_forty_rows_predicts_others_and_a_sibling(phase: str) -> None:
    store = Store(tuple(fit_groups([made(phase, 40, 1)])))
    for group in (made(phase, 300, 2, noise=0.0), made(phase, 300, 3, "h200", noise=0.0)):
        error = predict_group(group, store).seconds / group.seconds - 1.0
        assert np.median(np.abs(error)) < 0.05
        assert np.quantile(np.abs(error), 0.9) < 0.15


def test_constants_stay_few() -> None:
    for model in (m for m in OPERATOR_MODELS if m.subject is DEVICES):
        for format in ("bf16", "context bf16", "generation bf16 kv fp8"):
            names = [p.name for p in model.parameters(Key(model.name, "h100-sxm", format, "vllm/triton", "x"))]
            assert len(names) == len(set(names)) <= 12


def test_generation_reads_one_latent_for_all_heads() -> None:
    columns = {name: values[:1] for name, values in sizes(1, 1, "generation").items()}
    columns = {**columns, "batch": np.array([64.0]), "kv_len": np.array([32768.0])}
    c = CASES["generation"][2]
    seconds = [
        mla.MODEL.predict({**columns, "heads_local": np.array([h])}, engine_of("h200"), c, "generation bf16")[0]
        for h in (1.0, 8.0)
    ]
    latent = 64.0 * 32768.0 * 576.0 * 2.0 / (engine_of("h200").bandwidth * c.memory_fraction)
    assert latent <= seconds[0] <= seconds[1] < 1.2 * latent


ROW = {
    "dtype": "bf16", "kv_dtype": "fp8", "batch": "2", "q_heads": "8", "kv_heads": "8", "head_dim": "128",
    "q_len": "16", "kv_len": "16", "causal": "1", "window": "0", "framework": "made", "kernel": "k", "kv_fits_l2": "1",
}  # fmt: skip


def test_rows_are_grouped_by_what_runs() -> None:
    identity, columns = attention.PREFILL.read(ROW)
    assert identity == Identity("bf16 kv fp8", "made", "k")
    assert columns["cache_bytes"] == 1.0
    assert columns["window"] > columns["kv_len"]
    vision = attention.PREFILL.read({**ROW, "kv_dtype": "none", "causal": "0", "head_dim": "72"})[0]
    assert vision == Identity("bf16", "made", "k encoder unaligned")
    assert attention.DECODE.read(ROW)[0].kernel == "k ungrouped"
    assert attention.DECODE.read({**ROW, "kv_heads": "2"})[0].kernel == "k"
    assert mla.MODEL.read({**ROW, "phase": "context", "heads_local": "8", "kv_lora_rank": "512", "rope_dim": "64"})[
        0
    ] == Identity("context bf16 kv fp8", "made", "k")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"dtype": "int3"}, "number format"), ({"kv_len": "3"}, "fewer keys"), ({"batch": "0"}, "below 1")],
)
def test_rows_without_a_prediction_say_why(change: dict[str, str], reason: str) -> None:
    with pytest.raises(Unpredictable, match=reason):
        attention.PREFILL.read({**ROW, **change})


def test_tables_of_publications_use_the_same_constants() -> None:
    row = {"impl": "FlashAttention-3", "dtype": "fp16", "batch": "2", "heads": "16", "seq": "1024", "head_dim": "128"}
    row |= {"causal": "not stated (inferred 0)", "pass_": "fwd"}
    identity, columns = attention.PUBLISHED.read(row)
    assert identity == Identity("bf16", "FlashAttention-3", "encoder")
    assert columns["q_len"] == columns["kv_len"] == 1024.0
    for change in ({"impl": "standard"}, {"pass_": "bwd"}):
        with pytest.raises(Unpredictable):
            attention.PUBLISHED.read({**row, **change})


def test_trial_points_of_a_slope_are_predicted_at_once() -> None:
    for phase, (operator, format, true) in CASES.items():
        columns, engine = sizes(20, 5, phase), engine_of("h100-sxm")
        names = [p.name for p in model_named(operator).parameters(Key(operator, "h100-sxm", format, "made", ""))]
        values = {n: getattr(true, n) or 1e-9 for n in names}
        trial: dict[str, Any] = {n: np.full((3, 1), v) for n, v in values.items()}
        seconds = model_named(operator).predict(columns, engine, Constants(**trial), format)
        assert seconds.shape == (3, 20)
        assert seconds[1] == pytest.approx(model_named(operator).predict(columns, engine, constants_of(values), format))
