"""Bounds and rooflines on machines: the formulas at every memory, and the same numbers as the plans."""

from __future__ import annotations

import math

import pytest
from planning import model, system

from perfmodel import api, studies
from perfmodel.errors import PerfmodelError
from perfmodel.insight import problems
from perfmodel.insight.bounds import OperatorBounds, bounds, bounds_on, collective
from perfmodel.machine.build import build_machine
from perfmodel.operators.bounds import attention as att
from perfmodel.operators.bounds import collectives, matmul

MACHINES = ("h100", "mi300x", "epyc-9654", "alveo-u280", "frontier", "npu-pim", "v100-sxm2")


def cases() -> list[problems.Problem]:
    return [
        problems.gemm(4096, 4096, 4096),
        problems.gemm(8, 8192, 1024, batch=3),
        problems.gemv(8192, 8192),
        problems.softmax(100_000, rows=7),
        problems.softmax(2**26),
        problems.attention(8192, 128),
        problems.attention(8192, 64, heads=32, kv_heads=8, batch=2, causal=True),
        problems.decode_attention(8192, 128, heads=64, kv_heads=8, batch=16, splits=4),
        problems.fft(2**20, batch=3),
        problems.monarch(2**20, order=3),
        problems.scan(2048, 8192, 16, batch=2),
    ]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("problem", cases(), ids=lambda p: p.operator)
def test_no_loop_beats_the_bound_on_any_memory(problem: problems.Problem, machine: str) -> None:
    found = bounds_on(problem, build_machine(system(machine)), "fp32" if problem.operator == "fft" else "bf16")
    assert found.boundaries
    for b in found.boundaries:
        assert b.lower_bound >= problem.compulsory * found.element_bytes * (1 - 1e-12)
        assert b.gap >= 1 - 1e-12
        assert b.achievable == min(b.algorithms.values())
        assert b.intensity == pytest.approx(problem.flops / b.achievable)
    assert found.seconds >= found.compute_seconds > 0


def test_levels_are_the_memories_of_the_device() -> None:
    found = bounds(problems.attention(32768, 128), "h100")
    names = [(b.memory, b.source) for b in found.boundaries]
    assert names == [("shared", "l2"), ("l2", "hbm"), ("hbm", "host")]
    shared, l2, _ = found.boundaries
    assert shared.parts == 132  # each unit keeps what fits in its own
    fast = 228 * 1024 / 2
    rows = att.flash2_rows(128, fast)
    assert shared.achievable == 2 * att.flash2(32768, 32768, 128, rows)
    assert shared.lower_bound == pytest.approx(2 * att.attention_scores_bound(32768.0**2, 128, fast, parts=132))
    assert l2.lower_bound == 2 * att.attention_compulsory(32768, 32768, 128)
    assert l2.seconds == pytest.approx(l2.achievable / 3.35e12)
    assert found.roof == "compute"
    assert bounds(problems.gemv(8192, 8192), "h100").roof == "hbm"


def test_a_what_if_on_the_machine_moves_the_roof() -> None:
    problem = problems.gemm(256, 8192, 8192)
    slow = bounds(problem, "h100", changes={"hbm_bandwidth": "1 TB/s"})
    assert (bounds(problem, "h100").roof, slow.roof) == ("hbm", "hbm")
    assert bounds(problem, "h100", changes={"hbm_bandwidth": "x10"}).roof == "compute"
    assert slow.boundaries[1].seconds == pytest.approx(slow.boundaries[1].achievable / 1e12)


def test_grouped_heads_share_what_is_read() -> None:
    plain: OperatorBounds = bounds(problems.attention(8192, 128, heads=8), "h100")
    grouped = bounds(problems.attention(8192, 128, heads=8, kv_heads=1), "h100")
    assert grouped.boundaries[1].lower_bound == plain.boundaries[1].lower_bound * 9 / 16
    decode = bounds(problems.decode_attention(100_000, 128, heads=64, kv_heads=8, batch=32), "h100")
    assert decode.boundaries[1].intensity == pytest.approx(8.0, rel=1e-3)


def test_a_batch_of_products_is_bounded_as_one_schedule() -> None:
    one = problems.gemm(4096, 4096, 4096).bound(1e4, 1.0)
    many = problems.gemm(4096, 4096, 4096, batch=5).bound(1e4, 1.0)
    assert many == pytest.approx(5 * one + 4 * 2e4)
    assert one == matmul.gemm_lower_bound(4096, 4096, 4096, 1e4)


