"""How much a machine carries, and how much of it a rate needs, where a service asks for more than there is."""

from __future__ import annotations

import math

from perfmodel.errors import PerfmodelError
from perfmodel.insight.setting import Setting, make_setting
from perfmodel.solver.evaluate import evaluate_plan
from perfmodel.solver.search import Outcome, search
from perfmodel.specs.overrides import override
from perfmodel.specs.workload import revise

__all__ = ["carried", "needed"]

STEPS = (1.0, 0.85, 0.7, 0.5)
"""Shares of the rate of full batches that are tried: peaks of random arrivals need room [1]."""
ENOUGH = 4096.0
"""Devices of a machine that is taken to be large enough, over those that there are [1]."""


def carried(setting: Setting) -> str:
    """A rate that this machine carries within its limits, verified by a search; empty where none was found."""
    closed, full = _searched(setting, rate=None)
    if not full.best:
        return ""
    metrics = evaluate_plan(closed.problem, full.best[0].plan).metrics
    each = metrics["devices_per_replica"] or 1.0
    most = math.floor(setting.machine.devices / each) * (metrics["requests_per_second"] or 0.0)
    for step in STEPS:
        rate = _rounded_down(most * step)
        if rate > 0.0 and _searched(setting, rate=f"{rate:g} requests/s")[1].best:
            return f"a rate that this machine carries: --set-workload rate='{rate:g} requests/s'"
    return ""


def needed(setting: Setting) -> str:
    """Nodes of the same kind that carry the rate; empty where more of them would not do."""
    cluster = setting.system.cluster
    try:
        larger = override(setting.system, {"nodes": f"x{ENOUGH:g}"})
        retry = make_setting(setting.model, larger, setting.workload, setting.framework, setting.question)
    except PerfmodelError:
        return ""
    found = search(retry.space, retry.problem)
    if not found.best:
        return ""
    devices = evaluate_plan(retry.problem, found.best[0].plan).devices
    nodes = math.ceil(devices / cluster.node.accelerator.count)
    factor = math.ceil(nodes / cluster.nodes.value)
    return f"more of the same: {devices:,} devices carry it (--set nodes=x{factor})"


def _searched(setting: Setting, **changes: str | None) -> tuple[Setting, Outcome]:
    """The same question under another rate, and its outcome."""
    workload = revise(setting.workload, changes)
    retry = make_setting(setting.model, setting.system, workload, setting.framework, setting.question)
    return retry, search(retry.space, retry.problem)


def _rounded_down(rate: float) -> float:
    """Two significant digits, never more than the rate."""
    if rate <= 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return math.floor(rate / unit * (1.0 + 1e-12)) * unit
