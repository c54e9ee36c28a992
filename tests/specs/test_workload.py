"""Workloads, recipes and frameworks: shipped ones load, bad ones say why."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.errors import SpecError, UnknownName
from perfmodel.specs.framework import ServingFramework, TrainingFramework, load_framework
from perfmodel.specs.locate import framework_names, workload_names
from perfmodel.specs.workload import (
    ServingWorkload,
    TrainingWorkload,
    load_recipe,
    load_workload,
    recipe_names,
    revise,
)

TRAINING = """\
name: mine
kind: training
sequence: 2048
global_batch: 2 Mtokens
tokens: 300e9
recipe: mixed-bf16
"""
SERVING = """\
name: mine
kind: serving
prompt: 1000
output: 200 tokens
shared_prefix: 100
rate: 10 requests/s
slo: {ttft: 500 ms, e2e: 1 min}
kv_format: fp8
concurrency: 64
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_every_shipped_workload_loads() -> None:
    names = {entry.name for entry in workload_names()}
    assert names >= {"pretrain", "finetune", "chat", "rag", "batch"}
    for name in names:
        assert load_workload(name).name == name


def test_pretrain_is_a_thousand_sequences() -> None:
    work = load_workload("pretrain")
    assert isinstance(work, TrainingWorkload)
    assert (work.sequence, work.global_batch, work.sequences, work.tokens) == (4096, 4194304, 1024, 10**12)
    assert work.steps == pytest.approx(1e12 / 4194304)


def test_chat_has_its_limits() -> None:
    work = load_workload("chat")
    assert isinstance(work, ServingWorkload)
    assert (work.prompt, work.output, work.slo.ttft, work.slo.tpot, work.slo.e2e) == (1024, 256, 1.0, 0.05, None)
    assert (work.rate, work.kv_format, work.concurrency) == (None, "bf16", None)


@pytest.mark.parametrize(
    ("name", "total"), [("mixed-bf16", 18), ("bf16-grads", 16), ("pure-bf16", 8), ("fp32-accumulate", 16)]
)
def test_recipes_cost_what_is_published(name: str, total: float) -> None:
    assert load_recipe(name).total_bytes == total


def test_mixed_bf16_state_by_state() -> None:
    recipe = load_recipe("mixed-bf16")
    assert (recipe.name, recipe.weights, recipe.gradients, recipe.optimizer_bytes) == ("mixed-bf16", 2, 4, 12)
    assert list(recipe.optimizer) == ["master", "momentum", "variance"]
    assert "mixed-bf16" in recipe_names()


def test_a_user_writes_units(tmp_path: Path) -> None:
    work = load_workload(written(tmp_path, SERVING))
    assert isinstance(work, ServingWorkload)
    assert (work.rate, work.slo.ttft, work.slo.e2e, work.kv_format, work.concurrency) == (10, 0.5, 60, "fp8", 64)
    assert (work.output, work.shared_prefix) == (200, 100)


def test_a_user_writes_a_recipe(tmp_path: Path) -> None:
    own = "{compute: fp8, weights: bf16, gradients: 2 B, optimizer: {momentum: 1.016 B}}"
    text = TRAINING.replace("mixed-bf16", own).replace("2 Mtokens", "2097152")
    work = load_workload(written(tmp_path, text))
    assert isinstance(work, TrainingWorkload)
    assert work.recipe.total_bytes == pytest.approx(5.016)
    assert work.recipe.name == "own"