@pytest.mark.parametrize("name", collectives.BOUNDS)
@pytest.mark.parametrize(("machine", "ranks"), [("dgx-h100", 8), ("dgx-h100", 64), ("frontier", 2), ("frontier", 512)])
def test_collectives_on_a_machine(name: str, machine: str, ranks: int) -> None:
    for size in (1e3, 1e9):
        found = collective(name, ranks, size, machine)
        assert found.bound > 0
        assert all(r.ratio >= 1 - 1e-12 for r in found.rows)
        assert [r.seconds for r in found.rows] == sorted(r.seconds for r in found.rows)
        assert found.modelled is None or found.modelled >= found.bound * (1 - 1e-12)


def test_small_messages_choose_few_rounds_and_large_ones_little_data() -> None:
    small, large = (collective("all-reduce", 8, size, "frontier").rows[0].algorithm for size in (100.0, 1e9))
    assert small == "recursive doubling"
    assert large in ("ring", "recursive halving and doubling")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: problems.gemm(0, 1, 1),
        lambda: problems.fft(1000),
        lambda: problems.attention(128, 64, heads=8, kv_heads=3),
        lambda: bounds(problems.gemv(8, 8), "h100", format="bf17"),
        lambda: collective("all-reduce", 1, 1e6, "dgx-h100"),
        lambda: collective("all-reduce", 10**7, 1e6, "dgx-h100"),
        lambda: studies.roofline("llama-2-7b", "h100", "chat", phase="training"),
        lambda: studies.roofline("llama-2-7b", "h100", "chat", columns={"tq": 2}),
    ],
)
def test_mistakes_are_one_message(ask) -> None:
    with pytest.raises(PerfmodelError):
        ask()


# --- rooflines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hw", "workload", "columns"),
    [
        ("llama-2-70b", "h100", "chat", {"tp": 8, "batch": 64}),
        ("mixtral-8x7b", "mi300x-8x", "chat", {"tp": 2, "ep": 4, "batch": 32}),
        ("jamba-1.5-mini", "h200", "chat", {"batch": 8}),
        ("llama-2-7b", "dgx-h100", "pretrain", {"tp": 2}),
    ],
)
def test_rows_are_those_of_the_plan(name: str, hw: str, workload: str, columns: dict[str, int]) -> None:
    found = studies.roofline(name, hw, workload, columns=columns)
    assert [p.phase for p in found.passes] == (["training"] if workload == "pretrain" else ["prefill", "decode"])
    for one in found.passes:
        assert sum(r.share for r in one.rows) == pytest.approx(1.0)
        assert one.seconds == pytest.approx(sum(r.seconds for r in one.rows))
        assert len({(r.operator, r.sizes) for r in one.rows}) == len(one.rows)
        for r in one.rows:
            assert r.seconds >= r.bound_seconds
            assert r.attainable <= max(one.peaks.values()) * (1 + 1e-12)
            assert list(r.intensity) == [f.memory for f in one.roofs]
            nearest_first = list(r.intensity.values())
            assert nearest_first == sorted(nearest_first), "a larger memory keeps more"


def test_decode_time_is_that_of_the_estimate() -> None:
    columns = {"tp": 8, "batch": 64}
    (decode,) = studies.roofline("llama-2-70b", "dgx-h100", "chat", phase="decode", columns=columns).passes
    plan = api.estimate("llama-2-70b", "dgx-h100", "chat", columns=columns).plan
    terms = {t.name: t.busy_seconds for t in plan.terms}
    weights = sum(r.seconds for r in decode.rows if r.operator.endswith("weights"))
    assert weights == pytest.approx(terms["matrix multiply"], rel=1e-6)
    for name in ("attention", "elementwise", "output head"):
        assert sum(r.seconds for r in decode.rows if r.operator == name) == pytest.approx(terms[name], rel=1e-6)


def test_operations_of_a_training_pass_are_three_times_forward() -> None:
    (one,) = studies.roofline("llama-2-7b", "h100", "pretrain", columns={}).passes
    products = sum(r.flops for r in one.rows if "weights" in r.operator or "head" in r.operator)
    forward = sum(
        r.flops for r in one.rows if "backward" not in r.operator and r.operator.endswith(("weights", "head"))
    )
    assert products == pytest.approx(3 * forward)
    parameters = model("llama-2-7b").parameters
    assert forward / (2 * 4096 * parameters) == pytest.approx(0.98, abs=0.02)  # the embedding multiplies nothing


def test_attention_on_another_engine_is_under_that_engine_s_roofs() -> None:
    columns = {"batch": 32, "attention_engine": "pim"}
    (decode,) = studies.roofline("llama-2-7b", "npu-pim", "chat", phase="decode", columns=columns).passes
    rows = {r.operator: r for r in decode.rows}
    assert rows["attention"].engine == "pim"
    assert rows["mlp weights"].engine == "main"
    assert math.isfinite(rows["attention"].attainable)
