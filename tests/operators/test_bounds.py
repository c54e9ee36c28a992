"""What is true of every bound: above compulsory, below every algorithm, one formula for numbers, arrays and symbols."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.operators import attention as operator_attention
from perfmodel.operators import gemm as operator_gemm
from perfmodel.operators.backward import backward_of
from perfmodel.operators.bounds import attention as att
from perfmodel.operators.bounds import decode, matmul, passes, transforms
from perfmodel.operators.layers import Call

MODULES = ("matmul", "passes", "attention", "decode", "transforms", "collectives")
SIDE = st.integers(1, 4096)
FAST = st.integers(3, 2**17)

VALUES = {"fast": 4096.0, "bits": 4.0, "share": 0.5, "order": 2.0, "passes": 3.0, "copies": 2.0, "group": 8.0,
          "alpha": 1e-6, "beta": 1e-10, "gamma": 1e-12, "peak": 1e15, "bandwidth": 3e12, "latency": 1e-3,
          "splits": 4.0, "exponent": 2.8, "rows": 16.0}  # fmt: skip


def formulas() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in MODULES:
        module = import_module(f"perfmodel.operators.bounds.{name}")
        for public in module.__all__:
            function = getattr(module, public)
            if inspect.isfunction(function) and public != "collective_lower_bound":
                yield f"{name}.{public}", function


def arguments(function: Callable[..., Any]) -> dict[str, float]:
    return {
        name: VALUES.get(name, 64.0 + 8.0 * i)
        for i, (name, parameter) in enumerate(inspect.signature(function).parameters.items())
        if not isinstance(parameter.default, bool)
    }


def flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


@pytest.mark.parametrize(("name", "function"), list(formulas()), ids=lambda v: v if isinstance(v, str) else "")
def test_one_formula_three_readings(name: str, function: Callable[..., Any]) -> None:
    import sympy

    given_ = arguments(function)
    number = flat(function(**given_))
    arrays = flat(function(**{n: np.array([v, v]) for n, v in given_.items()}))
    symbols = {n: sympy.Symbol(n, positive=True) for n in given_}
    said = flat(function(**symbols))
    for plain, array, symbol in zip(number, arrays, said, strict=True):
        assert np.asarray(array) == pytest.approx(plain)
        evaluate = sympy.lambdify(list(symbols.values()), symbol, "math")
        assert evaluate(*given_.values()) == pytest.approx(plain), name


def test_every_formula_says_where_it_comes_from() -> None:
    documented = {name for name, f in formulas() if ">>>" in (f.__doc__ or "")}
    assert documented == {name for name, _ in formulas()}


# --- matrix products --------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(SIDE, SIDE, SIDE, FAST)
def test_no_loop_beats_the_bound_of_products(m: int, n: int, k: int, fast: int) -> None:
    lower = matmul.gemm_lower_bound(m, n, k, fast)
    assert matmul.gemm_blocked(m, n, k, fast) >= matmul.gemm_achievable(m, n, k, fast) >= lower
    assert lower >= matmul.gemm_compulsory(m, n, k)
    assert matmul.gemm_achievable(m, n, k, 2 * fast) <= matmul.gemm_achievable(m, n, k, fast) * 1.25 + 1


@settings(max_examples=200, deadline=None)
@given(st.integers(4096, 2**16), st.floats(8, 20), st.floats(8, 20), st.floats(8, 20))
def test_large_products_come_within_a_quarter(fast: int, x: float, y: float, z: float) -> None:
    m, n, k = (math.ceil(f * math.sqrt(fast)) for f in (x, y, z))
    assert matmul.gemm_achievable(m, n, k, fast) <= 1.25 * matmul.gemm_lower_bound(m, n, k, fast)


@given(st.integers(3, 2**40))
def test_the_block_is_the_largest_that_fits(fast: int) -> None:
    b = int(matmul.gemm_block(fast))
    assert b * b + 2 * b <= fast < (b + 1) ** 2 + 2 * (b + 1)


@settings(deadline=None)
@given(st.integers(1, 30), SIDE, SIDE)
def test_narrow_products_reach_the_compulsory_traffic(m: int, n: int, k: int) -> None:
    fast = 2**20
    assert matmul.gemm_achievable(m, n, k, fast) <= 1.05 * matmul.gemm_compulsory(m, n, k)


def test_bounds_in_the_order_of_their_years() -> None:
    n, fast = 8192, 16384
    weak = matmul.gemm_irony_toledo_tiskin(n, n, n, fast)
    assert weak < matmul.gemm_order(n, n, n, fast) < matmul.gemm_smith(n, n, n, fast)
    assert matmul.gemm_smith(n, n, n, fast) < matmul.gemm_kwasniewski(n, n, n, fast)
    assert matmul.gemm_kwasniewski(n, n, n, fast) <= matmul.gemm_blocked(n, n, n, fast)


def test_batch_at_which_arithmetic_binds() -> None:
    for peak, bandwidth, batch in ((312e12, 2.039e12, 153), (989.4e12, 3.35e12, 295), (989.4e12, 4.8e12, 206)):
        assert round(matmul.balance_batch(peak, bandwidth)) == batch


# --- attention --------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 8192), st.integers(1, 256), FAST)
def test_no_attention_beats_its_bound(n: int, d: int, fast: int) -> None:
    lower = att.attention_lower_bound(n, d, fast)
    assert att.attention_achievable(n, n, d, fast) >= lower >= att.attention_compulsory(n, n, d)
    order = att.attention_order(n, d, fast)
    bound = att.attention_scores_bound(n * n, d, fast) + fast
    assert order / 2.0 * (1 - 1e-12) <= bound <= order


@pytest.mark.parametrize("d", [16, 64, 128, 256])
def test_regimes_meet_at_d_squared(d: int) -> None:
    n = 2**16
    for fast, exact in ((d * d, 1.0), (4 * d * d, 0.25), (d * d / 4, 2.0)):
        assert att.attention_order(n, d, fast) == pytest.approx(exact * n * n)
    below, above = (att.attention_order(n, d, d * d * (1 + e)) for e in (-1e-9, 1e-9))
    assert below == pytest.approx(above, rel=1e-8)
    assert att.attention_order(n, d, d * d / 2) < n * n * d * d / (d * d / 2)
    # the tiled algorithm wins above, the blocked products below
    large, small = 16 * d * d, d * d / 16
    assert att.attention_achievable(n, n, d, large) < att.attention_blocked_products(n, n, d, large)
    if small > 4 * d + 3:
        assert att.attention_achievable(n, n, d, small) == att.attention_blocked_products(n, n, d, small)


def test_tiles_come_within_a_constant_of_the_bound() -> None:
    n, d = 2**17, 64
    for fast in (2**14, 2**16, 2**18):
        ratio = att.attention_achievable(n, n, d, fast) / att.attention_lower_bound(n, d, fast)
        assert 4.0 < ratio < 8.5


@pytest.mark.parametrize(("q_heads", "kv_heads"), [(32, 32), (64, 8), (48, 1)])
def test_decode_intensity_does_not_depend_on_the_batch(q_heads: int, kv_heads: int) -> None:
    context, d, e = 10**6, 128, 2.0
    wanted = decode.decode_intensity(q_heads, kv_heads, e)
    assert wanted == q_heads / kv_heads
    for batch in (1, 7, 512):
        flops = batch * 4.0 * q_heads * context * d
        moved = batch * e * decode.decode_attention(context, q_heads, kv_heads, d)
        assert flops / moved == pytest.approx(wanted, rel=1e-3)
    assert decode.decode_intensity(q_heads, kv_heads, e, queries=4) == 4 * wanted


def test_splitting_a_long_cache_is_nearly_free() -> None:
    plain = decode.decode_attention(100_000, 64, 8, 128)
    assert decode.decode_split(100_000, 64, 8, 128, 16) / plain < 1.01
    assert decode.offloaded_cache_bytes(9000, 8192, 8, 2.0) / decode.offloaded_activation_bytes(8192, 8, 2.0) == 1000
    assert decode.offloaded_cache_bytes(9000, 8192, 1, 2.0) / decode.in_storage_bytes(8192, 2.0) == 4500


# --- passes, transforms, scans ----------------------------------------------------------------------------------------


def test_the_table_of_passes() -> None:
    rows = {c.passes: c for c in passes.CASCADES}
    assert [rows[p].whole_row for p in (3, 2, 1)] == [True, True, False]
    assert "FlashAttention-2" in rows[1].algorithms
    assert "PyTorch" in rows[3].algorithms
    assert [passes.spill_traffic(7, 100, p, 99) / 700 for p in (3, 2, 1)] == [3, 2, 0]  # 1 W + 2 R, 1 W + 1 R, none
    assert [passes.live_footprint(p, 100, 8) for p in (3, 2, 1)] == [100, 100, 8]
    assert passes.attention_divisions(5, 4096, 64, deferred=False) / passes.attention_divisions(5, 4096, 64) == 64


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_no_softmax_beats_its_bound(n: int, fast: int) -> None:
    lower = passes.softmax_lower_bound(n, fast)
    assert (
        2 * n <= lower <= passes.softmax_achievable(n, fast) <= passes.softmax_recompute(n) < passes.softmax_reload(n)
    )


@given(st.integers(1, 40), st.integers(1, 20))
def test_passes_of_powers_of_two_are_exact(bits: int, fast_bits: int) -> None:
    assert transforms.fft_passes(2.0**bits, 2.0**fast_bits) == math.ceil(bits / fast_bits)
    order = transforms.fft_order(2.0**bits, 2.0**fast_bits)
    assert transforms.fft_traffic(2.0**bits, 2.0**fast_bits) >= 2.0 * order * (1 - 1e-12)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 36))
def test_monarch_needs_at_most_one_pass_per_stage(order: int, root: int, fast_bits: int) -> None:
    n = 2.0 ** (order * root)
    count = transforms.monarch_passes(n, order, 2.0**fast_bits)
    assert 1 <= count <= order
    if fast_bits >= order * root:
        assert count == 1


def test_scans_by_how_much_is_fused() -> None:
    sizes = (2048, 8192, 16)
    fused = transforms.scan_fused(*sizes, 2**24)
    assert fused == transforms.scan_compulsory(*sizes)
    assert 25 < transforms.scan_unfused(*sizes) / fused < 40
    assert transforms.scan_fused(*sizes, 2**13) > fused
    assert transforms.scan_decode(8192, 16) == 2 * 8192 * 16 + transforms.scan_compulsory(1, 8192, 16)


# --- the operators that the planner times -----------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(SIDE, SIDE, SIDE, st.integers(64, 2**20))
def test_product_operators_carry_the_leading_terms(m: int, n: int, k: int, fast: int) -> None:
    work = operator_gemm.gemm(float(m), float(n), float(k))
    assert work.io_lower_bound(2.0 * fast) == pytest.approx(2.0 * matmul.gemm_lower_bound(m, n, k, fast))
    assert work.traffic(2.0 * fast) <= 2.0 * matmul.gemm_blocked(m, n, k, fast) * (1 + 1e-12)


@settings(max_examples=200, deadline=None)
@given(st.integers(8, 4096), st.integers(8, 256), st.integers(64, 2**20))
def test_attention_operators_carry_the_leading_terms(n: int, d: int, fast: int) -> None:
    work = operator_attention.attention(1.0, 1.0, 1.0, d, d, n, n, causal=False)
    assert work.io_lower_bound(2.0 * fast) == pytest.approx(2.0 * att.attention_lower_bound(n, d, fast))
    if fast >= d * d:
        tile = fast / (4.0 * d)
        exact = 2.0 * (2.0 * n * d + n + math.ceil(n / tile) * 2.0 * n * d)
        assert work.traffic(2.0 * fast) <= exact
        if n >= 8.0 * tile:
            assert exact <= 1.5 * work.traffic(2.0 * fast)


def test_weights_narrower_than_activations_let_the_block_be_longer() -> None:
    wide = operator_gemm.gemm(8192.0, 8192.0, 8192.0)
    narrow = operator_gemm.gemm(8192.0, 8192.0, 8192.0, weight_bytes=0.5)
    assert narrow.traffic(2.0**16) == pytest.approx(wide.traffic(2.0**16) / 2.0)
    # a loop with a block of C twice as long along the narrow operand moves that much
    size, fast = 8192, 2.0**16
    p = math.sqrt(fast / 2.0) / 2.0  # rows and columns of C with rows * 4 = columns, 2 bytes each
    rows, columns = p, 4.0 * p
    assert rows * columns * 2.0 == pytest.approx(fast)
    moved = size**3 * (2.0 / columns + 0.5 / rows)
    assert moved == pytest.approx(narrow.reuse / fast**0.5)


def test_backward_attention_has_the_order_of_forward() -> None:
    n, d, fast = 2.0**17, 64.0, 2.0**16
    work = operator_attention.attention(1.0, 1.0, 1.0, d, d, n, n, causal=False)
    (back,) = backward_of(Call("attention", work, 1.0))
    exact = att.flash2_backward(n, d, fast / (8.0 * d)) / att.flash2(n, n, d, fast / (4.0 * d))
    assert back.work.traffic(2.0 * fast) / work.traffic(2.0 * fast) == pytest.approx(exact, rel=0.05)
    assert back.work.bound == work.bound
