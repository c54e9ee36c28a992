"""Problems to test on: a model on a machine under a workload, built once; random plans and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from perfmodel.insight.setting import Question, Setting, make_setting
from perfmodel.solver.space import Space
from perfmodel.specs.framework import load_framework
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.specs.overrides import override
from perfmodel.specs.system import System, load_system
from perfmodel.specs.workload import load_workload, revise
from perfmodel.techniques.settled import Plan

FRAMEWORKS = {"training": "megatron-core", "serving": "vllm"}

system = lru_cache(maxsize=None)(load_system)
model = lru_cache(maxsize=None)(lambda name: load_model(find_model(name)))


def setting(
    model_name: str,
    machine: str | System,
    workload: str,
    *,
    devices: int | None = None,
    pin: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    loss: float | None = None,
    objective: str | None = None,
    framework: str | None = None,
    machine_changes: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Setting:
    """A question ready to search."""
    resolved = system(machine) if isinstance(machine, str) else machine
    if machine_changes:
        resolved = override(resolved, dict(machine_changes))
    work = load_workload(workload)
    if changes:
        work = revise(work, changes)
    software = load_framework(framework or FRAMEWORKS[work.kind])
    return make_setting(model(model_name), resolved, work, software, Question(objective, devices, pin, use, loss))


def neutral(found: Setting, **columns: Any) -> Plan:
    """The plan with every technique at its neutral value, and some columns set."""
    x: dict[str, Any] = {}
    for technique in found.problem.techniques:
        x.update({n: float(v) if isinstance(v, int) else v for n, v in technique.neutral.items()})
    if found.phase == "training":
        x["devices"] = float(found.question.devices or found.machine.devices)
    unknown = set(columns) - set(x)
    assert not unknown, unknown
    x.update({n: float(v) if isinstance(v, int) else v for n, v in columns.items()})
    return Plan(**x)


def random_plan(space: Space, rng: np.random.Generator) -> Plan:
    """One plan of a space, every axis drawn on its own."""
    x: dict[str, Any] = {}
    for axis in (*space.structural, *space.numeric):
        values = axis.values[int(rng.integers(len(axis.values)))]
        for name, value in zip(axis.columns, values, strict=True):
            x[name] = value if isinstance(value, str) else float(value)
    return Plan(**x)


def well_formed_plans(found: Setting, rng: np.random.Generator, count: int) -> Iterator[Plan]:
    """Random plans whose counts and divisions come out whole; memory may overflow."""
    given = 0
    for _ in range(400 * count):
        x = random_plan(found.space, rng)
        if all(r <= 1.0 + 1e-9 for r in found.problem.form(x).values()):
            given += 1
            yield x
        if given == count:
            return
    raise AssertionError(f"only {given} well-formed plans found")
