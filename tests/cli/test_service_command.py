"""``perfmodel plan`` for a service as a capacity planner runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from perfmodel.cli.main import run

BASE = ["plan", "--model", "llama70b", "--hw", "dgx-h100", "--workload", "chat"]
LIMITS = ["--set-workload", "slo.percentile=90", "--set-workload", "rate=120 requests/s"]


def test_pools_are_shown_beside_replicas_that_do_both(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = tmp_path / "service.md"
    assert run([*BASE, *LIMITS, "--report", str(report)]) == 0
    shown = capsys.readouterr().out
    for text in ("TTFT p90", "comes nearest, at", "p99", "per 1 M input tokens", "120 requests/s"):
        assert text in shown
    apart, together = "Prefill and decode run apart", "prefill and decode together"
    assert apart in shown
    assert together in shown
    assert "loses on device time per request" in shown
    written = report.read_text()
    assert "Latencies" in written
    assert "together or apart" in written


def test_an_arrangement_can_be_asked_for_and_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*BASE, *LIMITS, "--pools", "together", "--json"]) == 0
    joint = json.loads(capsys.readouterr().out)["answers"][0]
    assert joint["best"]["pools"] is None
    assert joint["other_arrangement"] is None
    assert run([*BASE, "--pools", "apart", "--pin", "prefill.tp=8", "--json"]) == 0
    apart = json.loads(capsys.readouterr().out)["answers"][0]["best"]
    assert set(apart["pools"]) == {"prefill", "decode"}
    assert apart["columns"]["prefill.tp"] == 8
    assert apart["devices"] == sum(pool["devices"] for pool in apart["pools"].values())
    assert run([*BASE, "--pin", "prefil.tp=8"]) == 2


def test_a_limit_that_cannot_be_kept_says_by_how_much(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*BASE, "--set-workload", "slo.ttft_p99=5 ms"]) == 0
    shown = capsys.readouterr().out
    assert "No plan is possible" in shown
    assert "TTFT p99" in shown
    assert "slo.ttft_p99=" in shown
    assert run([*BASE, "--set-workload", "slo.percentile=0.9"]) == 2
    assert "50 to 99.99" in capsys.readouterr().err


def test_a_rate_beyond_the_machine_says_what_it_carries_and_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    question = ["plan", "-m", "llama8b", "--hw", "h100-4x", "-w", "chat", "--set-workload", "slo.percentile=99"]
    assert run([*question, "--set-workload", "rate=200 requests/s"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "devices are needed, there are 4" in text
    carried = re.search(r"a rate that this machine carries: --set-workload rate='([\d.e+]+) requests/s'", text)
    larger = re.search(r"devices carry it \(--set nodes=x(\d+)\)", text)
    assert carried is not None
    assert larger is not None
    assert run([*question, "--set-workload", f"rate={carried[1]} requests/s", "--json"]) == 0
    possible = json.loads(capsys.readouterr().out)["answers"][0]
    assert possible["best"] is not None
    assert possible["best"]["devices"] > 2  # and not much less than it carries
    more = ["--set-workload", "rate=200 requests/s", "--set", f"nodes=x{larger[1]}"]
    assert run([*question, *more]) == 0
    assert "No plan" not in capsys.readouterr().out.partition("With the change")[2]
