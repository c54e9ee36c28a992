"""``perfmodel measure`` as a user meets it: measure, calibrate, validate and plan on this very machine."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perfmodel", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT},
        timeout=120,
    )


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``measure`` and ``calibrate`` ran."""
    path = tmp_path_factory.mktemp("measured")
    done = run("measure", "-o", "mine.csv", "--quick", "--time-limit", "8", "--threads", "1", cwd=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "next: perfmodel calibrate mine.csv --hw mine.base.yaml -o mine.yaml" in done.stdout
    done = run("calibrate", "mine.csv", "--hw", "mine.base.yaml", "-o", "mine.yaml", cwd=path)
    assert (done.returncode, done.stderr) == (0, "")
    return path


def test_the_table_holds_what_was_timed(folder: Path) -> None:
    found = rows(folder / "mine.csv")
    assert {row["operator"] for row in found} == {"gemm", "attention", "decode_attention", "elementwise"}
    for row in found:
        assert 0.0 < float(row["low_us"]) <= float(row["time_us"]) <= float(row["high_us"])
        assert (row["framework"], row["dtype"], row["threads"]) == ("numpy", "fp32", "1")
        assert row["source"].startswith("perfmodel measure")


def test_the_device_file_can_be_used(folder: Path) -> None:
    done = run("specs", "check", "mine.base.yaml", "mine.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("held_out", [(), ("--held-out", "rows")])
def test_every_row_is_predicted(folder: Path, held_out: tuple[str, ...]) -> None:
    done = run("validate", "mine.csv", "--hw", "mine.yaml", *held_out, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    assert sum(r["rows"] for r in reports) == len(rows(folder / "mine.csv"))
    for report in reports:
        assert report["predicted"] == report["rows"]
        assert math.isfinite(report["mean_error"])
        assert 0.0 <= report["median_abs_error"] < 1.0, "a fit that is off by a factor of two is no fit"


def test_the_fitted_device_serves_a_model(folder: Path) -> None:
    done = run("plan", "--model", "qwen3-4b", "--hw", "mine.yaml", "--workload", "chat", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    kept = run("specs", "show", "mine.yaml", cwd=folder)
    assert "pack_fraction" in (folder / "mine.yaml").read_text()
    assert kept.returncode == 0


def test_asking_again_adds_nothing_that_is_there(folder: Path) -> None:
    before = (folder / "mine.csv").read_text()
    again = run("measure", "-o", "mine.csv", "--quick", "--time-limit", "2", "--threads", "1", "--json", cwd=folder)
    assert again.returncode == 0
    data = json.loads(again.stdout)
    after = (folder / "mine.csv").read_text()
    assert after.startswith(before)
    assert data["known"] == len(before.splitlines()) - 1
    (folder / "mine.csv").write_text(before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_leaves_a_table_that_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "perfmodel", "measure", "-o", "mine.csv", "--threads", "1"],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells start background jobs deaf to it
    )
    path, deadline = tmp_path / "mine.csv", time.monotonic() + 60
    while time.monotonic() < deadline and not (path.exists() and len(path.read_text().splitlines()) > 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "interrupted" in out
    text = path.read_text()
    assert text.endswith("\n")
    kept = len(rows(path))
    assert kept >= 3
    done = run("measure", "-o", "mine.csv", "--time-limit", "2", "--threads", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["known"] == kept
    assert path.read_text().startswith(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "mine.txt"), "a table ends in .csv"),
        (("-o", "nowhere/mine.csv"), "the folder nowhere does not exist"),
        (("-o", "taken.csv"), "taken.csv:1"),
        (("-o", "mine.csv", "--backend", "cupy"), "there are numpy, torch"),
        (("-o", "mine.csv", "--operators", "gem"), "nearest: gemm"),
        (("-o", "mine.csv", "--dtype", "fp8"), "numpy is timed in fp32"),
        (("-o", "mine.csv", "--device", "cuda"), "numpy runs on the processor only"),
        (("-o", "mine.csv", "--device", "tpu"), "allowed: cpu, cuda"),
        (("-o", "mine.csv", "--threads", "100000"), "--threads"),
        (("-o", "mine.csv", "--time-limit", "0"), "--time-limit"),
        (("-o", "mine.csv", "--ranks", "1"), "two ranks or more"),
        (("-o", "mine.csv", "--ranks", "2", "--backend", "numpy"), "collectives are timed by PyTorch"),
    ],
)
def test_a_mistake_is_one_message_and_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "taken.csv").write_text("device,m,n,k\nx,1,1,1\n")
    before = sorted(tmp_path.iterdir())
    done = run("measure", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "taken.csv").read_text() == "device,m,n,k\nx,1,1,1\n"
