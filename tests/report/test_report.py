"""Sentences, tables and pages from an answer built by hand: every figure can be checked by eye."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from perfmodel.api import Answers, Request
from perfmodel.insight.setting import Question
from perfmodel.report import jsonable, markdown, screen, tables, verdict
from perfmodel.report.words import View, apportion, degrees_text, percent, shares, spaced
from perfmodel.solver.result import (
    Answer,
    Certificate,
    Degree,
    EvaluatedPlan,
    Interval,
    LedgerLine,
    ParetoPoint,
    Rejected,
    Rival,
    ScalingRow,
    StageLedger,
    TermRow,
)
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.specs.system import load_system
from perfmodel.specs.workload import load_workload
from perfmodel.units import format_count, format_number, format_seconds

GIB = 2.0**30


def plan_of(seconds: float = 10.0, devices: int = 16) -> EvaluatedPlan:
    lines = (
        LedgerLine("weights", "hbm", 20.04 * GIB),
        LedgerLine("activations", "hbm", 30.04 * GIB),
        LedgerLine("runtime", "hbm", 10.04 * GIB),
    )
    ledger = StageLedger("first", lines, {"hbm": 60.12 * GIB}, {"hbm": 80.0 * GIB})
    return EvaluatedPlan(
        columns={"devices": float(devices), "tp": 4.0, "pp": 2.0, "micro_batch": 1.0, "optimizer_group": 2.0**40},
        degrees=(Degree("tensor", 4, "node"), Degree("data", 2, "pod"), Degree("stage", 2, "pod")),
        summary=("tensor parallel: tp 4", "pipeline parallel: pp 2, virtual 4", "ZeRO-1", "no recomputation"),
        devices=devices,
        seconds=seconds,
        metrics={
            "tokens_per_second_per_device": 1234.5,
            "mfu": 0.456,
            "run_days": 12.5,
            "expected_days": 13.5,
            "goodput": 0.926,
            "expected_node_hours": 600.0,
            "expected_device_hours": 4800.0,
            "expected_energy_mwh": 3.4,
            "expected_cost_usd": 9600.0,
            "expected_co2_tonnes": None,
            "average_power_kw": 10.0,
            "peak_power_kw": 12.5,
            "power_headroom": 0.04,
            "micro_batches": 64.0,
        },
        terms=(
            TermRow("matrix multiply", "compute", 7.0, 7.0, 0.7),
            TermRow("tensor sync", "network", 2.999, 3.0, 0.2999),
            TermRow("step overhead", "idle", 0.001, 0.001, 0.0001),
        ),
        timed_seconds=10.0,
        bound_seconds=5.0,
        ledgers=(ledger,),
        bottleneck="compute",
        interval=Interval(9.0, 11.5, "gemm fitted, 80 % half-widths matrix 10%"),
        constraints={"hbm memory": 0.75},
        power={"idle": 1.0, "active": 2.0, "compute": 4.0, "node": 3.0, "network": 0.0},
        interruptions={
            "mtbf_seconds": 5 * 86400.0,
            "checkpoint_bytes": 900 * GIB,
            "write_seconds": 60.0,
            "interval_seconds": 7200.0,
            "goodput": 0.926,
            "checkpoint_share": 0.01,
            "repair_share": 0.03,
            "redo_share": 0.034,
        },
    )


@pytest.fixture(scope="module")
def answers() -> Answers:
    best = plan_of()
    certificate = Certificate(
        1000, 5, 300, 300, {"hbm memory": 700}, {"hbm memory": 10}, (("tp", 4),), True, "time", 0.05, 0.8, 0.01, 0.02
    )
    over = replace(best, ledgers=(best.ledgers[0]._replace(totals={"hbm": 96 * GIB}),), constraints={"hbm memory": 1.2})
    answer = Answer(
        phase="training",
        workload="pretrain",
        best=best,
        runners_up=(Rival(plan_of(10.5), 1.05, (("tensor sync", 0.5),)),),
        rejected=(Rejected("hbm memory", 1.2, over, 10, "needs 1.20 × the hbm memory"),),
        scaling=(ScalingRow(8, 19.0, 1.0, False), ScalingRow(16, 10.0, 0.95, True), ScalingRow(32, 6.0, 0.79, False)),
        pareto=(ParetoPoint(100.0, 10.0, {"tp": 4.0, "pp": 1.0}),),
        pareto_axes=("tokens/s", "tokens/s/device"),
        certificate=certificate,
        assumptions=(("keeps 90% of the best", "--devices"),),
        provenance=(("peak 989 TFLOP/s", "datasheet", "somewhere"),),
    )
    request = Request("llama70b", "dgx-h100", "pretrain", Question())
    model, system = load_model(find_model("llama70b")), load_system("dgx-h100")
    return Answers(request, model, system, (answer,), (load_workload("pretrain"),))


def text_of(found: Answers, width: int = 100) -> str:
    return "\n".join(line.plain for line in screen.plan(found, screen.Page(width, "#", ".")))


def test_numbers() -> None:
    assert [format_number(v) for v in (0.0, 0.99996, 1234.5, 999.6, 1e-5)] == [
        "0",
        "1.00",
        "1,230",
        "1,000",
        "0.0000100",
    ]
    assert [format_seconds(v) for v in (0.0, 0.9996, 59.0, 700.0, 1e9)] == [
        "0 s", "1.00 s", "59.0 s", "11.7 min", "31.7 years",
    ]  # fmt: skip
    assert [format_count(v, 4) for v in (999, 68_976_648_192, 1e12)] == ["999", "68.98 B", "1 T"]
    assert [percent(v, 1) for v in (0.5, 0.0004, 0.0)] == ["50.0 %", "< 0.1 %", "0.0 %"]
    assert shares(12.0) == "12.0 ×"
    assert spaced("90% of 5 %") == "90 % of 5 %"


def test_parts_add_up_to_the_sum_as_printed() -> None:
    values = [20.04, 30.04, 10.04]
    assert sum(map(float, apportion(values, 1))) == pytest.approx(60.1)
    row = tables.ledger_rows(plan_of().ledgers[0])[0]
    assert sum(float(text) for _, text in row.lines) == pytest.approx(float(row.total))
    assert row.total == "60.1"


def test_the_product_of_the_degrees_is_visible() -> None:
    assert degrees_text(plan_of().degrees) == "tp 4 (node) × dp 2 (pod) × pp 2 (pod) = 16"
    assert degrees_text(()) == "one device, no parallelism"


def test_the_screen_says_it_all(answers: Answers) -> None:
    text = text_of(answers)
    for said in (
        "Use 16 H100 SXM GPUs (2 nodes): 10.0 s/step (80 % interval 9.00 to 11.5 s), 1,230 tokens/s/GPU, MFU",
        "1 T tokens: 13.5 days with failures (12.5 days without, goodput 92.6 %), 600 node-hours",
        "64 micro-batches of 1, 4 virtual stages",
        "bound by compute; 2.00 × the physical lower bound",
        "= 60.1 of 80.0 GiB (75 %)",
        "[16]",
        "+5.0 %  same degrees: 10.5 s/step; loses on tensor sync +500 ms",
        "hbm memory 96.0 of 80.0 GiB (1.20 ×)",
        "best of the plans kept in 80 % of draws",
        "1,000 plans over 1 axes, all judged in 20 ms, 300 legal",
        "keeps 90 % of the best [--devices]",
        "--pin optimizer_group=all",
    ):
        assert " ".join(said.split()) in " ".join(text.split())
    assert "step overhead" not in text, "below 0.1 %"


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_page(answers: Answers, width: int) -> None:
    wide = [line for line in text_of(answers, width).splitlines() if len(line) > max(width, 80)]
    assert wide == []


def test_markdown_says_the_same_and_who_made_it(answers: Answers) -> None:
    text = markdown.render(answers, "perfmodel plan --model llama70b --hw dgx-h100")
    assert "perfmodel plan --model llama70b --hw dgx-h100" in text.splitlines()[:8]
    view = View(answers.model, answers.system, answers.request, answers.workloads[0])
    best = answers.answers[0].best
    assert best is not None
    for sentence in (*verdict.verdict(view, best), *verdict.running(view, best)):
        assert sentence in text
    for row in (
        "| **16** | 10.0 | 95 % |",
        "| hbm memory | 700 | 10 |",
        "| peak 989 TFLOP/s | datasheet | somewhere |",
    ):
        assert row in text
    tables_of = [line.count(" | ") for line in text.splitlines() if line.startswith("|")]
    assert min(tables_of) >= 1


def test_json_has_no_numbers_that_json_has_not(answers: Answers) -> None:
    odd = replace(answers.answers[0], pareto=(ParetoPoint(float("inf"), float("nan"), {}),))
    data = jsonable.plan(replace(answers, answers=(odd,)))
    text = json.dumps(data, allow_nan=False)
    point = json.loads(text)["answers"][0]["pareto"][0]
    assert (point["x"], point["y"]) == (None, None)


def test_an_impossible_answer_says_what_binds_and_what_would_do(answers: Answers) -> None:
    none = replace(
        answers.answers[0],
        best=None,
        runners_up=(),
        scaling=(),
        pareto=(),
        possible_with=("more devices: --devices 32",),
    )
    text = text_of(replace(answers, answers=(none,)))
    assert "No plan is possible on 1,024 H100 SXM GPUs (128 nodes) for pretrain" in text
    assert "hbm memory 96.0 of 80.0 GiB" in text
    assert "--devices 32" in text
    assert "--set hbm_capacity=x1.23" in text
    assert "No plan is possible" in markdown.render(replace(answers, answers=(none,)), "perfmodel plan")
