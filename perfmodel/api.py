"""The library: plan, estimate and what-if in a few lines.

>>> import perfmodel
>>> answers = perfmodel.plan(model="llama70b", hw="h200-8x", workload="chat")  # doctest: +SKIP
>>> answers.serving.best.metrics["tpot_seconds"]  # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perfmodel.errors import SpecError, UnknownName
from perfmodel.insight.planner import answer
from perfmodel.insight.setting import Question, Setting, make_setting, within_positions
from perfmodel.insight.timeline import Timeline, timeline_of
from perfmodel.solver.evaluate import evaluate_plan
from perfmodel.solver.problems import TrainingProblem
from perfmodel.solver.result import Answer, EvaluatedPlan
from perfmodel.solver.space import column_value
from perfmodel.specs.framework import Framework, load_framework
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import Model, load_model
from perfmodel.specs.system import System, load_system
from perfmodel.specs.workload import Workload, load_workload, revise
from perfmodel.techniques.settled import Plan

__all__ = [
    "Answers",
    "Comparison",
    "Estimate",
    "estimate",
    "load",
    "plan",
    "plan_columns",
    "settings_of",
    "timeline",
    "usual_framework",
]

DEFAULT_WORKLOADS = ("pretrain", "chat")
DEFAULT_FRAMEWORKS = {"training": "megatron-core", "serving": "vllm"}

Progress = Callable[[str, int, int], None]
"""Called with (workload, plans judged, plans in all)."""


@dataclass(frozen=True)
class Request:
    """Everything a plan was asked with; a what-if is a request with some of it changed."""

    model: str | Path
    hw: str | Path
    workload: str | Path | None = None
    question: Question = Question()
    changes: Mapping[str, Any] | None = None
    workload_changes: Mapping[str, Any] | None = None
    framework: str | Path | None = None


@dataclass(frozen=True)
class Answers:
    """Plans for one model on one machine, one answer per workload."""

    request: Request
    model: Model
    system: System
    answers: tuple[Answer, ...]
    workloads: tuple[Workload, ...] = ()
    """What each answer was asked for, in full; same order as ``answers``."""

    @property
    def training(self) -> Answer | None:
        """The first training answer."""
        return next((a for a in self.answers if a.phase == "training"), None)

    @property
    def serving(self) -> Answer | None:
        """The first serving answer."""
        return next((a for a in self.answers if a.phase == "serving"), None)

    def what_if(self, *, model: str | Path | None = None, hw: str | Path | None = None, **changes: Any) -> Comparison:
        """Ask again with something changed and compare.

        Parameters
        ----------
        model, hw : another model or machine.
        **changes : hardware facts by short name (``hbm_bandwidth="x2"``, ``nic_bandwidth="400 Gb/s"``), plan
            columns to pin
            (``tp=4``), or workload fields (``sequence=8192``).

        Raises
        ------
        UnknownName
            If a name is none of these.
        """
        request = self.request
        hardware, columns, workload = _sort_changes(self, changes)
        question = replace(request.question, pinned={**(request.question.pinned or {}), **columns})
        if "devices" in columns:
            question = replace(question, devices=int(columns["devices"]))
        changed = replace(
            request,
            model=model if model is not None else request.model,
            hw=hw if hw is not None else request.hw,
            question=question,
            changes={**(request.changes or {}), **hardware},
            workload_changes={**(request.workload_changes or {}), **workload},
        )
        return Comparison(self, _run(changed))


@dataclass(frozen=True)
class Comparison:
    """Before and after of a what-if."""

    before: Answers
    after: Answers

    @property
    def changes(self) -> tuple[tuple[str, str, float | None, float | None], ...]:
        """(phase, metric, before, after) of the metrics that differ."""
        rows = []
        for old, new in zip(self.before.answers, self.after.answers, strict=False):
            a, b = _metrics(old), _metrics(new)
            for name in dict.fromkeys((*a, *b)):
                if a.get(name) != b.get(name):
                    rows.append((old.phase, name, a.get(name), b.get(name)))
        return tuple(rows)

    @property
    def changed_terms(self) -> tuple[tuple[str, str, float, float], ...]:
        """(phase, term, seconds before, seconds after) of the terms that differ, largest change first.

        None of a phase that has no plan before or after: there is nothing to compare.
        """
        rows = []
        for old, new in zip(self.before.answers, self.after.answers, strict=False):
            if old.best is None or new.best is None:
                continue
            a, b = ({r.name: r.seconds for r in plan.terms} for plan in (old.best, new.best))
            for name in dict.fromkeys((*a, *b)):
                before, after = a.get(name, 0.0), b.get(name, 0.0)
                if abs(after - before) > 1e-9 * max(before, after):
                    rows.append((old.phase, name, before, after))
        return tuple(sorted(rows, key=lambda row: -abs(row[3] - row[2])))

    @property
    def best_plan_changes(self) -> bool:
        """Whether the best plan is another one."""
        pairs = zip(self.before.answers, self.after.answers, strict=False)
        return any((a.best and a.best.columns) != (b.best and b.best.columns) for a, b in pairs)


@dataclass(frozen=True)
class Estimate:
    """One given plan, evaluated."""

    model: Model
    system: System
    phase: str
    workload: str
    plan: EvaluatedPlan
    request: Request
    asked: Workload
    """The workload in full."""


def plan(
    model: str | Path,
    hw: str | Path,
    workload: str | Path | None = None,
    *,
    objective: str | None = None,
    devices: int | None = None,
    pin: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    max_quality_loss: float | None = None,
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
    pools: str = "either",
    progress: Progress | None = None,
) -> Answers:
    """Find the best plan for a model on a machine.

    Parameters
    ----------
    model : name, alias, or path of a model file or HuggingFace ``config.json``.
    hw : name, alias, or path of a device or cluster file.
    workload : name or path; without one, pre-training and chat serving are answered.
    objective : ``time``, ``throughput``, ``cost`` or ``energy``.
    devices : number of devices; chosen if left out.
    pin : plan columns held fixed, e.g. ``{"tp": 8}``.
    use : techniques that change the numerics, asked for by name.
    max_quality_loss : largest published relative loss of quality that may be spent.
    changes : hardware facts to change, as in :meth:`Answers.what_if`.
    workload_changes : workload fields to change.
    framework : behaviour constants of another software stack.
    pools : serving: prefill and decode ``together`` on the same replicas, ``apart``, or ``either``; columns of one pool
        are pinned as ``prefill.tp`` and ``decode.tp``.

    Returns
    -------
    Answers
        Frozen results; a plan that is impossible is an answer with ``best`` ``None``.

    Raises
    ------
    PerfmodelError
        If a name is unknown or a file cannot be used; one message each.
    """
    question = Question(objective, devices, pin, tuple(use), max_quality_loss, pools)
    return _run(Request(model, hw, workload, question, changes, workload_changes, framework), progress)


def estimate(
    model: str | Path,
    hw: str | Path,
    workload: str | Path,
    *,
    columns: Mapping[str, Any],
    devices: int | None = None,
    use: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> Estimate:
    """Evaluate one given plan: columns by name, everything not named at its neutral value.

    Raises
    ------
    UnknownName
        If a column belongs to no technique of the phase.
    """
    question = Question(None, devices, None, tuple(use), None)
    request = Request(model, hw, workload, question, changes, workload_changes, framework)
    loaded, system = load(request)
    setting = settings_of(request, loaded, system)[0]
    x = plan_columns(setting, columns, devices)
    plan = evaluate_plan(setting.problem, x)
    return Estimate(loaded, system, setting.phase, setting.workload.name, plan, request, setting.workload)


def timeline(asked: Request, model: Model, system: System, plan: EvaluatedPlan, workload: str) -> Timeline:
    """Draw one step of a training plan pass by pass, stage by stage.

    Parameters
    ----------
    asked, model, system : of the answer or the estimate that the plan comes from.
    plan : the plan.
    workload : name of the workload it was made for.

    Raises
    ------
    SpecError
        If the plan serves.
    """
    setting = next(s for s in settings_of(asked, model, system) if s.workload.name == workload)
    if not isinstance(setting.problem, TrainingProblem):
        raise SpecError("a timeline shows a training step", field="workload", found=workload)
    return timeline_of(setting.problem.evaluate(Plan(**plan.columns)))


def plan_columns(setting: Setting, columns: Mapping[str, Any], devices: int | None) -> Plan:
    """Neutral values with the given columns set."""
    problem = setting.problem
    for axis in (axis for t in problem.techniques for axis in t.axes(problem.situation)):
        for i, name in enumerate(axis.columns):
            if name in columns:
                column_value(axis, i, columns[name])
    x: dict[str, Any] = {}
    for technique in setting.problem.techniques:
        x.update({n: float(v) if isinstance(v, (int, float)) else v for n, v in technique.neutral.items()})
    known = [*x, "devices"] if setting.phase == "training" else [*x]
    for name, value in columns.items():
        if name not in known:
            raise UnknownName("plan column", name, known, remedy="it may belong to a technique that needs --use")
        x[name] = float(value) if isinstance(value, (int, float)) else value
    if setting.phase == "training":
        ranks = math.prod(float(d.degree) for t in problem.techniques for d in t.dims(Plan(**x)))
        x["devices"] = float(devices if devices is not None else x.get("devices", 0) or ranks)
    return Plan(**x)


def load(request: Request) -> tuple[Model, System]:
    """Model and machine of a request, its changes applied."""
    system = load_system(request.hw)
    if request.changes:
        from perfmodel.specs.overrides import override

        system = override(system, {k: v if isinstance(v, str) else float(v) for k, v in request.changes.items()})
    return load_model(find_model(request.model)), system


def settings_of(request: Request, model: Model, system: System) -> list[Setting]:
    """One setting for each workload of a request."""
    names = DEFAULT_WORKLOADS if request.workload is None else (request.workload,)
    settings = []
    for name in names:
        workload: Workload = load_workload(name)
        if request.workload is None:
            workload = within_positions(workload, model)
        if request.workload_changes:
            workload = revise(workload, request.workload_changes)
        chosen = request.framework if request.framework is not None else usual_framework(system, workload.kind)
        framework: Framework = load_framework(chosen)
        if framework.kind != workload.kind:
            raise SpecError(f"{framework.name} is a {framework.kind} framework", field="framework", found=str(chosen),
                            allowed=f"a {workload.kind} framework")  # fmt: skip
        settings.append(make_setting(model, system, workload, framework, request.question))
    return settings


def usual_framework(system: System, kind: str) -> str:
    """What runs on the machine by its cluster file, else the default."""
    software = system.cluster.software
    return (getattr(software, kind) if software else None) or DEFAULT_FRAMEWORKS[kind]


def _run(request: Request, progress: Progress | None = None) -> Answers:
    model, system = load(request)
    answers = []
    settings = settings_of(request, model, system)
    for setting in settings:
        report = None
        if progress is not None:
            report = _reporter(progress, setting)
        answers.append(answer(setting, progress=report))
    return Answers(request, model, system, tuple(answers), tuple(s.workload for s in settings))


def _reporter(progress: Progress, setting: Setting) -> Callable[[int], None]:
    return lambda done: progress(setting.workload.name, done, setting.space.cells)


def _metrics(found: Answer) -> dict[str, float | None]:
    return dict(found.best.metrics) if found.best else {}


def _sort_changes(asked: Answers, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Tell hardware facts, plan columns and workload fields apart."""
    from perfmodel.specs.overrides import SHORT_NAMES

    settings = settings_of(asked.request, asked.model, asked.system)
    columns = {n for s in settings for n in s.space.columns}
    fields = {n for s in settings for n in type(s.workload).model_fields}
    sorted_changes: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = ({}, {}, {})
    for name, value in changes.items():
        head = name.split(".")[0]
        if name in columns:
            sorted_changes[1][name] = value
        elif name in SHORT_NAMES or "." in name:
            sorted_changes[0][name] = value
        elif head in fields:
            sorted_changes[2][name] = value
        else:
            sorted_changes[0][name] = value
    return sorted_changes
