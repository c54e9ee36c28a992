"""Serving from host and storage: bytes stay whole, faster parts never hurt, shares are solved exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import neutral, setting

from perfmodel.errors import PerfmodelError
from perfmodel.insight.planner import answer
from perfmodel.insight.setting import Setting
from perfmodel.machine.build import Machine
from perfmodel.solver.evaluate import evaluate_plan
from perfmodel.solver.placement import placed_exactly, solve_shares
from perfmodel.solver.search import Outcome, search
from perfmodel.specs.system import load_device, load_system
from perfmodel.techniques.settled import Plan

SHARES = (
    "weights_at_host", "weights_at_storage", "layers_share", "cache_at_host", "cache_at_storage",
    "weights_behind", "cache_behind",
)  # fmt: skip
PLANS: list[dict[str, Any]] = [
    {"offload": "streamed", "weights_at_host": 0.4, "weights_at_storage": 0.5, "cache_at_storage": 1.0},
    {"offload": "host", "layers_share": 0.7, "weights_at_storage": 0.2},
    {"offload": "host", "layers_share": 1.0},
    {"attention_engine": "host", "offload": "streamed", "weights_at_host": 0.9},
]


def desktop(model: str = "llama-2-13b", workload: str = "batch", **options: Any) -> Setting:
    return setting(model, "desktop-4090", workload, **options)


def lines(found: Setting, x: Plan, name: str) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for line in found.problem.evaluate(x).ledgers["first"]:
        if line.name == name:
            sizes[line.tier] = sizes.get(line.tier, 0.0) + float(line.bytes)
    return sizes


def on(found: Setting, machine: Machine) -> Setting:
    """The same question on a machine with changed numbers."""
    situation = found.problem.situation._replace(machine=machine)
    problem = replace(found.problem, machine=machine, situation=situation, memo=type(found.problem.memo)())
    return replace(found, machine=machine, problem=problem)


def best(found: Setting) -> tuple[Outcome, Plan]:
    outcome = search(found.space, found.problem)
    placed_exactly(found.problem, found.space, outcome)
    return outcome, outcome.best[0].plan


@pytest.mark.parametrize("columns", PLANS, ids=str)
def test_every_byte_of_weights_and_cache_lies_in_one_place(columns: dict[str, Any]) -> None:
    found = desktop("llama-2-70b")
    whole, x = neutral(found, batch=4), neutral(found, batch=4, **columns)
    for name in ("weights", "KV cache"):
        everywhere = sum(lines(found, whole, name).values())
        assert sum(lines(found, x, name).values()) == pytest.approx(everywhere, rel=1e-12)
    assert len(lines(found, x, "weights")) >= 2


def test_machines_with_room_do_not_search_memory_beyond_the_device() -> None:
    for found in (desktop("llama-2-7b", "chat"), setting("llama-2-70b", "dgx-h100", "chat")):
        sizes = {axis.columns: len(axis.values) for axis in (*found.space.structural, *found.space.numeric)}
        assert sizes[SHARES] == 1
        assert sizes[("offload",)] == 1
        assert sizes[("attention_engine",)] == sizes[("sub_batches",)] == 1
    asked = desktop("llama-2-7b", "chat", use=("serving_offload",))
    assert {axis.columns: len(axis.values) for axis in asked.space.numeric}[SHARES] > 1


@pytest.mark.parametrize("columns", PLANS, ids=str)
@pytest.mark.parametrize("faster", ["host_link", "storage_read", "storage_write", "host"])
def test_a_faster_part_never_makes_a_plan_slower(columns: dict[str, Any], faster: str) -> None:
    found = desktop("llama-2-70b")
    machine, x = found.machine, neutral(found, batch=16, **columns)
    if faster == "host":
        host = machine.engine("host")
        quick = host.memories[-1]._replace(bandwidth=4.0 * host.bandwidth)
        host = replace(host, memories=(*host.memories[:-1], quick))
        changed = replace(machine, engines={**machine.engines, "host": host})
    else:
        changed = replace(machine, **{faster: 4.0 * getattr(machine, faster)})
    before, after = found.problem.evaluate(x), on(found, changed).problem.evaluate(x)
    assert after.pass_seconds <= before.pass_seconds * (1.0 + 1e-12)
    assert after.ttft <= before.ttft * (1.0 + 1e-12)


def test_a_link_that_carries_nothing_is_not_chosen() -> None:
    found = desktop("llama-2-13b", "chat", use=("serving_offload", "packed_weights=awq-int4-g128"))
    cut = replace(found.machine, host_link=1e-3, storage_read=1e-3, storage_write=1e-3)
    host = replace(cut.engine("host"), link=1e-3)
    cut = replace(cut, engines={**cut.engines, "host": host})
    _, x = best(on(found, cut))
    assert x.offload == "none"
    assert x.attention_engine == "main"


def test_the_optimum_of_the_shares_is_below_every_point_of_the_grid_and_equals_its_dual() -> None:
    found = desktop("llama-2-70b")
    start = neutral(found, offload="streamed", batch=16)
    kept = {n: v for n, v in vars(start).items() if n not in SHARES}
    solved = solve_shares(found.problem, start, SHARES)
    assert solved is not None
    x, dual = solved
    replica = found.problem.evaluate(x)
    assert replica.pass_seconds == pytest.approx(dual, rel=1e-6)
    assert all(float(r) <= 1.0 + 1e-9 for r in replica.ratios.values())
    axis = next(a for a in found.space.numeric if a.columns == SHARES)
    table = np.array(axis.values)
    columns = {**kept, **{n: table[:, i] for i, n in enumerate(SHARES)}}
    corners = found.problem.evaluate(Plan(**columns))
    ratios = [np.broadcast_to(np.asarray(r, dtype=float), len(table)) for r in corners.ratios.values()]
    legal = np.all([r <= 1.0 + 1e-9 for r in ratios], axis=0)
    assert legal.sum() >= 3
    assert dual <= np.broadcast_to(corners.pass_seconds, len(table))[legal].min() * (1.0 + 1e-9)


def test_the_plan_chosen_is_as_good_as_its_dual_bound_and_better_than_the_grid() -> None:
    found = desktop("llama-2-70b")
    outcome = search(found.space, found.problem)
    before = outcome.best[0].score
    placement = placed_exactly(found.problem, found.space, outcome)
    assert placement is not None
    assert outcome.best[0].score <= before
    assert placement.pass_seconds >= placement.dual_seconds * (1.0 - 1e-9)


def test_mesh_and_single_plan_agree() -> None:
    found = desktop("llama-2-70b")
    rng = np.random.default_rng(7)
    table = np.pad(rng.dirichlet(np.ones(6), size=12)[:, :5], ((0, 0), (0, 2)))
    for offload in ("streamed", "host"):
        if offload == "streamed":
            table[:, 2] = 0.0
        x = neutral(found, offload=offload, batch=8)
        mesh = found.problem.evaluate(Plan(**{**vars(x), **{n: table[:, i] for i, n in enumerate(SHARES)}}))
        for row in range(len(table)):
            one = found.problem.evaluate(
                Plan(**{**vars(x), **{n: float(v) for n, v in zip(SHARES, table[row], strict=True)}})
            )
            for name in ("pass_seconds", "ttft", "tpot"):
                got = float(np.broadcast_to(getattr(mesh, name), len(table))[row])
                assert got == pytest.approx(float(getattr(one, name)), rel=1e-12)
            for name, ratio in one.ratios.items():
                assert float(np.broadcast_to(mesh.ratios[name], len(table))[row]) == pytest.approx(float(ratio))


@pytest.mark.parametrize("columns", PLANS, ids=str)
def test_no_plan_beats_its_bound(columns: dict[str, Any]) -> None:
    found = desktop("llama-2-70b")
    for batch in (1, 64):
        replica = found.problem.evaluate(neutral(found, batch=batch, **columns))
        assert replica.decode.bound() <= replica.pass_seconds * (1.0 + 1e-12)


def test_few_tokens_compute_weights_where_they_lie_many_have_them_streamed() -> None:
    """Memory of the host is quicker than its link: one token stays there; a thousand tokens want the device's rate."""
    found = desktop("llama-2-70b", use=("packed_weights=awq-int4-g128",))
    shared = {"packed_weights": "awq-int4-g128", "cache_at_host": 0.0}

    def seconds(batch: int, **columns: Any) -> float:
        return float(found.problem.evaluate(neutral(found, batch=batch, **shared, **columns)).pass_seconds)

    there = {"offload": "host", "layers_share": 0.5}
    moved = {"offload": "streamed", "weights_at_host": 0.5}
    assert seconds(1, **there) < seconds(1, **moved)
    assert seconds(512, **there) > seconds(512, **moved)


