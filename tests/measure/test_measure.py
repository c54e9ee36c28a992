"""What is timed and how: shapes, clocks, tables, and the description of a processor."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import PerfmodelError, SpecError
from perfmodel.measure.describe import MARK, processor_text
from perfmodel.measure.jobs import OPERATORS, Job, jobs
from perfmodel.measure.numpy_backend import NumpyBackend, filled
from perfmodel.measure.processor import Cache, Processor, _linux, detect
from perfmodel.measure.run import measure
from perfmodel.measure.table import COLUMNS, Table
from perfmodel.measure.timer import Call, Sample, host_stopwatch, timed
from perfmodel.specs.system import load_device

ABOUT = {"device": "cpu-1-thread", "framework": "numpy", "version": "2", "blas": "some", "threads": 1}


@pytest.fixture(scope="module")
def backend() -> NumpyBackend:
    return NumpyBackend(threads=1, cache=2.0**20, memory=2.0**30)


@pytest.mark.parametrize("large", [False, True])
def test_every_shape_is_listed_once_and_the_coarse_grid_comes_first(large: bool) -> None:
    found = jobs(OPERATORS, ["fp32"], large=large)
    assert len({(j.operator, *j.sizes.values()) for j in found}) == len(found)
    assert {j.operator for j in found[:8]} == set(OPERATORS)
    for operator in OPERATORS:
        own = [j for j in found if j.operator == operator]
        first, every = own[: len(own) // 4], own
        spread = math.log(max(j.flops for j in first) / min(j.flops for j in first))
        assert spread > 0.5 * math.log(max(j.flops for j in every) / min(j.flops for j in every))


def test_quick_is_a_prefix_of_every_operator() -> None:
    full, quick = jobs(OPERATORS, ["fp32"]), jobs(OPERATORS, ["fp32"], quick=True)
    assert len(quick) < 0.4 * len(full)
    for operator in OPERATORS:
        few = [j for j in quick if j.operator == operator]
        assert few == [j for j in full if j.operator == operator][: len(few)]
        assert len(few) >= 8


def test_a_call_is_timed_by_its_median() -> None:
    lengths = iter([1.0, 1.0] + [0.01, 0.03, 0.02, 0.05, 0.04] * 100)

    def stopwatch(call: Call, count: int) -> Any:
        del call
        return lambda: Sample(next(lengths) * count)

    found = timed(lambda i: None, stopwatch, 1e-9)
    assert found.low <= found.median <= found.high
    assert found.samples == 3, "one call takes longer than the whole budget"


def test_disturbed_samples_do_not_count() -> None:
    at = 0

    def stopwatch(call: Call, count: int) -> Any:
        del call

        def run() -> Sample:
            nonlocal at
            at += 1
            time.sleep(1e-4)
            return Sample((9.0 if at % 2 else 1e-3) * count, bool(at % 2))

        return run

    found = timed(lambda i: None, stopwatch, 0.05)
    assert found.median == found.high == 1e-3
    assert found.disturbed > 0


def test_the_clock_of_the_host_counts_calls() -> None:
    seen: list[int] = []
    run = host_stopwatch(1)(seen.append, 3)
    assert run().seconds >= 0.0
    run()
    assert seen == [0, 1, 2, 3, 4, 5], "operands rotate from sample to sample"


def job(operator: str, **wanted: int | str) -> Job:
    return next(j for j in jobs([operator], ["fp32"]) if all(j.sizes[n] == v for n, v in wanted.items()))


@pytest.mark.parametrize(
    ("operator", "sizes"),
    [
        ("attention", {"q_len": 256, "kv_len": 2048, "q_heads": 16}),
        ("attention", {"q_len": 512, "kv_len": 512, "q_heads": 8, "kv_heads": 2}),
        ("decode_attention", {"kv_len": 256, "batch": 4, "q_heads": 16}),
    ],
)
def test_what_is_timed_is_attention(backend: NumpyBackend, operator: str, sizes: dict[str, int]) -> None:
    wanted = job(operator, **sizes)
    names = ("batch", "q_heads", "kv_heads", "head_dim", "q_len", "kv_len")
    batch, heads, kv, d, q_len, kv_len = (wanted.size(n) for n in names)
    result = np.asarray(backend.prepare(wanted).call(0)).reshape(batch, kv, heads // kv, q_len, d)
    q = filled(batch * heads * q_len * d).reshape(result.shape).astype(float)
    both = backend.arena[: 2 * batch * kv * kv_len * d].astype(float)
    keys, values = both.reshape(2, batch, kv, 1, kv_len, d)
    hidden = np.arange(kv_len)[None, :] > np.arange(q_len)[:, None] + kv_len - q_len
    weights = np.exp(np.where(hidden, -np.inf, q @ keys.swapaxes(-1, -2) / math.sqrt(d)))
    np.testing.assert_allclose(result, weights / weights.sum(-1, keepdims=True) @ values, rtol=1e-4)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_runs(backend: NumpyBackend, operator: str) -> None:
    small = min(jobs([operator], ["fp32"]), key=lambda j: j.moved)
    prepared = backend.prepare(small)
    for i in range(3):
        prepared.call(i)
    assert prepared.kernel


def test_operands_rotate_until_caches_are_cold(backend: NumpyBackend) -> None:
    assert not backend.prepare(job("gemm", m=1, n=1024, k=1024)).resident
    roomy = NumpyBackend(threads=1, cache=2.0**40, memory=2.0**30)
    assert roomy.prepare(job("gemm", m=1, n=1024, k=1024)).resident


# --- the table ----------------------------------------------------------------------------------------------------


def measured(path: Path, backend: NumpyBackend, count: int, **about: object) -> Table:
    table = Table(path, {**ABOUT, **about})
    try:
        few = sorted(jobs(["gemm", "elementwise"], ["fp32"]), key=lambda j: j.moved)[:count]
        measure(few, backend, table, limit=20.0, source="perfmodel measure: test", date="2026-11-23")
    finally:
        table.close()
    return table


def test_a_table_is_continued_where_it_ended(tmp_path: Path, backend: NumpyBackend) -> None:
    path = tmp_path / "mine.csv"
    measured(path, backend, 4)
    before = path.read_text()
    assert len(measured(path, backend, 4).rows) == 4
    assert path.read_text() == before, "nothing is timed twice"
    assert len(measured(path, backend, 6).rows) == 6
    assert path.read_text().startswith(before), "rows are added, never changed"
    for row in csv.DictReader(path.read_text().splitlines()):
        assert float(row["low_us"]) <= float(row["time_us"]) <= float(row["high_us"])
        assert float(row["time_us"]) > 0.0
        assert int(row["n_samples"]) >= 3


def test_a_line_cut_off_in_the_middle_is_taken_out(tmp_path: Path, backend: NumpyBackend) -> None:
    path = tmp_path / "mine.csv"
    whole = measured(path, backend, 2).rows
    text = path.read_text()
    path.write_text(text[:-20])
    table = Table(path, ABOUT)
    table.close()
    assert (table.dropped, table.rows) == (1, whole[:1])
    assert path.read_text() == text[: text.rstrip("\n").rfind("\n") + 1]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"device": "another"}, "device"),
        ({"version": "3"}, "version"),
        ({"blas": "other"}, "blas"),
        ({"threads": 2}, "threads"),
    ],
)
def test_rows_of_something_else_are_refused(
    tmp_path: Path, backend: NumpyBackend, changed: dict[str, object], said: str
) -> None:
    path = tmp_path / "mine.csv"
    measured(path, backend, 1)
    before = path.read_bytes()
    with pytest.raises(SpecError, match=rf"mine\.csv:2: {said}"):
        Table(path, {**ABOUT, **changed})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "unknown a, b"),
        ("no newline", "unknown no newline"),
        (",".join(COLUMNS) + "\ngemm,cpu\n", r":2: 2 cells"),
        (b"\xff\xfe\x00", "no text"),
    ],
)
def test_other_files_are_refused_and_left_alone(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = path.read_bytes()
    with pytest.raises(PerfmodelError, match=said):
        Table(path, ABOUT)
    assert path.read_bytes() == before


def test_an_interrupt_keeps_every_finished_row(tmp_path: Path, backend: NumpyBackend) -> None:
    path, seen = tmp_path / "mine.csv", 0

    def stop(done: int, total: int, what: str) -> None:
        nonlocal seen
        seen = done
        if done == 3:
            raise KeyboardInterrupt

    few = sorted(jobs(["elementwise"], ["fp32"]), key=lambda j: j.moved)[:6]
    table = Table(path, ABOUT)
    outcome = measure(few, backend, table, limit=20.0, source="s", date="d", progress=stop)
    table.close()
    assert (outcome.interrupted, outcome.added, outcome.left, seen) == (True, 3, 3, 3)
    assert len(Table(path, ABOUT).rows) == 3


def test_what_a_library_cannot_do_is_noted(tmp_path: Path, backend: NumpyBackend) -> None:
    class Broken(NumpyBackend):
        def prepare(self, job: Job) -> Any:
            if job.operator == "elementwise":
                raise RuntimeError("no such kernel")
            return super().prepare(job)

    broken = Broken(1, 2.0**20, 2.0**30)
    few = [min(jobs([o], ["fp32"]), key=lambda j: j.moved) for o in ("gemm", "elementwise")]
    table = Table(tmp_path / "mine.csv", ABOUT)
    outcome = measure(few, broken, table, limit=20.0, source="s", date="d")
    table.close()
    assert outcome.added == 1
    assert list(outcome.failed.values()) == ["no such kernel"]


# --- the processor ------------------------------------------------------------------------------------------------


def test_this_processor_is_described() -> None:
    found = detect()
    assert found.cores >= 1
    assert found.free <= found.memory
    assert found.last_cache > 0.0


def test_linux_is_read_from_its_files(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name\t: Some CPU 9\ncpu MHz\t\t: 2400.0\nflags\t\t: sse2 avx2 fma\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:  16000000 kB\nMemAvailable:  9000000 kB\n")
    import os

    for cpu in sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]:
        for index, level, size, shared in ((2, 2, "512K", str(cpu)), (3, 3, "16M", "0-63")):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("size", size), ("shared_cpu_list", shared), ("type", "Unified")):
                (folder / name).write_text(f"{text}\n")
    found = _linux(tmp_path)
    assert (found.name, found.clock, found.memory) == ("Some CPU 9", 2.4e9, 16000000 * 1024)
    assert found.caches[-1] == Cache(3, 16 * 2**20, 1)
    assert found.caches[0].size == 512 * 2**10


def rows_of(rate: float, bandwidth: float) -> list[dict[str, str]]:
    common = {"dtype": "fp32", "weight_fits_l2": "0"}
    return [
        {**common, "operator": "gemm", "m": "1000", "n": "1000", "k": "1000", "time_us": str(2e15 / rate)},
        {**common, "operator": "gemm", "m": "1", "n": "4000", "k": "4000", "time_us": str(64e12 / bandwidth)},
    ]


@pytest.mark.parametrize("threads", [1, 8])
def test_the_description_is_a_device_file(tmp_path: Path, threads: int) -> None:
    caches = (Cache(2, 2**20, 8), Cache(3, 32 * 2**20, 1))
    flags = frozenset({"avx2", "avx512f", "avx512_bf16"})
    processor = Processor("Some CPU", 8, caches, 64 * 2.0**30, 60 * 2.0**30, 3e9, flags, "a test")
    path = tmp_path / "base.yaml"
    text = processor_text(processor, "some-cpu", threads, rows_of(0.9e12, 50e9), "2026-11-23")
    path.write_text(text)
    device = load_device(path)
    assert text.startswith(MARK)
    assert device.units.value == threads
    assert device.memory["dram"].bandwidth is not None
    assert device.memory["dram"].bandwidth.value == pytest.approx(50e9, rel=1e-3)
    peak = device.peak.vector["fp32"]
    assert peak.value == pytest.approx(max(0.9e12, threads * 32 * 3e9), rel=1e-3), "never below what was measured"
    assert peak.kind == "measured"
    assert device.peak.vector["bf16"].value == pytest.approx(2.0 * peak.value, rel=1e-3)
