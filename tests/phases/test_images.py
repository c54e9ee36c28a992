"""Image generation: steps are passes, strips share them, what travels hides at best."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import perfmodel
from perfmodel.cli.main import app
from perfmodel.errors import SpecError
from perfmodel.insight.images import image_problem
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.solver.space import build_space
from perfmodel.specs.framework import load_framework
from perfmodel.specs.images import load_image_model, load_image_workload, revise_images
from perfmodel.specs.system import load_system
from perfmodel.techniques.settled import Plan

ALL = ("displaced_patches=distrifusion,pcpp", "block_caching", "guidance_gate")


def plan(
    work: dict[str, Any] | None = None, hw: str = "dgx-a100", model: str = "sdxl", **columns: Any
) -> EvaluatedPlan:
    return perfmodel.image_estimate(model, hw, columns=columns, use=ALL, workload_changes=work or {}).plan


def rows(found: EvaluatedPlan) -> dict[str, float]:
    return {r.name: r.seconds for r in found.terms}


COMMUNICATION = ("exchange of patches", "latent together", "predictions together")


def test_one_rank_is_no_parallelism_to_the_last_bit() -> None:
    found = plan(patches=1, guidance_ranks=1)
    assert all(rows(found).get(name, 0.0) == 0.0 for name in (*COMMUNICATION, "patches joined"))
    alone = plan(hw="a100-80gb-sxm")
    assert found.seconds == alone.seconds


def test_steps_are_passes() -> None:
    few, many = (plan({"steps": n, "decode": False}).seconds for n in (10, 50))
    assert many == pytest.approx(5 * few)


def test_a_decoder_that_overflows_in_16_bits_runs_in_32() -> None:
    """The same decoder: SDXL asks for 32 bits, SD 2.1 does not; halves of the rate and twice the bytes."""
    wide, narrow = (rows(plan(model=m))["image decoder"] for m in ("sdxl", "sd-2.1"))
    assert 1.8 < wide / narrow < 4.5


def test_guidance_doubles_the_predictions() -> None:
    guided, plain = (plan({"guidance": g, "height": 2048, "width": 2048, "decode": False}) for g in (True, False))
    assert guided.metrics["tera_operations_per_image"] == pytest.approx(2 * plain.metrics["tera_operations_per_image"])
    assert 1.8 < guided.seconds / plain.seconds <= 2.0


@pytest.mark.parametrize("displaced", ["none", "distrifusion", "pcpp"])
@pytest.mark.parametrize("side", [1024, 3840])
def test_hidden_exchange_never_makes_a_step_shorter_than_its_computation(displaced: str, side: int) -> None:
    found = plan({"height": side, "width": side, "decode": False}, patches=8, displaced=displaced)
    busy = sum(r.busy_seconds for r in found.terms if r.name not in COMMUNICATION)
    assert found.seconds >= busy * (1 - 1e-12)
    waiting = plan({"height": side, "width": side, "decode": False}, patches=8)
    assert found.seconds <= waiting.seconds * (1 + 1e-12)
    assert found.bound_seconds <= found.seconds


def test_only_the_first_steps_show_their_exchange() -> None:
    """Four of fifty, where the computation is longer than the exchange."""
    work = {"height": 3840, "width": 3840, "decode": False}
    waiting, displaced = (plan(work, patches=4, displaced=d) for d in ("none", "distrifusion"))
    assert rows(displaced)["exchange of patches"] == pytest.approx(rows(waiting)["exchange of patches"] * 4 / 50)


def test_everything_stale_is_kept_for_the_next_step() -> None:
    """Keys and values of every layer and the edges; without strips there is nothing to keep."""
    kept = {p: {e.name: e.bytes for e in plan(patches=p, displaced="distrifusion").ledgers[0].lines} for p in (1, 4)}
    name = "activations of the step before"
    keys = 2 * 2 * 2 * (10 * 640 * 64 * 64 + 60 * 1280 * 32 * 32)  # K and V, 16 bits, two predictions
    assert name not in kept[1]
    assert keys < kept[4][name] < 1.2 * keys


def test_a_part_of_the_others_costs_less_attention() -> None:
    work = {"height": 3840, "width": 3840, "decode": False}
    whole, part = (rows(plan(work, patches=8, displaced=d)) for d in ("distrifusion", "pcpp"))
    seen = 0.3 + 0.7 / 8
    steps = (4 + 46 * seen) / 50
    assert part["self-attention"] / whole["self-attention"] == pytest.approx(steps, rel=0.02)


def test_remembered_blocks_and_gates() -> None:
    whole = plan({"decode": False})
    cached = plan({"decode": False}, cached_share=0.5, cached_for=2)
    assert whole.seconds / cached.seconds == pytest.approx(4 / 3)
    times = [plan({"decode": False}, gate_after=n).seconds for n in (5, 8, 10, 0)]
    assert times == sorted(times)
    assert cached.quality is None
    assert plan(gate_after=5).quality == 0.0


def test_the_mesh_and_a_single_plan_agree() -> None:
    model, work = load_image_model("sdxl"), load_image_workload("image")
    problem = image_problem(model, load_system("dgx-a100"), work, use=ALL)
    space = build_space(problem.techniques, problem.situation, {})
    rng = np.random.default_rng(7)
    for slab in space.slabs():
        mesh = problem.judge(slab.columns())
        for i in rng.integers(slab.cells, size=3):
            one = problem.judge(slab.plan(int(i)))
            for a, b in ((mesh.score, one.score), (mesh.budget["hbm memory"], one.budget["hbm memory"])):
                assert np.broadcast_to(a, slab.shape).flat[int(i)] == pytest.approx(float(b), rel=1e-9)


def test_the_search_finds_the_best_and_spends_no_quality_unasked() -> None:
    found = perfmodel.images("sdxl", "dgx-a100", devices=8)
    assert found.best is not None
    assert found.best.columns.get("displaced", "none") == "none"
    assert all(found.best.seconds <= p.seconds for p in found.others)
    spent = perfmodel.images("sdxl", "dgx-a100", devices=8, max_quality_loss=0.01)
    assert spent.best is not None
    assert spent.best.seconds < found.best.seconds
    many = perfmodel.images("sdxl", "dgx-a100", devices=8, objective="throughput")
    assert many.best is not None
    assert many.best.metrics["images_per_second"] >= found.best.metrics["images_per_second"]


def test_impossible_and_wrong() -> None:
    nothing = perfmodel.images("sdxl", "dgx-a100", devices=8, workload_changes={"latency": "1 ms"})
    assert nothing.best is None
    assert nothing.rejected[0].constraint == "latency"
    with pytest.raises(SpecError, match="multiple of 32"):
        perfmodel.images("sdxl", "dgx-a100", workload_changes={"height": 1000})
    with pytest.raises(SpecError, match="devices"):
        perfmodel.images("sdxl", "a100-80gb-sxm", devices=2)
    assert revise_images(load_image_workload("image"), {"width": 512}).width == 512


def test_columns_of_one_plan() -> None:
    problem = image_problem(load_image_model("sd-1.5"), load_system("a100-80gb-sxm"), load_image_workload("image"))
    x = Plan(images=4.0, guidance_ranks=1.0, patches=1.0)
    run = problem.evaluate(x)
    assert float(run.seconds) > 0
    assert {p.kind: float(p.count) for p in run.passes} == {"first": 0.0, "step": 50.0, "last": 0.0}


@pytest.mark.parametrize("command", ["plan", "estimate"])
def test_commands(command: str) -> None:
    asked = [command, "--model", "sdxl", "--hw", "dgx-a100", "--devices", "8", "--workload", "image"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "images/s" in shown.output
    said = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert said["schema"] == "perfmodel.images/1"
    assert said["model"]["parameters"] == 2567463684
    refused = CliRunner().invoke(app, [*asked, "--framework", "megatron-lm"])
    assert isinstance(refused.exception, SpecError)


def test_software_of_steps_costs_host_time_and_never_less_than_nothing() -> None:
    """Small images wait for launches, large ones do not; the host's own time comes once a step."""

    def seconds(side: int, framework: str | None) -> float:
        asked = {"width": side, "height": side}
        return perfmodel.image_estimate("sd-1.5", "h100", framework=framework, workload_changes=asked).plan.seconds

    free, eager = ({side: seconds(side, name) for side in (256, 2048)} for name in (None, "eager-2023"))
    facts = load_framework("eager-2023").on("hopper", 80e9)
    assert eager[256] > 1.3 * free[256]
    assert 50 * facts["host_per_iteration"] < eager[2048] - free[2048] < 0.1 * free[2048]


def test_a_report_of_images_is_written(tmp_path) -> None:
    path = tmp_path / "images.md"
    asked = ["plan", "--model", "sdxl", "--hw", "dgx-a100", "--devices", "8", "--framework", "vllm"]
    shown = CliRunner().invoke(app, [*asked, "--report", str(path)])
    assert shown.exit_code == 0, shown.output
    text = path.read_text()
    assert "## Time" in text
    assert "software behaves like vllm" in text
