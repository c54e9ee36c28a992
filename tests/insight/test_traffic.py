"""A trace by the hour: windows that hold every request, demand that follows the work, replicas that follow demand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from perfmodel import services
from perfmodel.cli.main import run
from perfmodel.errors import SpecError
from perfmodel.insight.traffic import demand, traffic_of
from perfmodel.specs.trace import Arrival


def day(rates: list[float], *, prompt: int = 1000, output: int = 200, seed: int = 0) -> list[Arrival]:
    """So many requests per second in every hour."""
    rng = np.random.default_rng(seed)
    times = [3600.0 * i + t for i, r in enumerate(rates) for t in np.sort(rng.uniform(0, 3600, int(3600 * r)))]
    return [Arrival(float(t), prompt, output) for t in times]


def test_windows_hold_every_request_and_gaps_are_windows_without_any() -> None:
    arrivals = [Arrival(0.0, 10, 5), Arrival(30.0, 0, 5), Arrival(100.0, 30, 15), Arrival(4 * 3600.0 + 1, 20, 10)]
    found = traffic_of(arrivals)
    assert [w.requests for w in found.windows] == [2, 0, 0, 0, 1]
    assert (found.requests, found.skipped) == (3, 1)
    assert (found.prompt, found.output) == (20.0, 10.0)
    assert found.windows[1].busiest == 0.0
    assert demand(found, found.windows[0], 0.3) == pytest.approx(found.windows[0].busiest)
    with pytest.raises(SpecError, match="window"):
        traffic_of(arrivals, window=0.0)
    with pytest.raises(SpecError, match="no request"):
        traffic_of([Arrival(0.0, 0, 1)])


def test_chance_is_no_peak_but_a_burst_is() -> None:
    steady = traffic_of(day([2.0, 2.0]))
    assert max(w.busiest for w in steady.windows) == pytest.approx(2.0, rel=0.05)
    burst = sorted([*day([2.0]), *(Arrival(1800.0 + i / 10, 1000, 200) for i in range(600))])
    assert traffic_of(burst).windows[0].busiest > 8.0


def test_longer_requests_are_more_demand() -> None:
    found = traffic_of([*day([1.0]), *(Arrival(a.seconds + 3600.0, 3000, 200) for a in day([1.0]))])
    first, second = (demand(found, w, 1.0) for w in found.windows)
    assert second == pytest.approx(3.0 * first, rel=0.1)
    first, second = (demand(found, w, 0.0) for w in found.windows)
    assert second == pytest.approx(first, rel=0.1)


def test_requests_beyond_the_models_context_are_left_out_and_counted() -> None:
    load = [Arrival(float(i), 100 if i % 4 else 9000, 50) for i in range(400)]
    assert traffic_of(load, longest=8192).too_long == 100
    found = services.plan_trace("llama8b", "dgx-h100", load).serving.sizing
    assert (found.requests, found.too_long, found.prompt) == (300, 100, 100.0)
    with pytest.raises(SpecError, match="400 longer than the model's 100 tokens"):
        traffic_of(load, longest=100)


def test_pools_planned_for_the_peak_carry_every_window() -> None:
    """Prompts are busiest in the first hour, outputs in the second: no window needs more than was planned."""
    first = [Arrival(a.seconds, 4000, 50) for a in day([6.0])]
    second = [Arrival(a.seconds + 3600.0, 300, 600) for a in day([6.0], seed=1)]
    found = services.plan_trace("llama8b", "dgx-h100", [*first, *second], pools="apart").serving
    assert found.best.pools is not None
    assert found.sizing.peak_devices == found.best.devices


def test_replicas_follow_the_load_and_never_cost_more_than_the_peak() -> None:
    rates = [0.2, 1.0, 3.0, 1.0]
    kept = {"slo.percentile": 90}
    found = services.plan_trace("llama8b", "dgx-h100", day([8 * r for r in rates]), workload_changes=kept).serving
    sizing = found.sizing
    devices = [s.devices for s in sizing.steps]
    assert devices[0] <= devices[1] <= devices[2]
    assert devices[3] == devices[1]
    assert sizing.peak_devices == max(s.devices for s in sizing.steps)
    assert sizing.device_hours <= sizing.fixed_device_hours
    assert sizing.device_hours == pytest.approx(sum(s.devices * s.seconds for s in sizing.steps) / 3600.0)
    double = day([16 * r for r in rates])
    more = services.plan_trace("llama8b", "dgx-h100", double, workload_changes=kept).serving.sizing
    assert more.peak_devices >= sizing.peak_devices
    with pytest.raises(SpecError, match="rate"):
        services.plan_trace("llama8b", "dgx-h100", day([1.0]), workload_changes={"rate": "2 requests/s"})


def test_the_command_shows_the_hours_and_says_them_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "day.csv"
    with trace.open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["arrival_s", "prompt_tokens", "output_tokens"])
        rows.writerows((a.seconds, a.prompt, a.output) for a in day([1.0, 4.0]))
    asked = ["plan", "--model", "llama8b", "--hw", "dgx-h100", "--trace", str(trace)]
    asked += ["--set-workload", "slo.percentile=90"]
    report = tmp_path / "day.md"
    assert run([*asked, "--report", str(report)]) == 0
    shown = capsys.readouterr().out
    for text in ("over time", "01:00", "GPU-hours", "binds", "per 1 M input tokens"):
        assert text in shown
    assert "Over the time of the trace" in report.read_text()
    assert run([*asked, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    steps = data["answers"][0]["sizing"]["steps"]
    assert [s["start"] for s in steps] == [0.0, 3600.0]
    assert run([*asked, "--window", "an hour"]) == 2
    assert run([*asked, "--pools", "elsewhere"]) == 2
    assert "together" in capsys.readouterr().err
