"""Memory whose banks compute: published coefficients out of command timing, and what timing must do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perfmodel.errors import PerfmodelError
from perfmodel.machine.build import build_engine
from perfmodel.machine.dram import Dram, bank_attention
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_lower_bound, kernel_time
from perfmodel.operators.attention import decode_attention
from perfmodel.specs.system import load_device

COEFFICIENTS = {
    "hbm2-2000-pim": (242.05, 14513.5),
    "ddr4-3200-pim": (333.25, 30675.3),
    "lpddr5-6400-pim": (282.43, 15996.7),
    "lpddr4x-4266-pim": (432.45, 33918.2),
}
"""ns per key and ns of a channel: 32 query heads, 8 key heads of width 128 (LLMServingSim, pim_model.py)."""


def engine(name: str) -> Engine:
    return build_engine("pim", load_device(name), {})


def nanoseconds(name: str, keys: float) -> float:
    work = decode_attention(1.0, 32.0, 8.0, 128, 128, keys)
    return 1e9 * float(kernel_time(work, engine(name)).seconds)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_command_timing_gives_the_published_line(name: str) -> None:
    keys = np.arange(128.0, 4097.0, 128.0)
    slope, constant = np.polyfit(keys, [nanoseconds(name, k) for k in keys], 1)
    assert slope == pytest.approx(COEFFICIENTS[name][0], rel=0.035)
    assert constant == pytest.approx(COEFFICIENTS[name][1], rel=0.20)


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("keys", [1024, 2048, 4096])
def test_command_timing_gives_the_published_time(name: str, keys: int) -> None:
    slope, constant = COEFFICIENTS[name]
    assert nanoseconds(name, keys) == pytest.approx(slope * keys + constant, rel=0.08)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_command_timing_gives_short_caches_too(name: str) -> None:
    """What one head costs before any key: rows opened for the output, the query and the output at the pins."""
    slope, constant = COEFFICIENTS[name]
    for keys in (256, 512):
        assert nanoseconds(name, keys) == pytest.approx(slope * keys + constant, rel=0.12)


@pytest.mark.parametrize("name", [*COEFFICIENTS, "neupims-pim", "neupims-pim-single"])
def test_no_attention_beats_open_rows(name: str) -> None:
    for sequences, keys in ((1.0, 100.0), (64.0, 1000.0), (256.0, 228.0)):
        work = decode_attention(sequences, 8.0, 8.0, 128, 128, keys)
        assert kernel_time(work, engine(name)).seconds >= kernel_lower_bound(work, engine(name))


def test_a_second_row_buffer_hides_one_of_opening_and_computing() -> None:
    single = Dram(1.0, 16.0, 1024.0, 64.0, 14e-9, 14e-9, 30e-9, 6e-9)
    double = single._replace(row_buffers=2)
    for keys in (64.0, 512.0, 4096.0):
        one, two = (bank_attention(d, 8.0, keys, 128.0) for d in (single, double))
        assert 0.5 * one <= two < one


def test_more_channels_and_shorter_timings_are_never_slower() -> None:
    dram = Dram(4.0, 16.0, 1024.0, 64.0, 14e-9, 14e-9, 30e-9, 6e-9, command=1e-9)
    assert bank_attention(dram._replace(command=0.0), 30.0, 700.0, 128.0) < bank_attention(dram, 30.0, 700.0, 128.0)
    base = bank_attention(dram, 30.0, 700.0, 128.0)
    for change in ({"channels": 8.0}, {"precharge": 7e-9}, {"four_activates": 16e-9}, {"column": 3e-9}, {"pins": 64e9}):
        assert bank_attention(dram._replace(**change), 30.0, 700.0, 128.0) < base


def test_arrays_and_numbers_agree() -> None:
    dram = Dram(4.0, 16.0, 1024.0, 64.0, 14e-9, 14e-9, 30e-9, 6e-9, 2)
    keys = np.array([100.0, 513.0, 4096.0])
    assert bank_attention(dram, 30.0, keys, 128.0).tolist() == [
        bank_attention(dram, 30.0, k, 128.0) for k in keys.tolist()
    ]
    assert replace(engine("hbm2-2000-pim"), dram=None).dram is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("column:         {value: 6 ns", "column:         {value: 6 us", "banks.column: implausible"),
        ("column:         {value: 6 ns", "column:         {value: 3 ns", "all banks would compute 341.3 GB/s"),
        ("row:            {value: 1 KiB", "row:            {value: 1 MiB", "banks.row: implausible"),
        ("precharge:      {value: 14 ns", "precharge:      {value: 14 ms", "banks.precharge: implausible"),
    ],
    ids=["slow column", "column faster than the memory", "row", "precharge"],
)
def test_impossible_timing_is_one_message(tmp_path: Path, old: str, new: str, said: str) -> None:
    shipped = Path(__file__).parents[2] / "hardware_specs" / "devices" / "hbm2-2000-pim.yaml"
    text = shipped.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "pim.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(PerfmodelError) as caught:
        load_device(path)
    assert said in str(caught.value)
