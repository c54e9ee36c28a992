"""From a question to an answer: build, search, evaluate the winners, explain the losers, say how sure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from perfmodel.insight.confidence import draw
from perfmodel.insight.kernels import kernels_in_use
from perfmodel.insight.lengths import groups_by_length
from perfmodel.insight.links import network_spread
from perfmodel.insight.notes import EFFICIENT, assumptions, provenance
from perfmodel.insight.setting import Question, Setting, make_setting
from perfmodel.insight.whynot import nearest_rejected, what_would_do
from perfmodel.solver.evaluate import evaluate_plan
from perfmodel.solver.many import evaluate_each
from perfmodel.solver.placement import placed_exactly
from perfmodel.solver.problems import ServingProblem
from perfmodel.solver.result import Answer, Certificate, EvaluatedPlan, ParetoPoint, Rival, ScalingRow
from perfmodel.solver.search import Candidate, Outcome, search

__all__ = ["EFFICIENT", "Question", "Setting", "answer", "make_setting"]

RUNNERS_UP = 3
PASSES = {"training": ("training", ""), "serving": ("decode", "prefill")}
"""The pass whose time is asked for, and the one that delays it."""


def answer(setting: Setting, *, progress: Callable[[int], None] | None = None) -> Answer:
    """Search and explain."""
    started = time.perf_counter()
    outcome = search(setting.space, setting.problem, progress=progress)
    placement = placed_exactly(setting.problem, setting.space, outcome)
    elapsed = time.perf_counter() - started
    chosen = _choose(setting, outcome)
    if chosen is None:
        return _with_pools(setting, _impossible(setting, outcome, elapsed), None)
    candidates = _distinct(chosen, _telling(setting))
    plans = [evaluate_plan(setting.problem, c.plan) for c in candidates]
    timed, delaying = PASSES[setting.phase]
    uses = kernels_in_use(setting, candidates[0].plan, timed)
    others = kernels_in_use(setting, candidates[0].plan, delaying) if delaying else {}
    scores, spread = [c.score for c in candidates], network_spread(setting.system)
    draws = draw(plans, scores, uses, others, network_spread=spread)
    best = replace(plans[0], interval=draws.interval)
    rivals = tuple(
        _rival(best, plan, c.score / candidates[0].score) for plan, c in zip(plans[1:], candidates[1:], strict=True)
    )
    gap = candidates[1].score / candidates[0].score - 1.0 if len(candidates) > 1 else None
    certificate = _certificate(setting, outcome, elapsed, gap)._replace(
        win_probability=draws.win_probability, regret=draws.regret, placement=placement
    )
    found = Answer(
        phase=setting.phase,
        workload=setting.workload.name,
        best=best,
        runners_up=rivals[:RUNNERS_UP],
        rejected=nearest_rejected(setting, outcome, candidates[0]),
        scaling=_scaling(setting, outcome, best.devices),
        pareto=_pareto(setting, outcome),
        pareto_axes=_pareto_axes(setting),
        certificate=certificate,
        assumptions=assumptions(setting, best, uses),
        provenance=provenance(setting, uses),
        by_length=groups_by_length(setting, best) if getattr(setting.workload, "lengths", None) else None,
    )
    return _with_pools(setting, found, candidates[0].score)


def _with_pools(setting: Setting, found: Answer, score: float | None) -> Answer:
    """The answer of a service beside or in favour of pools of their own for prefill and decode, where that is asked."""
    wanted = setting.question.pools
    at_random = setting.phase == "serving" and setting.problem.situation.workload.random_arrivals
    if wanted == "together" or not (at_random or wanted == "apart"):
        return found
    from perfmodel.insight.apart import beside_pools

    return beside_pools(setting, found, score)


def _choose(setting: Setting, outcome: Outcome) -> list[Candidate] | None:
    """Candidates of the chosen device count, best first."""
    if not outcome.by_devices:
        return None
    problem = setting.problem
    free = setting.phase == "training" and setting.question.devices is None and problem.objective == "time"
    if not free or len(outcome.by_devices) == 1:
        return outcome.best
    efficiency = {n: 1.0 / (n * c[0].seconds) for n, c in outcome.by_devices.items()}
    most = max(efficiency.values())
    return outcome.by_devices[max(n for n, e in efficiency.items() if e >= EFFICIENT * most)]


def _telling(setting: Setting) -> tuple[str, ...]:
    """Columns in which two plans must differ to be listed side by side: the device count, and what techniques name."""
    return ("devices", *(column for t in setting.problem.techniques for column in t.telling))


def _distinct(candidates: Sequence[Candidate], telling: Sequence[str]) -> list[Candidate]:
    """Best first, leaving out plans that tie with or differ only in a detail from one already listed."""
    kept: list[Candidate] = []
    seen: set[tuple[Any, ...]] = set()
    for candidate in candidates:
        x = vars(candidate.plan)
        key = tuple((n, x[n]) for n in telling if n in x)
        tied = any(abs(candidate.score / k.score - 1.0) < 1e-9 for k in kept)
        if key not in seen and not tied:
            seen.add(key)
            kept.append(candidate)
    return kept[: RUNNERS_UP + 3]


def _rival(best: EvaluatedPlan, plan: EvaluatedPlan, ratio: float) -> Rival:
    """Terms on which a plan loses, largest first."""
    mine, theirs = _device_time(best), _device_time(plan)
    least = 0.002 * sum(mine.values())
    losses = [(n, t - mine.get(n, 0.0)) for n, t in theirs.items() if t - mine.get(n, 0.0) > least]
    return Rival(plan, ratio, tuple(sorted(losses, key=lambda item: -item[1])[:3]))


def _device_time(plan: EvaluatedPlan) -> dict[str, float]:
    """Seconds by term: of the step when training; of one device per output token when serving, prefills included."""
    batch = plan.metrics.get("batch_per_replica")
    if batch is None:
        return {r.name: r.seconds for r in plan.terms}
    share = (plan.metrics.get("devices_per_replica") or 1.0) / batch
    rows = {r.name: r.seconds / plan.gain * share for r in plan.terms}
    rows["prefill of other requests"] = max(plan.beside, 0.0) * share
    return rows


def _certificate(setting: Setting, outcome: Outcome, elapsed: float, gap: float | None) -> Certificate:
    return Certificate(
        candidates=outcome.cells,
        left_out=outcome.left_out,
        legal=outcome.legal,
        timed=outcome.timed,
        rejected={n: c for n, c in sorted(outcome.rejected.items(), key=lambda i: -i[1]) if c},
        rejected_alone={n: c for n, c in sorted(outcome.alone.items(), key=lambda i: -i[1]) if c},
        axes=outcome.axes,
        exhaustive=True,
        objective=setting.problem.objective,
        runner_up_gap=gap,
        win_probability=None,
        regret=None,
        seconds=elapsed,
    )


def _scaling(setting: Setting, outcome: Outcome, chosen: int) -> tuple[ScalingRow, ...]:
    if setting.phase != "training" or len(outcome.by_devices) < 2:
        return ()
    work = {n: 1.0 / (n * c[0].seconds) for n, c in outcome.by_devices.items()}
    most = max(work.values())
    return tuple(
        ScalingRow(n, outcome.by_devices[n][0].seconds, work[n] / most, n == chosen) for n in sorted(outcome.by_devices)
    )


def _pareto_axes(setting: Setting) -> tuple[str, str]:
    if setting.phase == "training":
        return ("tokens/s", "tokens/s/device")
    return ("output tokens/s/user", "output tokens/s/device")


def _pareto(setting: Setting, outcome: Outcome) -> tuple[ParetoPoint, ...]:
    """Front of speed against efficiency: fastest first."""
    if setting.workload.kind == "serving":
        return _serving_front(setting, outcome.front)
    best = [candidates[0] for candidates in outcome.by_devices.values()]
    front: list[ParetoPoint] = []
    for c in sorted(best, key=lambda c: c.seconds):
        rate = setting.workload.global_batch / c.seconds
        if not front or rate / c.devices > front[-1].y:
            front.append(ParetoPoint(rate, rate / c.devices, dict(vars(c.plan))))
    return tuple(front)


def _serving_front(setting: Setting, front: Sequence[Candidate]) -> tuple[ParetoPoint, ...]:
    """Tokens per second of a user and of a device, all points at once."""
    problem = setting.problem
    assert isinstance(problem, ServingProblem)  # noqa: S101 - narrows the type, not user input
    if not front:
        return ()
    rows = evaluate_each(problem, [c.plan for c in front], lambda replica: (replica.rate, replica.devices))
    output = float(problem.situation.workload.output)
    return tuple(
        ParetoPoint(1.0 / c.seconds, float(rate) * output / float(devices), dict(vars(c.plan)))
        for c, (rate, devices) in zip(front, rows, strict=True)
    )


def _impossible(setting: Setting, outcome: Outcome, elapsed: float) -> Answer:
    """No legal plan: what binds, by how much, the plan that comes nearest, and what would do."""
    return Answer(
        phase=setting.phase,
        workload=setting.workload.name,
        best=None,
        runners_up=(),
        rejected=nearest_rejected(setting, outcome, None),
        scaling=(),
        pareto=(),
        pareto_axes=_pareto_axes(setting),
        certificate=_certificate(setting, outcome, elapsed, None),
        assumptions=assumptions(setting, None),
        provenance=provenance(setting),
        possible_with=what_would_do(setting, outcome),
    )
