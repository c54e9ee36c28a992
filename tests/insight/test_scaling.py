"""A scaling study: each size's best plan is that of a search for it alone, and a user gets it as a table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import perfmodel
from perfmodel.cli.main import run
from perfmodel.insight.scaling import device_counts
from perfmodel.studies import scale


def test_each_size_is_a_plan_of_its_own() -> None:
    study = scale("llama-2-13b", "dgx-h100", devices=(16, 48, 128, 1024))
    assert [s.devices for s in study.found.sizes] == [16, 48, 128, 1024]
    for size in study.found.sizes:
        best = perfmodel.plan("llama-2-13b", "dgx-h100", "pretrain", devices=size.devices).answers[0].best
        assert best is not None
        assert size.plan.seconds == pytest.approx(best.seconds, rel=1e-12)
    work = [s.devices * s.plan.seconds * s.efficiency for s in study.found.sizes]
    assert work == pytest.approx([min(s.devices * s.plan.seconds for s in study.found.sizes)] * 4)


def test_sizes_of_a_range() -> None:
    assert device_counts(8, 64, 640, "doubling") == (64, 128, 256, 512, 640)
    assert device_counts(8, 64, 128, "quarters") == (64, 80, 96, 112, 128)
    assert device_counts(8, 60, 100, "nodes") == (64, 72, 80, 88, 96)


def test_a_user_gets_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["scale", "-m", "llama-2-7b", "--hw", "dgx-h100"]
    assert run([*ask, "-n", "8-32", "--json", "--csv", str(tmp_path / "sizes.csv")]) == 0
    sizes = json.loads(capsys.readouterr().out)["sizes"]
    with (tmp_path / "sizes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [s["devices"] for s in sizes] == [int(r["devices"]) for r in rows] == [8, 16, 32]
    assert [s["step_seconds"] for s in sizes] == sorted((s["step_seconds"] for s in sizes), reverse=True)
    assert float(rows[0]["expected_days"]) > float(rows[-1]["expected_days"]) > 0.0
    assert run([*ask, "-n", "8,16"]) == 0
    assert "efficiency" in capsys.readouterr().out
    for wrong in (["-n", "many"], ["-n", "64-8"], ["-n", "2048,4096,8192"], ["--step", "halves"], ["-w", "chat"]):
        assert run([*ask, *wrong]) == 2
        assert capsys.readouterr().err.startswith("error: ")