BAD = {
    "whole sequences": (TRAINING, "", "", 4, "global_batch", "nearest: 1998848 or 2000896"),
    "wrong unit": (SERVING, "500 ms", "500 MB", 7, "slo.ttft", "unit"),
    "no unit": (SERVING, "500 ms", "0.5", 7, "slo.ttft", "unit is missing"),
    "rate in Hz": (SERVING, "10 requests/s", "10 Hz", 6, "rate", "requests/s"),
    "negative": (SERVING, "1000", "-1000", 3, "prompt", "greater than zero"),
    "zero rate": (SERVING, "10 requests/s", "0 requests/s", 6, "rate", "greater than zero"),
    "part of a token": (SERVING, "1000", "1000.5", 3, "prompt", "whole number"),
    "truth": (SERVING, "1000", "true", 3, "prompt", "a number is needed"),
    "long prefix": (
        SERVING,
        "shared_prefix: 100",
        "shared_prefix: 1000",
        5,
        "shared_prefix",
        "shorter than the prompt",
    ),
    "unknown format": (SERVING, "kv_format: fp8", "kv_format: fp9", 8, "kv_format", "did you mean"),
    "misspelt key": (SERVING, "prompt:", "promt:", None, None, "did you mean `prompt`"),
    "percentile of nothing": (
        SERVING,
        "{ttft: 500 ms, e2e: 1 min}",
        "{percentile: 90}",
        7,
        "slo.percentile",
        "no limit",
    ),
    "percentile as a share": (
        SERVING,
        "{ttft: 500 ms, e2e: 1 min}",
        "{ttft: 1 s, percentile: 0.9}",
        7,
        "slo.percentile",
        "50 to 99.99",
    ),
    "misspelt limit": (SERVING, "ttft", "tfft", 7, "slo.tfft", "did you mean `ttft`"),
    "unknown kind": (SERVING, "kind: serving", "kind: servin", 2, "kind", "did you mean `serving`"),
    "no kind": (SERVING, "kind: serving\n", "", None, "kind", "training, serving"),
    "other kind": (SERVING, "kind: serving", "kind: training", None, None, "unknown key `prompt`"),
    "unknown recipe": (TRAINING, "mixed-bf16", "mixed-bf61", 6, "recipe", "nearest: mixed-bf16"),
    "a step is more": (TRAINING, "300e9", "1e6", None, None, "sequences"),
    "recipe without states": (TRAINING, "mixed-bf16", "{compute: bf16}", 6, "recipe.weights", "missing"),
    "recipe by number": (
        TRAINING,
        "mixed-bf16",
        "{compute: bf16, weights: 2, gradients: bf16, optimizer: {}}",
        6,
        "recipe.weights",
        "unit is missing",
    ),
    "recipe of huge states": (
        TRAINING,
        "mixed-bf16",
        "{compute: bf16, weights: 2 kB, gradients: bf16, optimizer: {}}",
        6,
        "recipe.weights",
        "up to 64 B",
    ),
    "list for a mapping": (SERVING, "{ttft: 500 ms, e2e: 1 min}", "[1 s]", 7, "slo", "mapping"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_workloads(case: str, tmp_path: Path) -> None:
    text, old, new, line, field, part = BAD[case]
    path = written(tmp_path, text.replace(old, new, 1) if old else text)
    with pytest.raises(SpecError) as caught:
        load_workload(path)
    error = caught.value
    assert error.file == str(path)
    assert part in str(error)
    if line:
        assert (error.line, error.field) == (line, field)


def test_revise_changes_and_checks() -> None:
    chat = load_workload("chat")
    new = revise(chat, {"rate": "2 requests/s", "slo.ttft": "200 ms", "slo.tpot": None, "prompt": 2048})
    assert isinstance(new, ServingWorkload)
    assert (new.rate, new.slo.ttft, new.slo.tpot, new.prompt, new.output) == (2, 0.2, None, 2048, 256)
    assert revise(new, {}) == new
    longer = revise(load_workload("pretrain"), {"sequence": 8192, "recipe": "pure-bf16"})
    assert isinstance(longer, TrainingWorkload)
    assert (longer.sequences, longer.recipe.total_bytes) == (512, 8)
    with pytest.raises(SpecError, match="did you mean `rate`"):
        revise(chat, {"rat": "1 requests/s"})
    with pytest.raises(SpecError, match=r"slo\.ttft"):
        revise(chat, {"slo.ttft": "3"})


def test_every_shipped_framework_loads() -> None:
    kinds = {entry.name: type(load_framework(entry.name)) for entry in framework_names()}
    assert kinds["megatron-core"] is TrainingFramework
    assert kinds["vllm"] is ServingFramework
    assert all(f"{name}" for name in kinds)


def test_framework_facts_are_sourced() -> None:
    vllm = load_framework("vllm")
    assert isinstance(vllm, ServingFramework)
    assert vllm.facts.memory_utilisation.value == 0.9
    stated = vllm.facts.model_fields_set
    assert all(fact.source in vllm.sources for name, fact in vllm.facts if name in stated)
    with pytest.raises(UnknownName, match="megatron"):
        load_framework("megatrom")