def test_what_streams_and_what_the_host_computes_share_its_memory() -> None:
    found = desktop("llama-2-7b", use=("serving_offload",))
    replica = found.problem.evaluate(neutral(found, batch=1, offload="host", layers_share=0.5, weights_at_host=0.5))
    s = replica.settled
    moved = s.layers * s.layer_stored
    assert replica.pass_seconds >= moved / found.machine.engine("host").bandwidth
    assert replica.decode.bound() >= moved / found.machine.engine("host").bandwidth


def board(tmp_path: Path, *behind: str) -> Path:
    """An accelerator of a stranger: block memory, HBM, and what lies behind it."""
    memories = ["bram: {50 MiB, 40 TB/s}", "hbm: {16 GB, 820 GB/s}", *behind]
    lines = []
    for memory in memories:
        name, capacity, bandwidth = memory.replace("{", "").replace("}", "").replace(",", ":").split(":")
        facts = [f"{n}: {{value: {v}, kind: datasheet, source: s}}"
                 for n, v in (("capacity", capacity.strip()), ("bandwidth", bandwidth.strip()))]  # fmt: skip
        lines.append(f"  {name}: {{{', '.join(facts)}}}")
    path = tmp_path / "board.yaml"
    path.write_text(
        "name: board\nclass: fpga\nsources: {s: sheet}\nunits: {value: 4, kind: datasheet, source: s}\n"
        "peak: {matrix: {fp16: {value: 7 TFLOP/s, kind: datasheet, source: s}}}\nmemory:\n" + "\n".join(lines) + "\n"
    )
    return path


