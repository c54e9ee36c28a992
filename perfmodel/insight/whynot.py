"""Why not: the nearest plans that a constraint rejects, and what would make them possible."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from perfmodel.errors import PerfmodelError
from perfmodel.insight.capacity import carried, needed
from perfmodel.insight.setting import Setting, make_setting
from perfmodel.phases.settle import declare
from perfmodel.solver.evaluate import evaluate_plan
from perfmodel.solver.placement import placed_exactly
from perfmodel.solver.result import Rejected
from perfmodel.solver.search import Candidate, NearMiss, Outcome, search
from perfmodel.specs.slo import Slo
from perfmodel.specs.workload import revise
from perfmodel.techniques.settled import Plan
from perfmodel.units import format_seconds

__all__ = ["nearest_rejected", "what_would_do"]

LIMITS = tuple(f"slo.{name}" for name in Slo.model_fields)
"""Every latency limit of a workload."""
SAVERS: tuple[tuple[str, dict[str, float]], ...] = (
    ("full recomputation", {"recompute": 2.0}),
    ("the optimizer on the host", {"optimizer_host": 1.0}),
    ("full recomputation and the optimizer on the host", {"recompute": 2.0, "optimizer_host": 1.0}),
)
"""Changes that save memory, mildest first."""


FEWEST_BITS = 8.0
"""From 16 bits to the 2 of the narrowest formats: what lies further beyond a limit, no format brings within it [1]."""
FEWER_BITS = "weights, cache or wires in fewer bits: --max-quality-loss"


def nearest_rejected(setting: Setting, outcome: Outcome, best: Candidate | None) -> tuple[Rejected, ...]:
    """Plans that one constraint alone rejects and that would have won; else those that come closest.

    Without a legal plan, the plan whose worst constraint is least violated comes first.
    """
    if best is None:
        return _closest(setting, outcome)
    misses = [m for (_, n), m in outcome.near.items() if n == int(best.devices) or setting.phase == "serving"]
    better = [m for m in misses if m.candidate.score < best.score]
    by_constraint: dict[str, NearMiss] = {}
    for miss in sorted(better or misses, key=lambda m: m.candidate.score * m.ratio):
        by_constraint.setdefault(miss.constraint, miss)
    return tuple(_explained(setting, miss) for miss in list(by_constraint.values())[:3])


def _closest(setting: Setting, outcome: Outcome) -> tuple[Rejected, ...]:
    if outcome.closest is None:
        return ()
    ratio, name, candidate = outcome.closest
    return (_explained(setting, NearMiss(name, ratio, candidate, outcome.alone.get(name, 0))),)


def _explained(setting: Setting, miss: NearMiss) -> Rejected:
    plan = evaluate_plan(setting.problem, miss.candidate.plan)
    return Rejected(miss.constraint, miss.ratio, plan, miss.plans, _remedy(setting, miss))


def _remedy(setting: Setting, miss: NearMiss) -> str:
    """What would have to change for a rejected plan to be legal."""
    name, ratio = miss.constraint, miss.ratio
    if name.endswith("memory"):
        return f"needs {ratio:.2f} × the {name}{_saved(setting, miss.candidate.plan)}"
    if name == "quality":
        return f"spends {ratio:.2f} × the quality budget; --max-quality-loss raises it"
    limit = setting.workload.slo.limit(name) if setting.workload.kind == "serving" else None
    if limit is not None:
        return f"{name} is {ratio:.2f} × its limit; --set-workload slo.{limit.field}=… relaxes it"
    return f"{ratio:.2f} × the limit"


def _saved(setting: Setting, x: Plan) -> str:
    """The mildest change that makes the plan fit, with its price."""
    for words, changes in SAVERS:
        columns = vars(x)
        if not changes.keys() <= columns.keys() or all(columns[n] == v for n, v in changes.items()):
            continue
        if "optimizer_host" in changes and "host" not in setting.machine.engines:
            continue
        changed = evaluate_plan(setting.problem, Plan(**{**columns, **changes}))
        if changed.legal:
            return f"; would fit with {words}, then {format_seconds(changed.seconds)}"
    return ""


def what_would_do(setting: Setting, outcome: Outcome) -> tuple[str, ...]:
    """Changes of the question that make an impossible plan possible, each tried by a search of its own.

    Where no plan is even well formed (``outcome``), what is pinned contradicts itself: each pin is dropped in turn.
    """
    question = setting.question
    found = _beyond_the_machine(setting)
    tried: list[tuple[str, Any]] = []
    if question.devices is not None and question.devices < setting.machine.devices:
        tried.append(("more devices: --devices", replace(question, devices=None, pinned=_without(question.pinned))))
    near = outcome.closest is None or outcome.closest[0] <= FEWEST_BITS
    if (question.max_quality_loss or 0.0) < 1.0 and near and not found:  # a rate too high asks for machines, not bits
        tried.append((FEWER_BITS, replace(question, max_quality_loss=1.0)))
    pins = question.common_pins if not outcome.closest else {}
    tried += [
        (f"without --pin {n}={v}", replace(question, pinned=_without(question.pinned, n))) for n, v in pins.items()
    ]
    asked = [(words, other, setting.workload) for words, other in tried]
    if setting.workload.kind == "serving" and any(v for _, v in setting.workload.slo):
        asked.append(("no latency limits", question, revise(setting.workload, dict.fromkeys(LIMITS))))
    for words, other, workload in asked:
        try:
            retry = make_setting(setting.model, setting.system, workload, setting.framework, other)
        except PerfmodelError:
            continue
        again = _least_loss(setting, retry) if words == FEWER_BITS else search(retry.space, retry.problem)
        placed_exactly(retry.problem, retry.space, again)
        if again.best:
            found.append(_offer(words, retry, again))
    return tuple(found)


def _beyond_the_machine(setting: Setting) -> list[str]:
    """What a service that asks for a rate can have of this machine, and how much of it would do."""
    if setting.workload.kind != "serving" or setting.workload.rate is None:
        return []
    return [text for text in (carried(setting), needed(setting)) if text]


def _least_loss(setting: Setting, retry: Setting) -> Outcome:
    """Plans of the least published loss with which there are any, beyond the budget that had none."""
    budget = setting.question.max_quality_loss or 0.0
    outcome = Outcome()
    for loss, part in retry.space.parts(partial(_loss, retry)):
        if budget < loss <= 1.0:
            outcome = search(part, retry.problem)
            if outcome.best:
                return outcome
    return outcome


def _loss(setting: Setting, names: Plan) -> float:
    """Published loss of what a plan names, all else neutral."""
    problem = setting.problem
    neutral = {name: value for t in problem.techniques for name, value in t.neutral.items()}
    layout = declare(problem.techniques, Plan(**{**neutral, **vars(names)}), problem.situation)[1]
    return float(layout.quality_loss)


def _unlimited(words: str, retry: Setting, outcome: Outcome) -> str:
    """The quickest plan without limits, in words that say what limits it would meet."""
    known = [*outcome.front, *(c for found in outcome.by_devices.values() for c in found)]
    quickest = min(known, key=lambda c: c.seconds)
    plan = evaluate_plan(retry.problem, quickest.plan)
    ttft, tpot = (format_seconds(float(plan.metrics[n] or 0.0)) for n in ("ttft_seconds", "tpot_seconds"))
    return f"{words}: TTFT {ttft} and TPOT {tpot} at best{', ' if plan.summary else ''}{', '.join(plan.summary)}"


def _without(pinned: Any, name: str = "devices") -> dict[str, Any]:
    return {n: v for n, v in (pinned or {}).items() if n != name}


def _offer(words: str, retry: Setting, outcome: Outcome) -> str:
    if words.startswith("more devices"):
        return f"{words} {min(outcome.by_devices)} or more"
    if words.startswith("no latency"):
        return _unlimited(words, retry, outcome)
    plan = evaluate_plan(retry.problem, outcome.best[0].plan)
    if words.startswith("without"):
        return f"{words}: {', '.join(plan.summary) or 'one device, no parallelism'}"
    loss = "unknown" if plan.quality is None else f"{plan.quality:.1%}"
    budget = math.ceil(1e3 * (plan.quality or 0.0)) / 1e3
    return f"{words} {budget:.3f} (published loss {loss}): {', '.join(plan.summary)}"
