"""A timeline of a step: its end is the step, nothing overlaps in a lane, and no busy time is lost."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from planning import neutral, setting

from perfmodel.cli.main import run
from perfmodel.insight.timeline import Timeline, timeline_of
from perfmodel.phases.training import Step
from perfmodel.report.timeline import as_json, as_svg, as_text

CASES = {
    "one stage": {"tp": 8},
    "1f1b": {"tp": 8, "pp": 8},
    "unequal stages": {"tp": 4, "pp": 16, "micro_batch": 2},
    "interleaved": {"tp": 8, "pp": 8, "virtual": 2},
    "zb-h1": {"tp": 8, "pp": 8, "schedule": "zb-h1"},
    "zb-h2": {"tp": 8, "pp": 8, "schedule": "zb-h2"},
    "recomputation and sharding": {"tp": 8, "pp": 4, "recompute": 2, "gradients_group": 2.0**40},
}
WAITING = ("bubble", "sync", "update")


def drawn(name: str, model: str = "llama-2-70b") -> tuple[Step, Timeline]:
    found = setting(model, "dgx-h100", "pretrain", devices=256, use=("zero_bubble",))
    step = found.problem.evaluate(neutral(found, **CASES[name]))
    return step, timeline_of(step)


@pytest.mark.parametrize("model", ["llama-2-70b", "llama-3.1-405b"])
@pytest.mark.parametrize("name", CASES)
def test_a_timeline_is_the_step(name: str, model: str) -> None:
    if model != "llama-2-70b" and name in ("interleaved", "one stage"):
        pytest.skip("126 layers")
    step, found = drawn(name, model)
    for stage in range(found.stages):
        lanes: dict[str, list[tuple[float, float]]] = {}
        for i in found.intervals:
            if i.stage == stage:
                lanes.setdefault(i.lane, []).append((i.start, i.end))
        for spans in lanes.values():
            ordered = sorted(spans)
            assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(ordered))
        compute = lanes["compute"]
        offset = found.offsets[stage]
        assert max(end for _, end in compute) - offset == pytest.approx(float(step.seconds), rel=1e-12)
        assert sum(end - start for start, end in compute) == pytest.approx(float(step.seconds), rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_no_busy_time_is_lost(name: str) -> None:
    step, found = drawn(name)
    busy = [0.0] * found.stages
    for i in found.intervals:
        if i.lane == "compute" and i.kind not in WAITING:
            busy[i.stage] += i.end - i.start
    assert max(busy) == pytest.approx(float(step.micro_batches_seconds), rel=1e-9)
    after = sum(float(node.elapsed()) for node in step.tree.children[2:])
    once = sum(i.end - i.start for i in found.intervals if i.stage == 0 and i.kind in ("sync", "update")
               and i.lane == "compute")  # fmt: skip
    assert once == pytest.approx(after, rel=1e-9)


def test_drawings_hold_every_stage() -> None:
    step, found = drawn("zb-h1")
    events = json.loads(as_json(found))["traceEvents"]
    passes = [e for e in events if e["ph"] == "X" and e["tid"] == 0]
    assert max(e["ts"] + e["dur"] for e in passes) == pytest.approx(1e6 * float(step.seconds))
    assert as_svg(found).count(">stage ") == len(as_text(found)) == 8
    assert "W" in "".join(as_text(found))


def test_a_user_draws_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["estimate", "-m", "llama70b", "--hw", "dgx-h100", "-n", "64", "--pin", "tp=8", "--pin", "pp=4"]
    for name in ("step.svg", "step.json"):
        assert run([*ask, "--timeline", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 1000
    capsys.readouterr()
    assert run([*ask, "--timeline", str(tmp_path / "step.png")]) == 2
    assert ".svg" in capsys.readouterr().err
    assert run(["estimate", "-m", "llama70b", "--hw", "dgx-h100", "-w", "chat", "--pin", "tp=8",
                "--timeline", str(tmp_path / "chat.svg")]) == 2  # fmt: skip
