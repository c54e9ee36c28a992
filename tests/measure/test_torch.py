"""PyTorch: its kernels where it is installed, and the clock of accelerators with a stand-in."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfmodel.errors import SpecError
from perfmodel.measure.backend import open_backend
from perfmodel.measure.collectives import World, collective_jobs, world_of
from perfmodel.measure.jobs import OPERATORS, jobs
from perfmodel.measure.timer import timed
from perfmodel.measure.torch_backend import TorchBackend, device_stopwatch

ROOT = Path(__file__).parents[2]


class Event:
    """Reads the clock of the stand-in when it is recorded."""

    def __init__(self, gpu: Accelerator) -> None:
        self.gpu, self.at = gpu, -1.0

    def record(self) -> None:
        self.at = self.gpu.clock

    def elapsed_time(self, other: Event) -> float:
        assert self.gpu.synchronised == self.gpu.clock, "times are read after the device is done"
        return (other.at - self.at) * 1e3


class Accelerator:
    """What the timing of accelerators needs of PyTorch: every call takes a millisecond of its clock."""

    def __init__(self, *, captures: bool) -> None:
        self.clock, self.synchronised, self.captures = 0.0, -1.0, captures
        self.recorded: list[int] | None = None
        self.calls: list[int] = []
        self.cuda = SimpleNamespace(
            Event=lambda enable_timing: Event(self),
            Stream=lambda: SimpleNamespace(wait_stream=lambda other: None),
            current_stream=lambda: SimpleNamespace(wait_stream=lambda other: None),
            stream=lambda side: nullcontext(),
            CUDAGraph=lambda: SimpleNamespace(replay=self.replay),
            graph=self.graph,
            synchronize=self.synchronize,
        )

    def call(self, i: int) -> None:
        if self.recorded is not None:
            self.recorded.append(i)
        else:
            self.clock += 1e-3
            self.calls.append(i)

    def replay(self) -> None:
        self.clock += 1e-3 * len(self.last)

    def synchronize(self) -> None:
        self.synchronised = self.clock

    def graph(self, graph: object) -> Any:
        if not self.captures:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recorded = self.last = []
        accelerator = self

        class Capture:
            def __enter__(self) -> None:
                """Calls are recorded from here on."""

            def __exit__(self, *error: object) -> None:
                accelerator.recorded = None

        return Capture()


@pytest.mark.parametrize("captures", [True, False])
def test_the_clock_of_an_accelerator_counts_its_own_time(captures: bool) -> None:
    gpu = Accelerator(captures=captures)
    run = device_stopwatch(gpu)(gpu.call, 7)
    assert run().seconds == pytest.approx(7e-3)
    assert (gpu.last == list(range(7))) if captures else (gpu.calls[-7:] == list(range(7)))
    found = timed(gpu.call, device_stopwatch(gpu), 0.01)
    assert found.median == pytest.approx(1e-3)


def test_no_accelerator_is_one_message() -> None:
    none = SimpleNamespace(__version__="2", cuda=SimpleNamespace(is_available=lambda: False))
    with pytest.raises(SpecError, match="PyTorch finds no accelerator"):
        TorchBackend(none, "cuda", 1, 1e6, 1e9)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_operator_runs_in_torch(operator: str, dtype: str) -> None:
    pytest.importorskip("torch")
    backend = open_backend("torch", device="cpu", threads=1, cache=2.0**20, memory=2.0**30)
    found = sorted(jobs([operator], [dtype]), key=lambda j: j.moved)
    for job in (found[0], *(j for j in found if j.sizes.get("q_len", 1) not in (1, j.sizes.get("kv_len", 1)))):
        prepared = backend.prepare(job)
        prepared.call(0)
        prepared.call(1)
        assert prepared.kernel


def test_ranks_are_those_asked_for_or_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert world_of(0) is None
    assert world_of(4) == World(0, 4, 4, launched=False)
    with pytest.raises(SpecError, match="two ranks or more"):
        world_of(1)
    for name, value in (("WORLD_SIZE", "16"), ("RANK", "9"), ("LOCAL_WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    assert world_of(0) == World(9, 16, 8, launched=True)
    with pytest.raises(SpecError, match="allowed: 16"):
        world_of(2)


def test_every_kind_of_collective_is_listed_at_every_size() -> None:
    found = collective_jobs(World(0, 2, 2, launched=False), "gloo", "here")
    assert len({(j.sizes["kind"], j.sizes["bytes"]) for j in found}) == len(found)
    assert {j.sizes["kind"] for j in found[:5]} == {j.sizes["kind"] for j in found}


def test_collectives_between_processes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "perfmodel", "measure", "-o", "mine.csv", "--ranks", "2", "--time-limit", "8"]
    done = subprocess.run(
        [*command, "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "mine.csv").read_text().splitlines()))
    assert json.loads(done.stdout)["added"] == len(rows) > 4
    assert {row["ranks"] for row in rows} == {"2"}
    assert all(float(row["time_us"]) > 0.0 for row in rows)
