"""Rows of devices, formats and frameworks that no fit has seen, damaged tables, and what is said about large errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from test_fit import made, table

from perfmodel.calibration.fit import fit_groups
from perfmodel.calibration.model import Key
from perfmodel.calibration.operators import model_named
from perfmodel.calibration.operators.gemm import MODEL
from perfmodel.calibration.rows import read_tables
from perfmodel.calibration.store import Store, constants_of, shipped
from perfmodel.calibration.subjects import engine_of
from perfmodel.calibration.validate import predict_group, validate
from perfmodel.cli.main import run
from perfmodel.report.goals import GOALS, goal_table

HEADERS = {
    "gemm": "device,dtype,m,n,k,time_us,framework,kernel,weight_fits_l2,source",
    "moe": "device,dtype,tokens,hidden,inter,topk,experts,tp,ep,distribution,time_us,framework,kernel,source",
    "mla": "device,phase,dtype,kv_dtype,batch,heads_local,q_len,kv_len,kv_lora_rank,rope_dim,time_us,framework,source",
    "elementwise": "device,dtype,op,rows,cols,bytes_read,bytes_written,time_us,timing,source",
    "prefill": "device,dtype,kv_dtype,batch,q_heads,kv_heads,head_dim,q_len,kv_len,causal,window,time_us,framework,"
    "source",
}
ROWS = {
    "gemm": "h100-sxm,bf16,64,4096,4096,20,vllm,,0,x:y",
    "moe": "h100-sxm,bfloat16,64,4096,1024,2,8,1,1,balanced,90,vllm,,x:y",
    "mla": "h100-sxm,context,bf16,bf16,1,16,512,512,512,64,30,trtllm,x:y",
    "elementwise": "h100-sxm,bf16,rmsnorm,64,4096,524288,524288,5,kernel,x:y",
    "prefill": "h100-sxm,bf16,bf16,1,32,8,128,512,512,1,0,40,vllm,x:y",
}
DAMAGE = ("", "nan", "-1", "0", "inf", "abc", "1e400")


@pytest.mark.parametrize("kind", sorted(HEADERS))
def test_every_damaged_row_is_predicted_or_skipped_with_a_reason(kind: str, tmp_path: Path) -> None:
    """Every value of a row replaced by every sort of damage, and lines that are too short or too long."""
    good, lines = ROWS[kind].split(","), [HEADERS[kind], ROWS[kind]]
    for i in range(len(good)):
        lines += [",".join([*good[:i], bad, *good[i + 1 :]]) for bad in DAMAGE]
    lines += [good[0], "," * 3, ROWS[kind] + ",one,more"]
    path = tmp_path / "damaged.csv"
    path.write_text("\n".join(lines) + "\n")
    reports = validate([path])
    assert sum(r.rows for r in reports) == len(lines) - 1
    assert sum(r.predicted for r in reports) + sum(sum(r.skipped.values()) for r in reports) == len(lines) - 1
    assert sum(r.predicted for r in reports) >= 2
    for r in reports:
        assert r.median_abs_error is None or np.isfinite(r.median_abs_error)


def test_formats_without_a_unit_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [HEADERS["gemm"], *(f"v100-pcie,tf32,{m},4096,4096,90,cublas,,0,x:y" for m in (8, 16, 32))]
    path.write_text("\n".join(rows) + "\n")
    for held_out in (None, "rows", "device"):
        (report,) = validate([path], held_out=held_out)
        assert report.predicted + sum(report.skipped.values()) == 3


@pytest.mark.parametrize("device", ["mi300x", "a100-40gb-sxm", "h200", "gaudi3"])
def test_unseen_devices_and_frameworks_are_predicted(device: str) -> None:
    for operator, format in (("gemm", "bf16"), ("gemm", "fp8"), ("attention", "bf16"), ("moe", "fp8_block")):
        model = model_named(operator)
        chosen = shipped().choose(model, Key(operator, device, format, "unseen/kernel", "elsewhere"))
        assert all(value > 0.0 for name, value in chosen.values.items() if name == "compute_fraction")
        assert set(chosen.interval)
        assert all(low < 0.0 < high for low, high in chosen.interval.values())


def test_a_kernel_goes_with_its_name_to_other_families() -> None:
    """A device of a family where only another framework was measured takes its own framework's kernel from abroad."""
    far, near = made(80, "sglang", "b200", format="w8a16"), made(80, "vllm", "h200", seed=2, format="w8a16")
    slow = near.__class__(**{**near.__dict__, "seconds": 3.0 * near.seconds})
    store = Store(tuple(fit_groups([far, slow])))
    wanted = made(60, "sglang", "h100-sxm", seed=3, format="w8a16")
    found = predict_group(wanted, store)
    assert found.tier == "foreign"
    assert np.median(np.abs(found.seconds / wanted.seconds - 1.0)) < 0.1


def test_weights_taken_in_turn_do_not_stay_in_the_cache(tmp_path: Path) -> None:
    """Six copies of a weight of half the cache come from memory, one copy from the cache."""
    head = HEADERS["gemm"]
    side = 4096  # 32 MiB of bf16 weights, of 50 MiB
    rows = [f"h100-sxm,bf16,1,{side},{side},20,{framework},,1,aiconfigurator:z" for framework in ("sglang", "own")]
    (tmp_path / "turn.csv").write_text("\n".join([head, *rows]) + "\n")
    (read,) = read_tables([tmp_path / "turn.csv"])
    constants = constants_of({"compute_fraction": 0.8, "memory_fraction": 0.8, "launch": 1e-6, "cache_speed": 3.0})
    turned, kept = (float(MODEL.predict(g.columns, engine_of("h100-sxm"), constants, "bf16")[0]) for g in read.groups)
    memory = side**2 * 2.0 / (engine_of("h100-sxm").bandwidth * 0.8)
    assert turned > memory
    assert kept < 0.6 * memory


def test_worst_rows_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "mine.csv", [made(30)])
    assert run(["validate", str(path), "--worst", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("predicted") == text.count("measured") == 2
    assert run(["validate", str(path), "--worst", "7", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    errors = [abs(np.log(w["predicted"] / w["measured"])) for w in report["worst"]]
    assert len(errors) == 7
    assert errors == sorted(errors, reverse=True)
    with path.open(newline="") as file:
        lines = dict(enumerate(csv.DictReader(file), start=2))
    assert all(float(lines[w["line"]]["m"]) == w["sizes"]["m"] for w in report["worst"])


def test_goals_count_the_groups_within_them() -> None:
    kernels = {"gemm", "attention", "decode_attention", "mla", "moe", "elementwise"}
    assert {g.operator for g in GOALS} - kernels == {"collective", "expert_exchange", "training", "training class"}
    for goal in GOALS:
        assert all(a is None or a <= m for a, m in zip(goal.aim, goal.must, strict=True))
    common = {
        "operator": "moe",
        "dtype": "fp8",
        "framework": "vllm",
        "device": "H100",
        "source": "a table",
        "metric": "time",
        "subsets": {},
        "inside": 0.8,
        "predicted": 20,
        "rows": 20,
    }
    good = {**common, "median_abs_error": 0.05, "p90_abs_error": 0.2, "mean_error": -0.01}
    bad = {**good, "mean_error": -0.2}
    few = {**good, "predicted": 9}
    row = goal_table([good, bad, few])[-1]
    assert "| 1/2 | 1/2 | 80% |" in row
