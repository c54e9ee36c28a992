"""Kernel times of every shipped device: never below the bound, monotone, and at the limits what the limits say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planning import system

from perfmodel.machine.build import build_machine
from perfmodel.machine.engine import Constants, Engine, MemoryLevel, UnsupportedFormat
from perfmodel.machine.kernels import OPERATORS, kernel_lower_bound, kernel_time, waves
from perfmodel.operators import attention, gemm, moe, streaming
from perfmodel.operators.work import Work
from perfmodel.specs.locate import find_hardware

DEVICES = sorted(p.stem for p in Path(find_hardware("h100-sxm")).parent.glob("*.yaml"))
CLUSTERS = ("frontier", "dgx-h100", "npu-pim", "mi300x-8x", "b200-8x")
FORMATS = ("bf16", "fp16", "fp8", "int8", "nvfp4", "fp32")


def random_work(rng: np.random.Generator, format: str) -> Work:
    def size(low: float, high: float) -> float:
        return float(np.floor(2 ** rng.uniform(low, high)))

    kind = OPERATORS[int(rng.integers(len(OPERATORS)))]
    if kind == "gemm":
        weights = float(rng.choice([0.5, 1.0, 2.0]))
        batch = size(0, 5)
        return gemm.gemm(size(0, 15), size(4, 15), size(4, 15), batch=batch, weight_bytes=weights, format=format)
    if kind == "attention":
        queries = size(0, 14)
        return attention.attention(size(0, 4), 16.0, 4.0, 128, 128, queries, queries + size(0, 14), format=format)
    if kind == "decode_attention":
        return attention.decode_attention(size(0, 8), 16.0, 4.0, 128, 128, size(4, 17), format=format)
    if kind == "moe":
        tokens, experts, ranks = size(0, 13), size(2, 8), size(0, 3)
        rows, active = max(1.0, tokens * 2.0 / ranks), max(1.0, min(experts, tokens * 2.0) / ranks)
        loads = moe.expected_loads(rows, active)
        weights = float(rng.choice([0.5, 1.0, 2.0]))
        return moe.moe(
            tokens, size(8, 13), size(8, 13), loads, experts=experts / ranks, top_k=2.0, weight_bytes=weights,
            format=format,
        )  # fmt: skip
    if kind == "latent_attention":
        queries = size(0, 14)
        work = attention.attention(size(0, 4), 16.0, 16.0, 192, 128, queries, queries + size(0, 14), format=format)
        return work._replace(operator=kind)
    if kind == "latent_decode":
        work = attention.decode_attention(size(0, 8), 16.0, 1.0, 576, 512, size(4, 17), latent=True, format=format)
        return work._replace(operator=kind)
    if kind == "scan":
        return streaming.selective_scan(size(0, 4), size(0, 14), 4096.0, 64.0, stream_bytes=3e4)
    return streaming.norm(size(0, 15), size(6, 14))


def engines(name: str) -> list[Engine]:
    return list(build_machine(system(name)).engines.values())


def runs(engine: Engine, work: Work) -> bool:
    try:
        engine.peak(work.format)
    except UnsupportedFormat:
        return False
    return engine.bandwidth > 0.0


@pytest.mark.parametrize("name", [*DEVICES, *CLUSTERS])
def test_no_kernel_beats_the_bound(name: str) -> None:
    rng = np.random.default_rng(5)
    for engine in engines(name):
        for _ in range(60):
            for format in FORMATS:
                work = random_work(rng, format)
                if not runs(engine, work):
                    continue
                kernel = kernel_time(work, engine)
                bound = kernel_lower_bound(work, engine)
                assert kernel.seconds >= bound * (1 - 1e-9), (engine.device, work)
                assert kernel.seconds >= max(kernel.compute, kernel.memory) * (1 - 1e-9)


def test_constants_are_shares_of_what_the_hardware_has() -> None:
    for name in DEVICES:
        for engine in engines(name):
            for constants in engine.constants.values():
                assert 0.0 < constants.compute_fraction <= 1.1  # of a fit: exponentials and tiles cost extra
                assert 0.0 < constants.memory_fraction <= 1.0
                assert 0.0 <= constants.wave_quantisation <= 1.0
                assert constants.launch >= 0.0


ENGINE = build_machine(system("h100-sxm")).main


def bigger(work: Work, which: int, factor: float) -> Work:
    """The same product with one side longer."""
    m, n, k, batch = work.shape
    sides = [m, n, k]
    sides[which] *= factor
    return gemm.gemm(*sides, batch=batch, format=work.format)


@pytest.mark.parametrize("side", [0, 1, 2])
def test_larger_products_are_not_faster(side: int) -> None:
    """A longer side can land on a better tile and win a little; never more than a few per cent."""
    rng = np.random.default_rng(6)
    worst = 1.0
    for _ in range(300):
        m, n, k = (float(np.floor(2 ** rng.uniform(0, 14))) for _ in range(3))
        work = gemm.gemm(m, n, k)
        longer = bigger(work, side, float(rng.choice([1.5, 2.0, 4.0])))
        worst = min(worst, kernel_time(longer, ENGINE).seconds / kernel_time(work, ENGINE).seconds)
        assert kernel_lower_bound(longer, ENGINE) >= kernel_lower_bound(work, ENGINE)
    assert worst > 0.999


def test_longer_sequences_are_not_faster() -> None:
    """Prefill counts the average tile, so one row beyond a full tile spreads few heads better: a dip of at most 7 %."""
    contexts = np.floor(2.0 ** np.linspace(5, 17, 120))
    for batch in (1.0, 16.0):
        times = kernel_time(attention.decode_attention(batch, 32.0, 8.0, 128, 128, contexts), ENGINE).seconds
        assert np.all(times[1:] >= times[:-1] * 0.999)
        prefill = kernel_time(attention.attention(batch, 32.0, 8.0, 128, 128, contexts, contexts), ENGINE).seconds
        assert np.all(np.maximum.accumulate(prefill) <= prefill * 1.07)


def faster(engine: Engine, what: str, factor: float) -> Engine:
    if what == "peak":
        matrix = {f: r * factor for f, r in engine.matrix.items()}
        return replace(engine, matrix=matrix, vector={f: r * factor for f, r in engine.vector.items()})
    last = engine.memories[-1]
    if what == "bandwidth":
        return replace(engine, memories=(*engine.memories[:-1], last._replace(bandwidth=last.bandwidth * factor)))
    cache = engine.memories[-2]
    return replace(engine, memories=(*engine.memories[:-2], cache._replace(capacity=cache.capacity * factor), last))


@pytest.mark.parametrize("what", ["peak", "bandwidth", "cache"])
def test_a_better_engine_is_never_slower(what: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(400):
        work = random_work(rng, "bf16")
        better = faster(ENGINE, what, 2.0)
        assert kernel_time(work, better).seconds <= kernel_time(work, ENGINE).seconds * (1 + 1e-12)
        assert kernel_lower_bound(work, better) <= kernel_lower_bound(work, ENGINE) * (1 + 1e-12)


IDEAL = Engine(
    name="main",
    device="ideal",
    units=1.0,
    matrix={"bf16": 100e12},
    vector={"fp32": 10e12},
    memories=(MemoryLevel("cache", 1e9, None), MemoryLevel("hbm", 1e12, 1e12)),
    constants={(o, "any"): Constants() for o in OPERATORS},
)


def test_the_ridge() -> None:
    """With ideal constants the time is the roofline, but for the rounded corner: 2^(1/3) at the ridge point."""
    n = k = 65536.0
    for m, binding in ((1.0, "memory"), (16384.0, "compute")):
        work = gemm.gemm(m, n, k)
        kernel = kernel_time(work, IDEAL)
        assert kernel.seconds == pytest.approx(getattr(kernel, binding), rel=0.01)
        assert kernel.seconds == pytest.approx(kernel_lower_bound(work, IDEAL), rel=0.01)
    ridge = 100.0  # FLOP/B; the intensity of m rows is close to m FLOP/B in 16 bits
    corner = kernel_time(gemm.gemm(ridge, n, k), IDEAL)
    rounding = corner.seconds / max(corner.compute, corner.memory)
    assert 1.15 < rounding <= 2.0 ** (1.0 / 3.0) + 0.3


@pytest.mark.parametrize("name", ["h100-sxm", "a100-80gb-sxm", "mi250x-gcd", "mi300x"])
def test_decode_products_stream_their_weights(name: str) -> None:
    """One token: the bytes of the matrix over the sustained bandwidth, the launch, and what does not overlap."""
    (engine, *_) = engines(name)
    constants = engine.constant("gemm", "bf16")
    n = k = 16384.0
    kernel = kernel_time(gemm.gemv(n, k), engine)
    streamed = 2.0 * n * k / (engine.bandwidth * constants.memory_fraction)
    assert kernel.memory == pytest.approx(streamed, rel=1e-3)
    assert streamed + constants.launch < kernel.seconds < 1.25 * streamed + constants.launch


def test_time_grows_with_weight_bytes_in_decode() -> None:
    times = [kernel_time(gemm.gemv(16384.0, 16384.0, weight_bytes=b), ENGINE).seconds for b in (0.5, 1.0, 2.0)]
    assert times[0] < times[1] < times[2]
    assert times[0] > 0.25 * times[2]


def test_waves_between_fluid_and_whole() -> None:
    assert waves(132.0, 132.0, 1.0) == 1.0
    assert waves(133.0, 132.0, 1.0) == 2.0
    assert waves(133.0, 132.0, 0.0) == pytest.approx(133 / 132)
    assert waves(1.0, 132.0, 0.0) == 1.0
    tiles = np.arange(1.0, 1000.0)
    for quantisation in (0.0, 0.4, 1.0):
        found = waves(tiles, 132.0, quantisation)
        assert np.all(np.diff(found) >= 0)
        assert np.all(found >= tiles / 132.0)


def test_long_arrays_are_timed_like_short_ones() -> None:
    """Long arrays are cut into blocks; sizes that are plain numbers stay so, and so does what depends on them only."""
    engine = engines("h100-sxm")[0]
    m = np.arange(1.0, 10001.0)
    whole = kernel_time(gemm.gemm(m, 4096.0, 4096.0), engine)
    ends = [kernel_time(gemm.gemm(m[part], 4096.0, 4096.0), engine) for part in (slice(4000), slice(4000, None))]
    for name in whole._fields:
        joined = np.concatenate(
            [np.broadcast_to(getattr(e, name), (n,)) for e, n in zip(ends, (4000, 6000), strict=True)]
        )
        assert np.array_equal(getattr(whole, name), joined)
    loads = moe.expected_loads(8.0 * m, np.minimum(64.0, 8.0 * m))
    together = kernel_time(moe.moe(m, 4096.0, 1536.0, loads, experts=64.0, top_k=8.0), engine).seconds
    single = moe.moe(9000.0, 4096.0, 1536.0, moe.expected_loads(72000.0, 64.0), experts=64.0, top_k=8.0)
    assert together[8999] == pytest.approx(kernel_time(single, engine).seconds)
