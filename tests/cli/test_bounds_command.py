"""``perfmodel bounds`` and ``perfmodel roofline`` as a user meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLLECTIVES = ["broadcast", "reduce", "scatter", "gather", "all-gather", "reduce-scatter", "all-reduce", "all-to-all",
               "point-to-point"]  # fmt: skip
SIZES = {
    "gemm": "--m 4096 --n 4096 --k 4096",
    "gemv": "--m 4096 --n 4096",
    "softmax": "--n 100000 --rows 8",
    "attention": "--seq 32768 --head-dim 128",
    "decode-attention": "--context 8192 --head-dim 128 --heads 64 --kv-heads 8 --batch 8 --splits 2",
    "fft": "--n 1048576",
    "monarch": "--n 1048576 --order 2",
    "scan": "--tokens 2048 --channels 8192",
    **{name: "--ranks 16 --bytes 1GiB" for name in COLLECTIVES},
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perfmodel", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        timeout=60,
    )


def here(text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    from perfmodel.cli.main import run as command

    code = command(text.split())
    out, err = capsys.readouterr()
    return code, out, err


def test_attention_on_a_device_in_a_pipe() -> None:
    done = run("bounds", "attention", "--seq", "32768", "--head-dim", "128", "--hw", "h100")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("550 GFLOP", "shared", "l2", "hbm", "host", "lower bound", "achievable", "gap", "FlashAttention-2",
                 "M ≥ d²", "compute binds"):  # fmt: skip
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_roofline_in_a_pipe_and_as_json() -> None:
    words = ("roofline", "--model", "llama70b", "--hw", "h100", "--pin", "tp=8", "--pin", "batch=64")
    done = run(*words, "--phase", "decode", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert data["schema"] == "perfmodel.roofline/1"
    (one,) = data["passes"]
    assert one["phase"] == "decode"
    assert sum(r["share"] for r in one["rows"]) == pytest.approx(1.0)
    assert {"shared", "l2"} == set(one["rows"][0]["intensity"])


@pytest.mark.parametrize("operator", SIZES)
def test_every_operator_as_screen_and_json(operator: str, capsys: pytest.CaptureFixture[str]) -> None:
    ask = f"bounds {operator} {SIZES[operator]} --hw dgx-h100"
    code, out, err = here(ask, capsys)
    assert (code, err) == (0, "")
    assert "lower bound" in out
    assert all(len(line) <= 100 for line in out.splitlines()), out
    code, out, err = here(ask + " --json", capsys)
    data = json.loads(out)
    assert (code, err, data["schema"], data["operator"]) == (0, "", "perfmodel.bounds/1", operator)
    if operator in COLLECTIVES:
        assert all(a["seconds"] >= data["bound_seconds"] for a in data["algorithms"])
    else:
        assert all(b["achievable"] >= b["lower_bound"] for b in data["boundaries"])


def test_roofline_of_both_kinds_of_workload(capsys: pytest.CaptureFixture[str]) -> None:
    for ask, phases in (
        ("--workload chat", ("PREFILL", "DECODE")),
        ("--workload pretrain", ("TRAINING",)),
        ("--phase training", ("TRAINING",)),
    ):
        code, out, err = here(f"roofline --model llama-3.1-8b --hw mi300x {ask}", capsys)
        assert (code, err) == (0, "")
        assert all(phase in out for phase in phases)
        assert "roof" in out
        assert all(len(line) <= 100 for line in out.splitlines()), out


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("bounds gemm --m 1 --n 1", "--k"),
        ("bounds gemm --m 0 --n 1 --k 1 --hw h100", "at least 1"),
        ("bounds gemm --m 1 --n 1 --k 1", "--hw is missing"),
        ("bounds gemm --m 1 --n 1 --k 1 --hw h1000", "nearest"),
        ("bounds gemv --m 8 --n 8 --hw h100 --format bf17", "nearest"),
        ("bounds fft --n 1000 --hw h100", "power of two"),
        ("bounds all-reduce --ranks 4 --bytes 3pigs --hw dgx-h100", "--bytes"),
        ("bounds all-reduce --ranks 4 --bytes 1GiB --hw h100", "devices"),
        ("roofline --model llama-2-7b --hw h100 --phase training --workload chat", "prefill, decode"),
        ("roofline --model llama-2-7b --hw h100 --pin tp=2,4", "one value"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(ask: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = here(ask, capsys)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
