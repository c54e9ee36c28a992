"""Answers as plain data for JSON: field names as keys, tuples as lists, what is not finite as null."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfmodel.api import Answers, Comparison, Estimate
from perfmodel.insight.fleet import FleetAnswer
from perfmodel.specs.model import Model
from perfmodel.specs.system import System

__all__ = ["estimate", "fleet", "plain", "plan"]

FLEET = "perfmodel.fleet/1"
PLAN, ESTIMATE = "perfmodel.plan/1", "perfmodel.estimate/1"


def plain(value: Any) -> Any:
    """Reduce dataclasses, named tuples, specs, mappings and arrays to what JSON can say."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if hasattr(value, "model_dump"):
        return plain({name: getattr(value, name) for name in type(value).model_fields})
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value) if isinstance(value, Path) else repr(value)


def _model(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "layers": model.architecture.layers,
        "hidden": model.architecture.hidden,
        "source": model.source,
    }


def _machine(system: System) -> dict[str, Any]:
    nodes, per_node = round(system.cluster.nodes.value), system.cluster.node.accelerator.count
    return {
        "name": system.name,
        "accelerator": system.accelerator.name,
        "nodes": nodes,
        "devices_per_node": per_node,
        "devices": nodes * per_node,
        "files": [str(f) for f in system.files],
    }


def _answers(found: Answers) -> list[Any]:
    return [
        {**plain(a), "feasible": a.feasible, "asked": plain(w)}
        for a, w in zip(found.answers, found.workloads, strict=True)
    ]


def plan(found: Answers, compared: Comparison | None = None) -> dict[str, Any]:
    """Everything that is known of an answer; with a what-if also the answer before it."""
    return {
        "schema": PLAN,
        "model": _model(found.model),
        "machine": _machine(found.system),
        "request": plain(found.request),
        "answers": _answers(found),
        "what_if": None if compared is None else _what_if(compared),
    }


def _what_if(compared: Comparison) -> dict[str, Any]:
    return {
        "before": _answers(compared.before),
        "changes": [
            dict(zip(("phase", "metric", "before", "after"), plain(row), strict=True)) for row in compared.changes
        ],
        "changed_terms": [
            dict(zip(("phase", "term", "before", "after"), plain(row), strict=True)) for row in compared.changed_terms
        ],
        "best_plan_changes": compared.best_plan_changes,
    }


def _named(what: str, row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("phase", what, "before", "after"), plain(row), strict=True))


def fleet(found: FleetAnswer) -> dict[str, Any]:
    """Both arrangements of a fleet."""
    return {
        "schema": FLEET,
        "model": _model(found.model),
        "machine": {n: _machine(s) for n, s in found.joined.systems.items()},
        "asked": plain(found.workload),
        "feasible": found.best is not None,
        "best": plain(found.best),
        "other": plain(found.other),
        "considered": found.considered,
        "search_seconds": found.search_seconds,
    }


def estimate(found: Estimate) -> dict[str, Any]:
    """One evaluated plan."""
    return {
        "schema": ESTIMATE,
        "model": _model(found.model),
        "machine": _machine(found.system),
        "request": plain(found.request),
        "phase": found.phase,
        "workload": found.workload,
        "asked": plain(found.asked),
        "legal": found.plan.legal,
        "plan": plain(found.plan),
    }
