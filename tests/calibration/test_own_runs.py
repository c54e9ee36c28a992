"""Serving runs of one's own: few columns, and files of one's own where names would stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import perfmodel
from perfmodel.calibration.validate import validate
from perfmodel.cli.main import run

HEAD = "framework,model,system,precision,isl,osl,tp_size,concurrency,ttft_ms,tpot_ms,source\n"
MODEL = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_model_file_and_a_machine_file_stand_for_names(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(MODEL), encoding="utf-8")
    machine = Path(perfmodel.__file__).parents[1] / "hardware_specs" / "clusters" / "h100-4x.yaml"
    own = f"vllm,{config},{machine},,1024,128,1,8,100,8.5,mine\n"
    named = "vllm,meta-llama/Llama-3.1-8B,h100-4x,,1024,128,1,8,100,8.5,mine\n"
    table = tmp_path / "runs.csv"
    table.write_text(HEAD + own + named, encoding="utf-8")
    first, second = (r for r in validate([str(table)]) if r.metric == "tpot")
    assert (first.rows, first.predicted, second.predicted) == (1, 1, 1)
    assert first.mean_error == pytest.approx(second.mean_error, rel=1e-9)
    assert abs(first.mean_error) < 0.5


def test_what_is_not_known_is_counted_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "runs.csv"
    table.write_text(
        HEAD
        + "vllm,no-such-model,h100-4x,,1024,128,1,8,100,8.5,mine\n"
        + "vllm,meta-llama/Llama-3.1-8B,no-such-box,,1024,128,1,8,100,8.5,mine\n"
        + "no-such-engine,meta-llama/Llama-3.1-8B,h100-4x,,1024,128,1,8,100,8.5,mine\n"
        + "vllm,meta-llama/Llama-3.1-8B,h100-4x,,1024,128,1,8,-5,nan,mine\n",
        encoding="utf-8",
    )
    assert run(["validate", str(table)]) == 0
    text = capsys.readouterr().out
    for name in ("no-such-model", "no-such-box", "no-such-engine", "neither time is stated"):
        assert name in text
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert run(["validate", str(tmp_path / "odd.csv")]) == 0
    assert "docs/serving.md" in capsys.readouterr().out
