"""Best of the strategies that shard each state over nothing, the node or all, against ZeRO-3; and rings per level."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.build import build_machine
from perfmodel.network.build import build_network
from perfmodel.network.collectives import all_reduce
from perfmodel.network.library import Library, Protocol
from perfmodel.network.topology import Group
from perfmodel.specs.overrides import override
from perfmodel.specs.system import load_system

__all__ = ["ring_gain", "speed_up"]

SIZE = 1e9
"""Bytes summed where bandwidth decides."""


def speed_up(run: Run, model: str, devices: int) -> float:
    """Throughput of the solver's choice over that of ZeRO-3, micro-batch and recomputation free in both."""
    batch = devices * 8 * 2048
    changes = {**run.asked().workload_changes, "global_batch": batch}
    asked = run.asked().model_copy(update={"model": model, "devices": devices, "workload_changes": changes})
    pins = {"tp": 1, "pp": 1, "cp": 1, "optimizer_host": 0}
    best = run.solve(asked, weights_group=[1, 8, "all"], gradients_group=[1, 8, "all"], **pins)
    zero3 = run.solve(asked, weights_group="all", secondary_group="all", gradients_group="all", **pins)
    if best is None or zero3 is None:
        return float("nan")
    return zero3.seconds / best.seconds


def ring_gain(run: Run, nodes: int) -> float:
    """Time of an all-reduce along one ring over that along rings of every level."""
    system = override(load_system(str(run.asked().hw)), run.asked().changes)
    per_node = float(build_machine(system).per_node)
    single = build_network(system.cluster)._replace(library=Library("rings", {"ring": (Protocol(),)}))
    group = Group((per_node, per_node * nodes))
    both = all_reduce(single._replace(overlapping=True), group, SIZE)
    return float(all_reduce(single, group, SIZE) / both)
