"""Training runs held out of their fits, pooled into classes, and the mechanisms that stacks differ in."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.calibration.training import blocks, predict, stated_constants
from perfmodel.calibration.training_classes import CLASSES, class_reports
from perfmodel.calibration.training_fit import BOUNDS, FOLDS, folds_of, held_out, held_out_predictions
from perfmodel.calibration.training_rows import TrainingRow, read_row
from perfmodel.calibration.training_sources import FitEntry, sources
from perfmodel.operators.backward import backward_of, casts, unfused
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.report.goals import GOALS, goal_table
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model

GROK = {
    "case_id": "grok", "source": "NVIDIA/dgxc-benchmarking grok1/README.md @ v25.05.05", "model_name": "Grok1-314B",
    "layers": "64", "hidden": "6144", "heads": "48", "kv_heads": "8", "ffn_hidden": "32768", "vocab": "128256",
    "gated_mlp": "1", "experts": "8", "experts_topk": "2", "seq_len": "8192", "gpus": "512", "gpu_type": "H100",
    "gpus_per_node": "8", "precision": "bf16", "tp": "4", "cp": "2", "pp": "8", "vpp": "8", "ep": "8", "dp": "8",
    "zero_stage": "1", "micro_batch": "1", "global_batch": "1024", "step_time_s": "15.933", "notes": "ETP=1",
}  # fmt: skip
"""Printed: 15.933 s a step."""


def row(**changes: str) -> TrainingRow:
    return read_row(2, {**GROK, **changes})


def total(found: TrainingRow, name: str) -> float:
    block = blocks([found])[0]
    return sum(float(t.seconds) for t in block.evaluate(stated_constants(block)).terms if t.name == name)


def test_experts_fold_over_tensor_ranks_only_where_the_table_says_so() -> None:
    """Whole experts on tensor ranks are as many ranks in all, nearer to each other."""
    folded, sliced = row(), row(notes="ETP=4")
    assert folded.columns["ep"] * folded.columns["expert_tensor"] == 8.0
    assert (sliced.columns["ep"], sliced.columns["expert_tensor"]) == (8.0, 1.0)
    assert total(folded, "expert exchange") < 0.5 * total(sliced, "expert exchange")
    assert predict(blocks([folded])).seconds[0] == pytest.approx(15.933, rel=0.13)


def test_experts_in_training_multiply_as_often_as_fused_ones() -> None:
    """Operations and weight gradients are conserved; a backward pass works twice as much."""
    model = load_model(find_model("mixtral-8x7b")).architecture
    sizes = Sizes(sequences=2.0, queries=4096.0, context=4096.0, expert_split=8.0, format="bf16")
    fused = next(c for c in layer_calls(model, sizes) if c.component == "experts")
    plain = [c for c in unfused(fused) if c.work.operator == "gemm"]
    assert sum(c.work.flops for c in plain) == pytest.approx(fused.work.flops, rel=1e-12)
    backward = [b for c in plain for b in backward_of(c)]
    assert sum(b.work.flops for b in backward) == pytest.approx(2.0 * fused.work.flops, rel=1e-12)
    assert not [c for c in plain if casts(c, backward=False)]
    narrow = [c._replace(work=c.work._replace(format="fp8")) for c in plain]
    assert all(casts(c, backward=False) and casts(c, backward=True) for c in narrow)


def test_trial_constants_are_evaluated_together_as_one_by_one() -> None:
    rows = [row(global_batch=str(b), precision=p) for b in (512, 1024) for p in ("bf16", "fp8")]
    trials = {"product_scale": (0.9, 1.1), "tensor_exposed": (0.2, 1.0), "expert_launch": (0.0, 1e-5)}
    columns = {n: np.array(v)[:, None] for n, v in trials.items()}
    together = predict(blocks(rows), lambda b: {**stated_constants(b), **columns})
    assert together.seconds.shape == (2, 4)
    for i in range(2):
        one = {n: v[i] for n, v in trials.items()}
        alone = predict(blocks(rows), lambda b, one=one: {**stated_constants(b), **one})  # type: ignore[misc]
        np.testing.assert_allclose(together.seconds[i], alone.seconds, rtol=1e-12)
        np.testing.assert_allclose(together.memory[i], alone.memory, rtol=1e-12)


def test_a_row_held_out_does_not_move_its_own_prediction() -> None:
    """Layouts that lie in other folds decide; what the row itself measured does not."""
    rows = [row(gpus=str(64 * d), dp=str(d), step_time_s=str(16.0 * 8 / d)) for d in (2, 4, 8, 16, 32)]
    assert len(set(folds_of(rows).tolist())) == FOLDS
    entry = FitEntry(framework="nemo-25.04", times=("product_scale",))
    before = held_out(entry, rows, stated_constants).seconds
    moved = [*rows[:-1], TrainingRow(**{**vars(rows[-1]), "step_time": 9.9 * (rows[-1].step_time or 1.0)})]
    after = held_out(entry, moved, stated_constants).seconds
    assert after[-1] == before[-1]
    assert not np.array_equal(after, before)


def test_alone_a_stack_is_predicted_with_what_is_expected_before_any_fit() -> None:
    found = row()
    entry = next(e for e in sources().fits if e.framework == "nemo-25.04")
    expected = {n: BOUNDS[n].expected for n in entry.times if "@" not in n}
    plain = predict(blocks([found]), lambda b: {**stated_constants(b), **expected}).seconds
    assert held_out_predictions([found]).seconds == pytest.approx(plain, rel=1e-12)


def test_every_class_has_a_goal_and_every_goal_a_class() -> None:
    titles = {g.title for g in GOALS if g.operator == "training class"}
    judged = {c.title for c in CLASSES}
    assert titles <= judged
    assert judged - titles == {"MI325X and MI355X: Primus", "NeMo AutoModel"}


def test_pooled_rows_are_judged_against_their_goal() -> None:
    rows = [("nvidia.csv", row(global_batch=str(b))) for b in (512, 1024)]
    measured = np.array([r.step_time or 0.0 for _, r in rows])
    reports = class_reports(rows, measured * np.array([1.005, 0.97]), np.ones(2))
    assert [r.source for r in reports] == ["DGX Cloud, H100 bf16"]
    assert reports[0].scores["largest_error"] == pytest.approx(0.03)
    table = goal_table([r.data() for r in reports])
    assert any("DGX Cloud, H100 bf16" in line and "| 1/1 | 1/1 |" in line for line in table)
