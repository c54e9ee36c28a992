"""Storage, operations and traffic of layers that share weights."""

from __future__ import annotations

from perfmodel.api import settings_of
from perfmodel.calibration.claims.run import Run
from perfmodel.insight.setting import Setting
from perfmodel.operators.layers import layer_calls
from perfmodel.phases.serving import settle_passes
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["layer_work", "storage"]


def storage(run: Run, plan: str, of: str) -> float:
    """Stored weights of the layers of one plan over those of another; embedding and head apart."""

    def held(name: str) -> float:
        found = run.estimate(run.asked(name))
        architecture = found.model.architecture
        ends = architecture.embedding_parameters + architecture.head_parameters + architecture.extra
        return sum(line.bytes for line in found.plan.ledgers[0].lines if line.name == "weights") - 2.0 * ends

    return held(plan) / held(of)


def layer_work(run: Run, plan: str, of: str, what: str) -> float:
    """Operations, or bytes read, of the matrix products of all layers in a decode pass, one plan over another."""

    def total(name: str) -> float:
        s, setting = _decode(run, name)
        calls = [c for c in layer_calls(s.architecture, s.sizes) if c.work.operator == "gemm"]
        cache = setting.machine.main.cache
        one = sum(c.share * float(c.work.flops if what == "flops" else c.work.traffic(cache)) for c in calls)
        return s.layers * one

    return total(plan) / total(of)


def _decode(run: Run, name: str) -> tuple[Settled, Setting]:
    """The settled decode pass of a plan."""
    found = run.estimate(run.asked(name))
    setting = settings_of(found.request, found.model, found.system)[0]
    problem = setting.problem
    x = Plan(**found.plan.columns)
    passes = settle_passes(x, problem.techniques, problem.situation, problem.network, problem.framework)
    return passes["decode"], setting
