"""Fleets: equal groups are one cluster, speed draws layers, slow links draw the pipeline, and mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import perfmodel
from perfmodel.errors import PerfmodelError
from perfmodel.insight.fleet import FleetAnswer

SMALL = {"sequence": 2048, "global_batch": 64 * 2048}
FACT = "kind: assumed, source: test"


def fleet_file(folder: Path, groups: dict[str, tuple[str, int]], bandwidth: str, efficiency: float = 0.75) -> Path:
    lines = ["name: test", "sources: {test: a test}", "groups:"]
    lines += [f"  {n}: {{cluster: {c}, nodes: {{value: {k}, {FACT}}}}}" for n, (c, k) in groups.items()]
    lines += ["link:", f"  bandwidth: {{value: {bandwidth}, {FACT}}}", f"  latency: {{value: 8 us, {FACT}}}",
              f"  efficiency: {{value: {efficiency}, {FACT}}}"]  # fmt: skip
    path = folder / "fleet.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def planned(path: Path, model: str = "gpt-3.6b", **pins: Any) -> FleetAnswer:
    return perfmodel.fleet(model, path, workload_changes=SMALL, pin=pins, framework="megatron-core")


def test_equal_groups_are_one_cluster(tmp_path: Path) -> None:
    """Two groups of one node, joined by what joins nodes of the cluster: the step of the cluster's own plan."""
    path = fleet_file(tmp_path, {"a": ("dgx-h100", 1), "b": ("dgx-h100", 1)}, "3.2 Tb/s")
    best = planned(path, tp=4, pp=1, micro_batch=2, recompute=0, sharded=1, kind="pipeline").best
    assert best is not None
    columns = {"tp": 4, "pp": 2, "micro_batch": 2, "optimizer_group": 2.0**40}
    same = perfmodel.estimate("gpt-3.6b", "dgx-h100", "pretrain", columns=columns, devices=16,
                              workload_changes=SMALL, framework="megatron-core").plan  # fmt: skip
    layers = [n for g in best.groups for n in g.layers]
    assert sum(layers) == 30
    assert best.seconds <= same.seconds * (1 + 1e-9), "the even split is one of those considered"
    if layers == [15, 15]:
        mine, theirs = ({t.name: t.seconds for t in p.terms} for p in (best, same))
        shared = set(mine) & set(theirs) - {"pipeline bubble"}  # which holds the hand-over of the other stage
        assert shared >= {"matrix multiply", "gradient sync", "updated weights", "optimizer"}
        assert {n: mine[n] for n in shared} == pytest.approx({n: theirs[n] for n in shared}, rel=1e-9)
        assert set(mine) ^ set(theirs) == {"hand-over between groups", "stage hand-over"}, "which has its own library"
        assert best.seconds == pytest.approx(same.seconds, rel=1e-3)
    assert sum(t.seconds for t in best.terms) == pytest.approx(best.seconds, rel=1e-9)


def test_faster_devices_get_more_layers(tmp_path: Path) -> None:
    path = fleet_file(tmp_path, {"fast": ("dgx-h100", 1), "slow": ("dgx-a100", 1)}, "200 GB/s")
    best = planned(path, tp=1, pp=1, micro_batch=1, recompute=2, sharded=1, kind="pipeline").best
    assert best is not None
    layers = {g.group: sum(g.layers) for g in best.groups}
    assert layers["fast"] > 1.4 * layers["slow"]
    seconds = [s for g in best.groups for s in g.stage_seconds]
    assert max(seconds) < 1.15 * min(seconds), "stages are balanced"
    assert best.seconds >= best.bound_seconds


def test_the_batch_is_split_by_speed_and_gains_by_it(tmp_path: Path) -> None:
    path = fleet_file(tmp_path, {"fast": ("dgx-h100", 1), "slow": ("dgx-a100", 1)}, "200 GB/s")
    best = planned(path, tp=1, pp=1, micro_batch=1, kind="replicas").best
    assert best is not None
    share = {g.group: g.batch_share for g in best.groups}
    assert share["fast"] > 1.5 * share["slow"]
    assert sum(share.values()) == pytest.approx(1.0, abs=0.13), "whole micro-batches, padded"


def test_a_slow_link_is_crossed_by_the_pipeline(tmp_path: Path) -> None:
    path = fleet_file(tmp_path, {"a": ("dgx-h100", 1), "b": ("dgx-h100", 1)}, "1 Gb/s", 0.8)
    found = planned(path, tp=4, micro_batch=1)
    assert found.best is not None
    assert found.other is not None
    assert found.best.kind == "pipeline"
    faster = planned(
        fleet_file(tmp_path, {"a": ("dgx-h100", 1), "b": ("dgx-h100", 1)}, "100 Gb/s", 0.8), tp=4, micro_batch=1
    )
    assert faster.best is not None
    assert faster.best.seconds <= found.best.seconds


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = fleet_file(tmp_path, {"a": ("dgx-h100", 1)}, "1 Gb/s")
    with pytest.raises(PerfmodelError, match="pin of a fleet"):
        planned(path, tpp=4)
    with pytest.raises(PerfmodelError, match="training"):
        perfmodel.fleet("gpt-3.6b", path, "chat")
    with pytest.raises(PerfmodelError, match="fleet"):
        perfmodel.fleet("gpt-3.6b", "no-such-fleet")
    with pytest.raises(PerfmodelError, match="groups"):
        perfmodel.fleet("gpt-3.6b", Path(__file__).parents[2] / "hardware_specs" / "clusters" / "dgx-h100.yaml")
