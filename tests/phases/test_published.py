"""Whole steps and memory against published numbers; every row of ``tests/reference`` says where it was read.

The tolerances are what the model reaches, with some room: they catch a step backwards and are not what it is fitted to.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from planning import model

import perfmodel
from perfmodel.operators.state import activations_kept
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.techniques.sharding import ALL

REFERENCE = Path(__file__).parents[1] / "reference"


def rows(name: str) -> list[dict[str, str]]:
    with (REFERENCE / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def estimated(row: dict[str, str], *, recompute: float, shards: float = 1.0, fused: bool = False) -> EvaluatedPlan:
    columns: dict[str, Any] = {n: float(row[n]) for n in ("tp", "pp", "virtual", "micro_batch")}
    sequence = int(row.get("sequence", "2048"))
    batch = int(row["sequences"]) * sequence
    asked = {"sequence": sequence, "global_batch": batch, "tokens": 1000 * batch, "fused_attention": fused}
    return perfmodel.estimate(
        row["model"],
        row["machine"],
        "pretrain",
        columns={**columns, "recompute": recompute, "optimizer_group": shards},
        devices=int(row["devices"]),
        framework=row.get("framework", "megatron-lm"),
        workload_changes=asked,
        changes={"nodes": 560} if row["machine"] == "dgx-a100" else None,
    ).plan


def published_flops(row: dict[str, str]) -> float:
    """Operations of one step as the paper counts them: 96 B s l h^2 (1 + s/6h + V/16lh), recomputation included."""
    architecture = model(row["model"]).architecture
    h, layers, v = architecture.hidden, architecture.layers, 51200
    s, batch = int(row["sequence"]), int(row["sequences"])
    return 96.0 * batch * s * layers * h**2 * (1 + s / (6 * h) + v / (16 * layers * h))


@pytest.mark.parametrize("row", rows("training_steps"), ids=lambda r: r["case"])
def test_published_step_times(row: dict[str, str]) -> None:
    shards = ALL if row["optimizer_group"] == "all" else 1.0
    plan = estimated(row, recompute=float(row["recompute"]), shards=shards, fused=row["fused_attention"] == "yes")
    wanted = float(row["value"])
    if row["unit"] == "TFLOP/s":
        wanted = published_flops(row) / (wanted * 1e12 * int(row["devices"]))
    assert plan.seconds == pytest.approx(wanted, rel=float(row["tolerance"]))
    assert plan.bound_seconds < wanted  # nothing measured is faster than what is claimed impossible


@pytest.mark.parametrize("row", rows("activation_memory"), ids=lambda r: r["case"])
def test_published_activation_memory(row: dict[str, str]) -> None:
    """The fullest stage of 1F1B, interleaved where the paper interleaves."""
    plan = estimated(row, recompute=1.0)
    held = next(line.bytes for line in plan.ledgers[0].lines if line.name == "activations")
    assert held / 2**30 == pytest.approx(float(row["value"]), rel=float(row["tolerance"]))


@pytest.mark.parametrize("row", rows("activation_shares"), ids=lambda r: r["model"])
def test_published_shares_of_activations(row: dict[str, str]) -> None:
    architecture = model(row["model"]).architecture

    def kept(tensor: float, sequence: float) -> Any:
        options = {"weight_split": tensor, "sequence_split": sequence, "context": 2048.0, "materialise": True}
        return activations_kept(architecture, **options)

    plain, sharded = kept(8.0, 1.0), kept(8.0, 8.0)
    base = sum(plain)
    found = {
        "tensor only": base,
        "sequence": sum(sharded),
        "selective": plain.boundary + plain.inner,
        "sequence and selective": sharded.boundary + sharded.inner,
        "full": plain.boundary,
    }
    for name, size in found.items():
        assert 100.0 * size / base == pytest.approx(float(row[name]), rel=float(row["tolerance"])), name
