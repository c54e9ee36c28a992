"""Bytes of decode attention where a look-up chooses the keys."""

from __future__ import annotations

from perfmodel.api import settings_of
from perfmodel.calibration.claims.run import Run
from perfmodel.operators.layers import layer_calls
from perfmodel.phases.serving import settle_passes
from perfmodel.solver.problems import ServingProblem
from perfmodel.techniques.settled import Plan

__all__ = ["fewer_bytes", "two_levels"]


def _bytes(run: Run, plan: str) -> float:
    """What the attention core of an average layer reads and writes per decode pass [B]."""
    found = run.estimate(run.asked(plan))
    problem = settings_of(found.request, found.model, found.system)[0].problem
    assert isinstance(problem, ServingProblem)  # noqa: S101 - narrows the type: a serving workload
    x = Plan(**found.plan.columns)
    s = settle_passes(x, problem.techniques, problem.situation, problem.network, problem.framework)["decode"]
    calls = [c for c in layer_calls(s.architecture, s.sizes) if c.region == "attention core"]
    return sum(float(c.work.compulsory_bytes) * c.share for c in calls)


def fewer_bytes(run: Run, plan: str) -> float:
    """Bytes of full attention over those of a plan."""
    return _bytes(run, "whole") / _bytes(run, plan)


def two_levels(run: Run, plan: str, against: str) -> float:
    """Bytes of one plan over those of another."""
    return _bytes(run, plan) / _bytes(run, against)
