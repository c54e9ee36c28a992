"""Training tables: rows read, runs predicted, constants recovered. The rows are published; each says where."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.training import blocks, framework_of, predict, stated_constants
from perfmodel.calibration.training_fit import fit_times
from perfmodel.calibration.training_rows import HEADER, TrainingRow, architecture_of, network_per_node, read_row
from perfmodel.calibration.training_sources import sources
from perfmodel.calibration.training_validate import kendall, roc_auc
from perfmodel.calibration.training_write import with_constants
from perfmodel.calibration.validate import validate
from perfmodel.specs.framework import TrainingFramework
from perfmodel.specs.load import parse
from perfmodel.specs.locate import find_framework
from perfmodel.specs.yamlfile import read
from perfmodel.techniques.sharding import ALL

GPT_175B = {
    "case_id": "gpt3-175B", "source": "Korthikanti 2022 arXiv 2205.05198 Table 5", "model_name": "gpt3-175B",
    "layers": "96", "hidden": "12288", "heads": "96", "kv_heads": "96", "ffn_hidden": "49152", "gated_mlp": "0",
    "seq_len": "2048", "gpus": "64", "gpu_type": "A100-SXM", "gpus_per_node": "8", "precision": "fp16", "tp": "8",
    "sp": "0", "cp": "1", "pp": "8", "vpp": "3", "dp": "1", "zero_stage": "0", "micro_batch": "1",
    "global_batch": "64", "recompute": "full", "flash_attention": "0", "step_time_s": "18.13",
}  # fmt: skip
"""Full recomputation: 18.13 s a step."""


def row(**changes: str) -> TrainingRow:
    return read_row(2, {**GPT_175B, **changes})


def table(path: Path, rows: list[Mapping[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({*HEADER, *GPT_175B, *(name for r in rows for name in r)}))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_published_row_is_read_and_predicted() -> None:
    found = row()
    assert found.setup.framework == "megatron-lm"
    assert found.columns["virtual"] == 3.0
    assert found.columns["sequence_parallel"] == 0.0
    assert found.setup.architecture.parameters == pytest.approx(175e9, rel=0.01)
    seconds = predict(blocks([found])).seconds[0]
    assert seconds == pytest.approx(18.13, rel=0.09)


def test_rows_of_one_setup_agree_with_rows_alone() -> None:
    rows = [row(), row(recompute="selective", sp="1"), row(global_batch="128"), row(tp="4", pp="16", vpp="1")]
    together = predict(blocks(rows))
    alone = [predict(blocks([r])) for r in rows]
    assert together.seconds == pytest.approx([p.seconds[0] for p in alone], rel=1e-12)
    assert together.memory == pytest.approx([p.memory[0] for p in alone], rel=1e-12)


def test_zero_stages_are_groups() -> None:
    groups = [row(dp="2", gpus="128", zero_stage=str(stage)).columns for stage in range(4)]
    names = ("optimizer_group", "gradients_group", "weights_group")
    assert [sum(c[n] == ALL for n in names) for c in groups] == [0, 1, 2, 3]


def test_step_time_from_tokens_and_from_flops() -> None:
    tokens = 64 * 2048
    assert row(step_time_s="", tokens_per_s_total=str(tokens / 7.0)).step_time == pytest.approx(7.0)
    h, layers, v = 12288, 96, 51200
    flops = 96 * tokens * layers * h**2 * (1 + 2048 / (6 * h) + v / (16 * layers * h))
    definition = "96*B*s*l*h^2(1+s/6h+V/16lh)"
    rate = {"tflops_per_gpu": str(flops / (7.0 * 64e12)), "flops_definition": definition}
    assert row(step_time_s="", **rate).step_time == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"notes": "INCONSISTENT"}, "INCONSISTENT"),
        ({"gpu_type": "abacus"}, "no machine"),
        ({"hidden": "", "layers": "", "model_name": "GPT-xyz"}, "no model is called GPT-xyz"),
        ({"global_batch": ""}, "global batch"),
        ({"gpus": "65"}, "do not multiply"),
        ({"recompute": "sometimes"}, "not a known policy"),
    ],
)
def test_rows_without_a_prediction_say_why(changes: Mapping[str, str], reason: str) -> None:
    with pytest.raises(Unpredictable, match=reason):
        row(**changes)


def test_sizes_tell_whether_the_vocabulary_has_one_table() -> None:
    llama = {"layers": "16", "hidden": "2048", "heads": "32", "ffn_hidden": "8192", "vocab": "131072", "gated_mlp": "1"}
    assert architecture_of({**llama, "params_b": "1.34"}).tied  # Ultra-Scale Playbook, 1B
    assert not architecture_of({**llama, "params_b": "1.61"}).tied


def test_interfaces_of_a_node() -> None:
    assert network_per_node("RoCE 1600 Gb/s per node") == 200e9
    assert network_per_node("Slingshot-11 4x200Gb/s per node") == 100e9
    assert network_per_node("AWS EFA") is None


def test_every_source_names_software_and_machines_that_exist() -> None:
    known = sources()
    for entry in known.entries:
        assert framework_of(entry.framework)
        assert entry.why
    for fit in known.fits:
        assert framework_of(fit.framework)
        assert len(fit.times) <= 12


def test_constants_are_recovered_from_runs_made_with_them() -> None:
    counts = [(m, d) for m in (1, 2, 4) for d in (1, 2, 4)]
    rows = [row(micro_batch=str(m), dp=str(d), gpus=str(64 * d), global_batch="256") for m, d in counts]
    prepared = blocks(rows)
    truth = {"product_scale": 1.15, "gradient_exposed": 1.5}
    made = predict(prepared, lambda b: {**stated_constants(b), **truth}).seconds
    runs = [TrainingRow(**{**vars(r), "step_time": float(t)}) for r, t in zip(rows, made, strict=True)]
    fitted = fit_times(runs, tuple(truth), stated_constants)
    assert fitted.errors["median_abs_error"] < 0.01
    assert fitted.values["product_scale"] == pytest.approx(1.15, abs=0.03)


def test_a_framework_file_takes_fitted_constants(tmp_path: Path) -> None:
    text = find_framework("llm-foundry").read_text()
    values = {"product_scale": 0.9, "hand_over": 2e-3, "attention_scale@hopper": 3.3, "product_scale@fp8": 0.7}
    path = tmp_path / "mine.yaml"
    path.write_text(with_constants(text, values, source="three runs", spread=0.1))
    mine = parse(TrainingFramework, read(path))
    assert mine.constants["product_scale"] == 0.9
    assert mine.constants["hand_over"] == pytest.approx(2e-3)
    assert mine.on("hopper", "bf16")["attention_scale"] == 3.3
    assert mine.on("ampere", "bf16")["attention_scale"] == framework_of("llm-foundry").constants["attention_scale"]
    assert mine.on("hopper", "fp8")["product_scale"] == 0.7


def test_scores() -> None:
    a = np.arange(6.0)
    assert kendall(a, a) == 1.0
    assert kendall(a, -a) == -1.0
    assert roc_auc(a, a > 3) == 1.0
    assert roc_auc(np.zeros(6), a > 3) == 0.5


def test_validate_reports_training_tables(tmp_path: Path) -> None:
    rows = [GPT_175B, {**GPT_175B, "gpu_type": "abacus"}]
    reports = [r.data() for r in validate([table(tmp_path / "runs.csv", rows)])]
    times = [r for r in reports if r["metric"] == "step_time"]
    assert sum(r["rows"] for r in times) == 2
    assert sum(r["predicted"] for r in times) == 1
    assert all(math.isfinite(r["median_abs_error"]) for r in times if r["predicted"])