def test_a_memory_behind_the_nearer_one_takes_what_has_no_room(tmp_path: Path) -> None:
    """13B in 16 bits has no room in 16 GB of HBM; what DDR delivers in a pass bounds it from below."""
    found = setting("llama-2-13b", load_system(board(tmp_path, "ddr: {64 GB, 51.2 GB/s}")), "batch")
    assert (found.machine.main.tier, found.machine.tiers["ddr"]) == ("hbm", 64e9)
    given = answer(found).best
    assert given is not None
    moved = sum(e.bytes for stage in given.ledgers[:1] for e in stage.lines if e.tier == "ddr")
    assert moved > 10e9
    assert given.seconds > given.bound_seconds
    assert given.metrics["pass_seconds"] > 0.9 * given.columns["weights_behind"] * 24e9 / 51.2e9
    assert answer(setting("llama-2-13b", load_system(board(tmp_path)), "batch")).best is None


def test_one_memory_may_lie_behind_the_one_that_holds_weights(tmp_path: Path) -> None:
    with pytest.raises(PerfmodelError, match="ddr, slow lie behind hbm"):
        load_device(board(tmp_path, "ddr: {64 GB, 51.2 GB/s}", "slow: {512 GB, 10 GB/s}"))


def flexgen(name: str, batch: float, **columns: Any) -> Any:
    """A policy of FlexGen's own runs (512 prompt and 32 output tokens; bench_suite.py in FMInference/FlexLLMGen)."""
    changes = {"prompt": 512, "output": 32}
    found = setting(name, "gcp-t4", "batch", framework="bare", use=("serving_offload",), changes=changes)
    return found, evaluate_plan(found.problem, neutral(found, offload="streamed", batch=batch, **columns))


def test_published_throughput_from_disk() -> None:
    """OPT-175B, half of the weights and all of the cache on the SSD: 0.69 tokens/s (its README)."""
    _, plan = flexgen("opt-175b", 256.0, weights_at_host=0.5, weights_at_storage=0.5, cache_at_storage=1.0)
    assert plan.legal
    assert plan.metrics["output_tokens_per_second"] == pytest.approx(0.69, rel=0.20)


def test_published_throughput_from_host_memory_is_not_beyond_the_model() -> None:
    """OPT-30B, attention on the processor: 7.32 tokens/s, with attention there at a tenth of its memory's bandwidth."""
    found, plan = flexgen("opt-30b", 144.0, attention_engine="host", weights_at_host=0.8)
    rate = plan.metrics["output_tokens_per_second"]
    assert rate > 7.32
    prompts = rate / 32.0 * 512.0 * 2.0 * found.model.architecture.parameters
    assert prompts < 1.1 * 0.327 * 65e12, "prompts hide under streamed weights once a pass, not each of them"
