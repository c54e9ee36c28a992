"""Rows in host memory: headers and sectors, published rates of reads by a device, and the plan that uses them."""

from __future__ import annotations

import numpy as np
import pytest
from planning import neutral, setting

import perfmodel
from perfmodel.machine.build import build_machine
from perfmodel.operators.gather import copied_bytes, row_unit, rows_read
from perfmodel.specs.overrides import override
from perfmodel.specs.system import load_system
from perfmodel.techniques.feature_gather import gathered_by_device, gathered_by_host

GEN3 = 15.75e9


def test_published_rates_of_a_device_that_reads_host_memory() -> None:
    """EMOGI (arXiv:2006.06890), V100 on PCI Express 3.0: 12.2 GB/s in aligned requests, 9.6 GB/s in misaligned ones."""
    length = 2.0**20
    aligned = GEN3 * length / float(rows_read(1.0, length))
    plain = GEN3 * length / float(rows_read(1.0, length, 4, aligned=False))
    assert aligned == pytest.approx(12.2e9, rel=0.05)
    assert plain == pytest.approx(9.6e9, rel=0.05)


def test_more_is_never_less_and_nothing_undercuts_the_rows() -> None:
    rng = np.random.default_rng(0)
    for width in rng.integers(4, 4096, 200):
        row, unit = 4.0 * float(width), row_unit(4 * int(width))
        shifted, plain = (float(rows_read(1.0, row, unit, aligned=a)) for a in (True, False))
        assert row < shifted <= plain * (1 + 1e-12)
        assert shifted <= float(rows_read(1.0, row + 32.0, unit))
    assert float(rows_read(1.0, 1024.0)) == pytest.approx(float(copied_bytes(1024.0)))


def test_rows_that_fill_requests_are_aligned_wherever_they_lie() -> None:
    for row in (128.0, 512.0, 1024.0):
        unit = row_unit(int(row))
        assert rows_read(1.0, row, unit, aligned=False) == rows_read(1.0, row, unit)


def test_arrays_agree_with_numbers() -> None:
    rows, widths = np.array([1.0, 7.0, 1e6]), np.array([600.0, 2408.0, 4.0])
    for aligned in (True, False):
        found = rows_read(rows, widths, 8, aligned=aligned)
        single = [float(rows_read(float(n), float(w), 8, aligned=aligned)) for n, w in zip(rows, widths, strict=True)]
        assert found == pytest.approx(single)


def test_the_gain_grows_with_the_devices_that_share_a_host() -> None:
    gains = []
    for devices in (1, 2, 4):
        machine = build_machine(override(load_system("v100-pcie-4x"), {"node.host.bandwidth": f"x{0.5 / devices}"}))
        gains.append(
            float(gathered_by_host(machine, 1e6, 512.0) / gathered_by_device(machine, 1e6, 512.0, aligned=True))
        )
    assert gains == sorted(gains)


def test_a_plan_hides_what_devices_read_behind_the_step() -> None:
    question = {
        "model": "gpt2",
        "hw": "v100-pcie-2x",
        "workload": "pretrain",
        "devices": 2,
        "workload_changes": {
            "sequence": 1024,
            "features.row_bytes": "600 B",
            "features.rows_per_token": 100,
            "features.table_rows": 1e8,
        },
    }
    answer = perfmodel.plan(**question).answers[0]  # type: ignore[arg-type]
    assert answer.best is not None
    assert answer.best.columns["features_ahead"] == 1.0, "either path hides behind a step"
    lines = {line.name: line for stage in answer.best.ledgers for line in stage.lines}
    assert lines["feature table"].bytes == pytest.approx(3e10)
    found = setting("gpt2", "v100-pcie-2x", "pretrain", devices=2, changes=question["workload_changes"])  # type: ignore[arg-type]
    times = {path: float(found.problem.evaluate(neutral(found, feature_path=path)).seconds)
             for path in ("host", "zero-copy-unaligned", "zero-copy")}  # fmt: skip
    assert times["host"] > times["zero-copy-unaligned"] > times["zero-copy"]
