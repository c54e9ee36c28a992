"""Rows of serving tables: layouts that dumps record wrongly, rows set aside, and what validate says about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.serving_aside import running_share, speculating
from perfmodel.calibration.serving_rows import layout_of, read_row
from perfmodel.calibration.serving_sources import model_of
from perfmodel.calibration.serving_validate import serving_reports
from perfmodel.cli.main import run
from perfmodel.specs.architecture import Moe

COLUMNS = [
    *("id", "framework", "backend_version", "model", "system", "precision", "mode", "isl", "osl", "batch_size"),
    *("tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size", "ttft_ms", "tpot_ms", "concurrency"),
    *("measured_date", "source"),
]
EXPERTS = "deepseek-ai/DeepSeek-R1"
DENSE = "meta-llama/Llama-3.1-70B"


def row(**changes: object) -> dict[str, str]:
    """A serving run of Llama 70B on two H200."""
    usual = {
        "id": "a_tp2_ep1_1", "framework": "vllm", "model": DENSE, "system": "h200_sxm", "precision": "fp8",
        "mode": "agg", "isl": 1024, "osl": 1024, "batch_size": 16, "tp_size": 2.0, "pp_size": 1.0,
        "attention_dp_size": 1.0, "moe_tp_size": 2.0, "moe_ep_size": 1.0, "ttft_ms": 150.0, "tpot_ms": 16.0,
        "concurrency": 16.0, "source": "someone:there",
    }  # fmt: skip
    return {name: str({**usual, **changes}.get(name, "")) for name in COLUMNS}


def table(path: Path, *rows: dict[str, str]) -> Path:
    """Write rows to a table."""
    path.write_text("\n".join([",".join(COLUMNS), *(",".join(r[c] for c in COLUMNS) for r in rows)]) + "\n")
    return path


def layout(**changes: object) -> dict[str, float]:
    """Layout of a row of DeepSeek."""
    given = row(model=EXPERTS, **changes)
    return layout_of(given, model_of(given))


def test_degrees_recorded_as_a_product_are_those_of_the_identifier() -> None:
    """A replica of 8 devices: 64 is 8 tensor ranks times 8 expert ranks, counted twice."""
    plain = layout(id="x_tp8_ep8_1", tp_size=8, moe_tp_size=1, moe_ep_size=8)
    assert layout(id="x_tp8_ep8_1", tp_size=64, moe_tp_size=8, moe_ep_size=8) == plain
    assert (plain["tp"], plain["ep"], plain["expert_tensor"]) == (8, 1, 8)
    shared = layout(id="x_tp8_ep8_1", tp_size=1, attention_dp_size=64, moe_tp_size=8, moe_ep_size=8)
    assert (shared["tp"], shared["ep"], shared["expert_tensor"]) == (1, 8, 1)


def test_ranks_that_do_not_divide_the_heads_are_no_replica() -> None:
    """Twelve tensor ranks cannot share 128 heads: the table counts a whole deployment."""
    with pytest.raises(Unpredictable, match="heads"):
        layout(id="x", tp_size=12, moe_tp_size=12)


def test_weights_are_in_the_recorded_precision() -> None:
    """Released checkpoints of expert models keep attention in 16 bits when the experts have four."""
    four = model_of(row(model=EXPERTS, precision="fp4"))
    assert four.weight_format == "nvfp4"
    assert "attention" in four.unquantised
    assert model_of(row(precision="")).weight_format == "bf16"
    assert any(isinstance(r.layer.ffn, Moe) for r in four.runs)


def test_rows_whose_server_queued_requests_are_set_aside_but_counted(tmp_path: Path) -> None:
    """By Little's law few requests ran when most of a request's life was waiting for its first token."""
    queued = row(ttft_ms=60000.0)
    assert running_share(read_row(2, queued)) < 0.3 < running_share(read_row(2, row()))
    reports = {r.metric: r for r in serving_reports([table(tmp_path / "t.csv", row(), queued)])}
    assert (reports["tpot"].predicted, reports["tpot"].subsets["all rows"]["rows"]) == (1, 2)
    assert reports["throughput"].predicted == 2
    assert any("Little" in reason for reason in reports["ttft"].skipped)


def test_validate_reports_three_metrics_and_every_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a user would run it; nothing that cannot be predicted is dropped silently."""
    rows = (row(), row(mode="disagg"), row(model="nobody/none-7b"), row(system="abacus"), row(isl="inf"), row(osl=""))
    assert run(["validate", "--json", str(table(tmp_path / "t.csv", *rows))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {r["metric"] for r in found} == {"tpot", "ttft", "throughput"}
    for metric in ("tpot", "ttft", "throughput"):
        own = [r for r in found if r["metric"] == metric]
        assert sum(r["rows"] for r in own) == len(rows)
        assert sum(r["predicted"] + sum(r["skipped"].values()) for r in own) == len(rows)


STATIC = "model,gpu,num_gpus,tp,dtype,framework,mode,batch,isl,osl,output_tok_s,unit,ttft_ms,source"
OFFLINE = "model,gpu,num_gpus,tp,pp,attn_dp,parallel,dtype,framework,isl,osl,output_tok_s,source"
TENSORRT = "TensorRT-LLM v1.0 docs"


def reports_of(path: Path, header: str, *lines: str) -> dict[str, float | None]:
    """Error of the middle row by metric."""
    path.write_text("\n".join([header, *lines]) + "\n")
    return {r.metric: r.median_abs_error for r in serving_reports([path])}


def test_static_batches_and_offline_rates_are_read(tmp_path: Path) -> None:
    """Published TensorRT-LLM rates (docs/source/performance.md and perf-overview.md) within their goals."""
    static = "LLaMA 7B,L40S,1,1,fp8,TensorRT-LLM v0.5,static batch,64,128,128,3240,total,,NVIDIA/TensorRT-LLM@a:b"
    first = "Falcon 180B,A100 80GB,8,8,fp16,TensorRT-LLM v0.5,first token,1,2048,1,,ms,509,NVIDIA/TensorRT-LLM@a:b"
    found = reports_of(tmp_path / "s.csv", STATIC, first)
    assert set(found) == {"ttft"}
    assert found["ttft"] is not None
    assert found["ttft"] < 0.3
    tokens = reports_of(tmp_path / "t.csv", STATIC, static)["throughput"]
    assert tokens is not None
    assert tokens < 0.2
    wide = f"Llama 3.3 70B,H100-SXM5-80GB,2,2,1,1,TP2,fp8,{TENSORRT},500,2000,5222,NVIDIA/TensorRT-LLM@a:b"
    rate = reports_of(tmp_path / "o.csv", OFFLINE, wide)["throughput"]
    assert rate is not None
    assert rate < 0.4


def test_disaggregated_rows_need_their_workers(tmp_path: Path) -> None:
    """With both pools recorded a deployment is predicted as a group of its own; without, any batch is possible."""
    pools = {
        "prefill_num_workers": 2, "prefill_tp_size": 4, "prefill_moe_tp_size": 4, "decode_num_workers": 3,
        "decode_tp_size": 8, "decode_moe_ep_size": 8, "decode_moe_tp_size": 1,
    }  # fmt: skip
    head = [*COLUMNS, *pools]
    given = row(model=EXPERTS, mode="disagg", tp_size="", moe_tp_size="", moe_ep_size="", concurrency=96)
    rows = [{**given, **{n: str(v) for n, v in pools.items()}}, {**given, **dict.fromkeys(pools, "")}]
    path = tmp_path / "pools.csv"
    path.write_text("\n".join([",".join(head), *(",".join(r[c] for c in head) for r in rows)]) + "\n")
    reports = {(r.framework, r.metric): r for r in serving_reports([path])}
    found = reports["vllm, disaggregated", "tpot"]
    assert found.predicted == 1
    assert found.worst[0].sizes["tp"] == 8
    assert any("workers" in reason for reason in reports["vllm", "tpot"].skipped)


def test_data_ranks_are_told_by_the_batches_that_share_the_clients() -> None:
    """Where nothing is recorded, eight batches are eight data ranks; degrees without kernels are none."""
    shared = layout(
        id="x", tp_size=8, attention_dp_size="", moe_tp_size=1, moe_ep_size=8, concurrency=448, batch_size=56
    )
    assert (shared["tp"], shared["ep"]) == (1, 8)
    with pytest.raises(Unpredictable, match="deployment"):
        layout(id="x", tp_size=64, moe_tp_size=64)


def test_cohorts_that_speculate_are_predicted_with_one_stated_length(tmp_path: Path) -> None:
    """Four runs at 0.6 of what kernels allow, of a model with a draft head: set aside, and a group of their own."""
    runs = [row(model=EXPERTS, precision="fp8", tp_size=8, moe_tp_size=8, id="a_tp8_ep1_1", concurrency=c, batch_size=c)
            for c in (4, 8, 16, 32)]  # fmt: skip
    first = {r.metric: r for r in serving_reports([table(tmp_path / "a.csv", *runs)])}["tpot"]
    assert first.subsets["all rows"]["rows"] == 4
    predicted = {w.line: w.predicted for w in first.worst}
    mean = sum(predicted.values()) / len(predicted)
    fast = [{**r, "tpot_ms": str(600.0 * mean)} for r in runs]
    found = {(r.framework, r.metric): r for r in serving_reports([table(tmp_path / "b.csv", *fast)])}
    assert found["vllm", "tpot"].predicted == 0
    assert found["vllm", "tpot"].subsets["all rows"]["rows"] == 4
    assert found["vllm, speculating", "tpot"].predicted == 4


def test_launch_scripts_complete_what_tables_leave_out() -> None:
    """Early dumps record tensor ranks alone: their scripts dealt experts to all, and attention above 32 requests."""
    early = {"framework": "trtllm", "model": EXPERTS, "tp_size": 8.0, "moe_tp_size": 8.0, "measured_date": "2025-11-02"}
    few, many = (read_row(2, row(**early, isl=8192, concurrency=c)) for c in (16.0, 128.0))
    assert (few.columns["tp"], few.columns["ep"], few.columns["expert_tensor"]) == (8, 1, 8)
    assert (many.columns["tp"], many.columns["ep"], dict(many.setup.launch.settings)) == (
        1,
        8,
        {"balanced_passes": 60.0},
    )


def test_scripts_that_draft_say_so() -> None:
    drafting = row(framework="trtllm", model=EXPERTS, tp_size=8.0, moe_tp_size=8.0, measured_date="2026-01-14")
    assert speculating([read_row(2, drafting)], np.array([0.001])) == [0]
    assert not speculating([read_row(2, {**drafting, "measured_date": "2025-12-15"})], np.array([0.001]))
