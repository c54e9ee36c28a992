"""Kernel times against bounds, in the directions in which they must grow, as arrays and as numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.calibration.subjects import engine_of
from perfmodel.machine.engine import Constants
from perfmodel.machine.kernels import kernel_lower_bound, kernel_time, waves
from perfmodel.operators.gemm import gemm
from perfmodel.operators.streaming import norm

SIZE = st.integers(1, 40000).map(float)
DEVICES = ("h100-sxm", "a100-80gb-sxm", "b200", "l40s", "mi300x", "epyc-9654", "alveo-u280")


@settings(max_examples=60, deadline=None)
@given(m=SIZE, n=SIZE, k=SIZE, device=st.sampled_from(DEVICES))
def test_no_product_is_faster_than_its_bound(m: float, n: float, k: float, device: str) -> None:
    engine, work = engine_of(device), gemm(m, n, k)
    assert kernel_time(work, engine).seconds >= kernel_lower_bound(work, engine) * (1.0 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(m=SIZE, n=SIZE, k=SIZE, device=st.sampled_from(DEVICES))
def test_arrays_agree_with_numbers(m: float, n: float, k: float, device: str) -> None:
    engine = engine_of(device)
    many = kernel_time(gemm(np.array([m, 7.0]), np.array([n, 9.0]), np.array([k, 64.0])), engine).seconds
    assert many[0] == pytest.approx(kernel_time(gemm(m, n, k), engine).seconds, rel=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_whole_tiles_more_of_them_take_longer(device: str) -> None:
    engine, rows = engine_of(device), 256.0 * np.arange(1.0, 65.0)
    for n, k in ((4096.0, 4096.0), (512.0, 16384.0)):
        seconds = kernel_time(gemm(rows, n, k), engine).seconds
        assert np.all(np.diff(seconds) >= -1e-9 * seconds[:-1])
        deeper = kernel_time(gemm(256.0, n, 64.0 * np.arange(1.0, 200.0)), engine).seconds
        assert np.all(np.diff(deeper) >= -1e-9 * deeper[:-1])


def test_waves_are_at_least_one_and_whole_when_asked() -> None:
    tiles = np.arange(1.0, 500.0)
    assert np.all(waves(tiles, 100.0, 1.0) == np.ceil(tiles / 100.0))
    assert np.all(waves(tiles, 100.0, 0.0) == np.maximum(tiles / 100.0, 1.0))


def _with(**changes: float) -> float:
    engine = engine_of("h100-sxm")
    constants = Constants(
        **{"compute_fraction": 0.8, "memory_fraction": 0.8, "launch": 2e-6, "k_step": 1e-7, **changes}
    )
    return float(
        kernel_time(gemm(16.0, 4096.0, 4096.0, format="fp8"), engine.calibrated("gemm", "fp8", constants)).seconds
    )


def test_every_constant_of_a_product_does_what_it_says() -> None:
    base = _with()
    assert _with(launch=3e-6) == pytest.approx(base + 1e-6)
    assert _with(quantise_launch=1e-6, quantise_fraction=0.5) > base + 1e-6
    assert _with(compute_fraction=0.4) >= base
    assert _with(memory_fraction=0.4) > base
    assert _with(prologue=1e-6) > base
    assert _with(split_launch=1e-3) >= base
    assert _with(corner=6.0) < base
    assert _with(cache_speed=3.0) < base, "weights of 16 MiB stay in a cache of 50 MiB between calls"


def test_the_corner_never_leaves_the_sum_nor_goes_below_the_larger() -> None:
    for corner in (1.0, 1.5, 3.0, 6.0, 50.0):
        work, engine = gemm(512.0, 4096.0, 4096.0), engine_of("h100-sxm")
        c = Constants(compute_fraction=0.8, memory_fraction=0.8, corner=corner)
        assert kernel_time(work, engine.calibrated("gemm", "bf16", c)).seconds >= kernel_lower_bound(work, engine)


def test_a_row_takes_its_time_however_few_there_are() -> None:
    engine = engine_of("a100-80gb-sxm")
    slow = engine.calibrated("elementwise", "fp32", Constants(row_step=1e-6))
    one = norm(1.0, 8192.0)
    wide = one._replace(shape=one.shape._replace(m=1.0, n=8192.0))
    alone = kernel_time(wide, slow).seconds
    assert alone == pytest.approx(8e-6, rel=1e-3)
    assert kernel_time(one, engine).seconds < 8e-6
    full = wide._replace(shape=wide.shape._replace(m=engine.units))
    assert kernel_time(full, slow).seconds == pytest.approx(alone), "every unit has a row"
    twice = wide._replace(shape=wide.shape._replace(m=2.0 * engine.units))
    assert kernel_time(twice, slow).seconds == pytest.approx(2.0 * alone, rel=1e-3)
