"""Run claims: every number through the public interface, every plan evaluated once."""

from __future__ import annotations

from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import perfmodel
from perfmodel.api import Estimate
from perfmodel.calibration.claims.claim import Asked, Claim, Setting, load_claim
from perfmodel.errors import UnknownName
from perfmodel.machine.build import build_machine
from perfmodel.machine.engine import Engine
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.specs.system import load_system
from perfmodel.techniques.sharding import ALL

__all__ = ["ClaimResult", "Run", "claim_ids", "run_claims"]

FOLDER = Path(__file__).parent


class ClaimResult(NamedTuple):
    """One setting of a claim: published against predicted."""

    id: str
    setting: str
    published: float
    predicted: float
    tolerance: float
    holds: bool
    read_in: str
    note: str
    unit: str = ""
    side: str = "both"


class Run:
    """A claim being run: its plans by name, evaluated when first asked for."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self._plans: dict[str, EvaluatedPlan] = {}

    def asked(self, name: str | None = None) -> Asked:
        """Arguments of a plan by name; the common ones without a name."""
        if name is None:
            return self.claim.common
        if name not in self.claim.plans:
            raise UnknownName("plan", name, self.claim.plans, remedy=f"claim {self.claim.id}")
        return self.claim.plans[name].over(self.claim.common)

    def plan(self, name: str) -> EvaluatedPlan:
        """A plan of the claim, evaluated."""
        if name not in self._plans:
            self._plans[name] = self.evaluate(self.asked(name))
        return self._plans[name]

    def evaluate(self, asked: Asked, **changed: Any) -> EvaluatedPlan:
        """Any arguments, evaluated as one given plan."""
        return self.estimate(asked, **changed).plan

    def estimate(self, asked: Asked, **changed: Any) -> Estimate:
        """Any arguments, evaluated as one given plan, with the model and the machine they name."""
        return perfmodel.estimate(columns=columns(asked), devices=asked.devices, **{**arguments(asked), **changed})

    def solve(self, asked: Asked, **pins: Any) -> EvaluatedPlan | None:
        """The solver's own choice for the arguments, with columns pinned; ``None`` where nothing fits."""
        pinned = {**columns(asked), **{n: _group(v) for n, v in pins.items()}}
        return perfmodel.plan(pin=pinned, devices=asked.devices, **arguments(asked)).answers[0].best

    def engine(self, hw: str) -> Engine:
        """The main engine of a machine."""
        return build_machine(load_system(hw)).main

    def metric(self, name: str) -> float:
        """``PLAN.METRIC`` of an evaluated plan."""
        plan, _, metric = name.partition(".")
        metrics = self.plan(plan).metrics
        if metric not in metrics:
            raise UnknownName("metric", metric, metrics, remedy=f"claim {self.claim.id}")
        value = metrics[metric]
        return float("nan") if value is None else float(value)

    def busy(self, plan: str, *terms: str) -> float:
        """Busy seconds per step of the named terms of a plan [s]."""
        return sum(row.busy_seconds for row in self.plan(plan).terms if row.name in terms)

    def exposed(self, plan: str, *terms: str) -> float:
        """Seconds by which the named terms lengthen the step of a plan [s]."""
        return sum(row.seconds for row in self.plan(plan).terms if row.name in terms)

    @cached_property
    def functions(self) -> Any:
        """The Python file beside the claim."""
        return import_module(f"perfmodel.calibration.claims.{self.claim.id}")

    def predict(self, setting: Setting) -> float:
        """The number that a setting predicts."""
        if setting.metric is not None:
            return self.metric(setting.metric)
        if setting.ratio is not None:
            return self.metric(setting.ratio[0]) / self.metric(setting.ratio[1])
        return float(getattr(self.functions, str(setting.function))(self, **setting.arguments))


def _group(value: Any) -> Any:
    """Group sizes by name: ``all`` is every replica."""
    if isinstance(value, (list, tuple)):
        return [_group(v) for v in value]
    return ALL if value == "all" else value


def columns(asked: Asked) -> dict[str, Any]:
    """Plan columns of an evaluation."""
    return {name: _group(value) for name, value in asked.columns.items()}


def arguments(asked: Asked) -> dict[str, Any]:
    """What the public functions share."""
    return {
        "model": asked.model,
        "hw": asked.hw,
        "workload": asked.workload,
        "framework": asked.framework,
        "use": asked.use,
        "workload_changes": asked.workload_changes,
        "changes": asked.changes,
    }


@cache
def _files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def claim_ids() -> tuple[str, ...]:
    """Names of all claims."""
    return tuple(_files())


def run_claims(ids: tuple[str, ...] = ()) -> tuple[ClaimResult, ...]:
    """Run the named claims, or all.

    Raises
    ------
    UnknownName
        If there is no claim of that name.
    """
    for name in ids:
        if name not in _files():
            raise UnknownName("claim", name, _files())
    results = []
    for name in dict.fromkeys(ids or claim_ids()):
        claim = load_claim(_files()[name])
        run = Run(claim)
        for setting in claim.settings:
            predicted = run.predict(setting)
            results.append(
                ClaimResult(
                    id=claim.id,
                    setting=setting.setting,
                    published=setting.published,
                    predicted=predicted,
                    tolerance=setting.tolerance,
                    holds=setting.holds(predicted),
                    read_in=setting.read_in or claim.read_in,
                    note=setting.note,
                    unit=setting.unit,
                    side=setting.side,
                )
            )
    return tuple(results)
