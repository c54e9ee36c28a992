"""Rings of all levels at once: sharded states across nodes come sooner, nothing changes inside one."""

from __future__ import annotations

import pytest
from planning import neutral, setting

from perfmodel.techniques.sharding import ALL


def step(rings: str, devices: int) -> float:
    found = setting("llama-2-7b", "dgx-a100", "pretrain", devices=devices, use=("overlapping_rings",),
                    machine_changes={"levels.pod.nics.bandwidth": "25 Gb/s"})  # fmt: skip
    shards = {f"{name}_group": ALL for name in ("weights", "secondary", "gradients", "optimizer")}
    return float(found.problem.evaluate(neutral(found, rings=rings, **shards)).seconds)


def test_across_nodes_less_crosses_the_border() -> None:
    assert 1.02 < step("single", 32) / step("overlapping", 32) < (31 / 32) / (24 / 32) + 1e-9


def test_inside_a_node_there_is_one_level() -> None:
    assert step("overlapping", 8) == pytest.approx(step("single", 8))
