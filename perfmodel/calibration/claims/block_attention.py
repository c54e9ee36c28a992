"""Operations and time of a prompt whose passages are at hand."""

from __future__ import annotations

from perfmodel.api import settings_of
from perfmodel.calibration.claims.run import Run
from perfmodel.operators.layers import head_calls, layer_calls
from perfmodel.phases.serving import settle_passes
from perfmodel.solver.problems import ServingProblem
from perfmodel.techniques.settled import Plan

__all__ = ["at_share_of_peak", "operations_saved", "time_saved"]


def _operations(run: Run, plan: str) -> float:
    """Operations of the matrix units for one prompt [FLOP]."""
    found = run.estimate(run.asked(plan))
    problem = settings_of(found.request, found.model, found.system)[0].problem
    assert isinstance(problem, ServingProblem)  # noqa: S101 - narrows the type: a serving workload
    x = Plan(**found.plan.columns)
    s = settle_passes(x, problem.techniques, problem.situation, problem.network, problem.framework)["prefill"]
    calls = [c for c in layer_calls(s.architecture, s.sizes) if c.work.operator != "elementwise"]
    head = [c for c in head_calls(s.architecture, s.sizes, rows=1.0, logit_bytes=0.0) if c.work.operator == "gemm"]
    return float(sum(c.work.flops * c.share for c in calls) * s.layers + sum(c.work.flops for c in head))


def operations_saved(run: Run, plan: str) -> float:
    """Operations that a plan does not do, of those of the whole prompt [%]."""
    return 100.0 * (1.0 - _operations(run, plan) / _operations(run, "whole"))


def at_share_of_peak(run: Run, plan: str, share: float, peak: float) -> float:
    """Time of the operations at a share of a peak [s]."""
    return _operations(run, plan) / (share * peak)


def time_saved(run: Run, plan: str) -> float:
    """Time of the prompt that a plan saves [%]."""
    times = [sum(r.seconds for r in (run.plan(p).extra_terms or {})["prefill"]) for p in (plan, "whole")]
    return 100.0 * (1.0 - times[0] / times[1])
