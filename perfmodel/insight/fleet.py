"""Training on a fleet of unlike groups: both arrangements, the better one first, with what it costs and why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perfmodel.errors import SpecError, UnknownName
from perfmodel.insight.setting import Question, Setting, make_setting
from perfmodel.solver.evaluate import model_flops_per_token, term_rows
from perfmodel.solver.fleet import Group, Layout, Link, Staged, across_pipeline, replicated
from perfmodel.solver.problems import TrainingProblem
from perfmodel.solver.result import TermRow
from perfmodel.specs.fleet import Joined
from perfmodel.specs.framework import Framework
from perfmodel.specs.model import Model
from perfmodel.specs.workload import TrainingWorkload

__all__ = ["FleetAnswer", "FleetPlan", "GroupUse", "plan_fleet"]


@dataclass(frozen=True)
class GroupUse:
    """How one group is used: degrees, layers of its stages, seconds of one micro-batch on each, share of the batch."""

    group: str
    device: str
    devices: int
    tp: int
    pp: int
    dp: int
    micro_batch: int
    micro_batches: int
    recompute: int
    optimizer_sharded: bool
    layers: tuple[int, ...]
    stage_seconds: tuple[float, ...]
    batch_share: float


@dataclass(frozen=True)
class FleetPlan:
    """One arrangement.

    Parameters
    ----------
    kind : ``pipeline`` (stages on groups) or ``replicas`` (the whole model on every group).
    seconds : time of a step [s].
    groups : in the order of the pipeline.
    terms : where the time goes; seconds add up to ``seconds``.
    metrics : tokens/s, TFLOP/s per device, MFU, days of the run.
    bound_seconds : the same layouts if layers flowed freely over the stages; 0 where it was not derived [s].
    partitions_tried : slowest stages for which the exact dynamic programme ran.
    """

    kind: str
    seconds: float
    groups: tuple[GroupUse, ...]
    terms: tuple[TermRow, ...]
    metrics: Mapping[str, float]
    bound_seconds: float
    partitions_tried: int


@dataclass(frozen=True)
class FleetAnswer:
    """The best arrangement, the other kind beside it, and how many arrangements were considered."""

    model: Model
    joined: Joined
    workload: TrainingWorkload
    best: FleetPlan | None
    other: FleetPlan | None
    considered: int
    search_seconds: float


def plan_fleet(
    model: Model,
    joined: Joined,
    workload: TrainingWorkload,
    frameworks: Mapping[str, Framework],
    pins: Mapping[str, Any],
) -> FleetAnswer:
    """Search both arrangements.

    Parameters
    ----------
    model, joined, workload : what to train, where, on how much.
    frameworks : software of every group by its name.
    pins : fields of :class:`perfmodel.solver.fleet.Layout` held fixed in every group, or ``kind``.

    Raises
    ------
    UnknownName
        If a pin is no such field.
    """
    started = time.perf_counter()
    known = [f for f in Layout._fields if f != "group"]
    for name in pins:
        if name not in (*known, "kind"):
            raise UnknownName("pin of a fleet", name, [*known, "kind"])
    wanted = pins.get("kind")
    if wanted not in (None, "pipeline", "replicas"):
        raise SpecError("unknown arrangement", field="kind", found=wanted, allowed="pipeline, replicas")
    fixed = {n: int(v) for n, v in pins.items() if n != "kind"}
    settings = {n: make_setting(model, s, workload, frameworks[n], Question()) for n, s in joined.systems.items()}
    groups = [_group(n, s) for n, s in settings.items()]
    link = joined.fleet.link
    facts = Link(link.bandwidth.value, link.latency.value, link.efficiency.value)
    found: list[Staged] = []
    considered = 0
    for kind, solve in (("pipeline", across_pipeline), ("replicas", replicated)):
        if wanted in (None, kind) and (kind == "pipeline" or len(groups) > 1):
            staged, count = solve(groups, facts, fixed)
            considered += count
            found += [staged] if staged is not None else []
    found.sort(key=lambda s: s.seconds)
    plans = [_described(s, settings, model, workload) for s in found]
    elapsed = time.perf_counter() - started
    best, other = (plans[0] if plans else None), (plans[1] if len(plans) > 1 else None)
    return FleetAnswer(model, joined, workload, best, other, considered, elapsed)


def _group(name: str, setting: Setting) -> Group:
    if not isinstance(setting.problem, TrainingProblem):
        raise SpecError("fleets are planned for training", field="workload", found=setting.workload.name)
    return Group(name, setting.problem)


def _described(found: Staged, settings: Mapping[str, Setting], model: Model, workload: TrainingWorkload) -> FleetPlan:
    rows, start = [], 0
    for x, passes, share in zip(found.layouts, found.micro_batches, found.shares, strict=True):
        system = settings[x.group].system
        part = slice(start, start + x.pp)
        start += x.pp
        rows.append(
            GroupUse(
                x.group, system.accelerator.name, x.tp * x.pp * x.dp, x.tp, x.pp, x.dp, x.micro_batch, passes,
                x.recompute, x.sharded, found.layers[part], found.stage_seconds[part], share,
            )
        )  # fmt: skip
    devices = sum(r.devices for r in rows)
    flops = 3.0 * model_flops_per_token(model.architecture, workload.sequence)
    rate = workload.global_batch / found.seconds
    compute = workload.recipe.compute
    peak = sum(r.devices * settings[r.group].machine.main.peak(compute) for r in rows)
    metrics = {
        "step_seconds": found.seconds,
        "tokens_per_second": rate,
        "tokens_per_second_per_device": rate / devices,
        "tflops_per_device": rate * flops / devices / 1e12,
        "mfu": rate * flops / peak,
        "run_days": found.seconds * workload.steps / 86400.0,
    }
    return FleetPlan(
        found.kind, found.seconds, tuple(rows), term_rows(found.exposed()), metrics, found.bound, found.tried
    )
