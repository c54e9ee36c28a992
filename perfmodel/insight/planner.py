"""From a question to an answer: build, search, evaluate the winners, explain the losers, say how sure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.errors import SpecError
from perfmodel.insight.confidence import draw
from perfmodel.machine.build import DEFAULT_SPREAD, Machine, build_machine
from perfmodel.network.build import build_network
from perfmodel.network.topology import Network
from perfmodel.solver.evaluate import evaluate_plan
from perfmodel.solver.problems import OBJECTIVES, ServingProblem, TrainingProblem
from perfmodel.solver.result import Answer, Certificate, EvaluatedPlan, ParetoPoint, Rejected, Rival, ScalingRow
from perfmodel.solver.search import Candidate, Outcome, search
from perfmodel.solver.space import Space, build_space
from perfmodel.specs.framework import Framework
from perfmodel.specs.model import Model
from perfmodel.specs.system import System
from perfmodel.specs.workload import Workload
from perfmodel.techniques import techniques_for
from perfmodel.techniques.base import Situation

__all__ = ["EFFICIENT", "Question", "Setting", "answer", "make_setting"]

EFFICIENT = 0.9
"""Where the device count is free, the largest that keeps this share of the best per-device efficiency is chosen."""
RUNNERS_UP = 3


@dataclass(frozen=True)
class Question:
    """What is asked, apart from machine, model and workload.

    Parameters
    ----------
    objective : ``time``, ``throughput``, ``cost`` or ``energy``; ``None`` takes the phase's default.
    devices : number of devices, ``None`` to choose it.
    pinned : plan columns held fixed (a value, or values to search).
    use : techniques asked for by name although they change the numerics.
    max_quality_loss : largest published relative loss of quality a plan may spend.
    """

    objective: str | None = None
    devices: int | None = None
    pinned: Mapping[str, Any] | None = None
    use: tuple[str, ...] = ()
    max_quality_loss: float | None = None


@dataclass(frozen=True)
class Setting:
    """A model on a machine under a workload, built and ready to search."""

    model: Model
    system: System
    workload: Workload
    framework: Framework
    question: Question
    problem: TrainingProblem | ServingProblem
    space: Space
    machine: Machine
    network: Network

    @property
    def phase(self) -> str:
        """``training`` or ``serving``."""
        return self.workload.kind


def make_setting(model: Model, system: System, workload: Workload, framework: Framework, question: Question) -> Setting:
    """Build machine, network, techniques and space for a question.

    Raises
    ------
    PerfmodelError
        If the question contradicts itself, the machine or the model.
    """
    _check(model, workload, question)
    machine, network = build_machine(system), build_network(system.cluster)
    devices = machine.devices if question.devices is None else question.devices
    if devices > machine.devices:
        raise SpecError(
            "more devices than the machine has", field="devices", found=devices, allowed=f"1 to {machine.devices}"
        )
    situation = Situation(workload.kind, model.architecture, machine, workload, int(devices))
    lossy = question.max_quality_loss is not None and question.max_quality_loss > 0
    techniques = techniques_for(workload.kind, lossy=lossy, use=question.use)
    pinned = dict(question.pinned or {})
    if workload.kind == "training" and question.devices is not None:
        pinned.setdefault("devices", question.devices)
    constants = {n: getattr(framework.facts, n).value for n in type(framework.facts).model_fields}
    common = (techniques, situation, machine, network, constants)
    objective = question.objective or ("time" if workload.kind == "training" else "throughput")
    kind = TrainingProblem if workload.kind == "training" else ServingProblem
    problem = kind(*common, objective, question.max_quality_loss, frozenset(question.use))
    space = build_space(techniques, situation, pinned)
    return Setting(model, system, workload, framework, question, problem, space, machine, network)


def _check(model: Model, workload: Workload, question: Question) -> None:
    if question.objective is not None and question.objective not in OBJECTIVES:
        raise SpecError("unknown objective", field="objective", found=question.objective, allowed=", ".join(OBJECTIVES))
    if question.devices is not None and question.devices < 1:
        raise SpecError("at least one device is needed", field="devices", found=question.devices)
    loss = question.max_quality_loss
    if loss is not None and not 0.0 <= loss <= 1.0:
        raise SpecError("a share is needed", field="max_quality_loss", found=loss, allowed="0 to 1, e.g. 0.03 or 3%")
    longest = model.architecture.max_positions
    wanted = workload.sequence if workload.kind == "training" else workload.prompt + workload.output
    if longest is not None and wanted > longest and model.architecture.extra and _learned_positions(model):
        raise SpecError(
            f"{model.name} has learned positions for {longest} tokens",
            field="workload.sequence" if workload.kind == "training" else "workload.prompt",
            found=wanted,
            allowed=f"up to {longest} tokens; --set-workload sequence={longest}",
        )


def _learned_positions(model: Model) -> bool:
    """Whether positions are a table that ends (GPT-2, OPT), not a formula."""
    return model.architecture.family in ("gpt2", "opt", "gpt_bigcode", "gpt_neo", "megatron_gpt")


def answer(setting: Setting, *, progress: Callable[[int], None] | None = None) -> Answer:
    """Search and explain."""
    started = time.perf_counter()
    outcome = search(setting.space, setting.problem, progress=progress)
    elapsed = time.perf_counter() - started
    chosen = _choose(setting, outcome)
    if chosen is None:
        return _impossible(setting, outcome, elapsed)
    candidates = _distinct(chosen)
    plans = [evaluate_plan(setting.problem, c.plan) for c in candidates]
    draws = draw(plans, [c.score for c in candidates], setting.machine, network_spread=_network_spread(setting.system))
    best = _with_interval(plans[0], draws.interval)
    rivals = tuple(
        _rival(best, plan, c.score / candidates[0].score) for plan, c in zip(plans[1:], candidates[1:], strict=True)
    )
    gap = candidates[1].score / candidates[0].score - 1.0 if len(candidates) > 1 else None
    certificate = _certificate(setting, outcome, elapsed, gap)._replace(
        win_probability=draws.win_probability, regret=draws.regret
    )
    return Answer(
        phase=setting.phase,
        workload=setting.workload.name,
        best=best,
        runners_up=rivals[:RUNNERS_UP],
        rejected=_rejected(setting, outcome, candidates[0]),
        scaling=_scaling(setting, outcome, best.devices),
        pareto=_pareto(setting, outcome),
        pareto_axes=_pareto_axes(setting),
        certificate=certificate,
        assumptions=_assumptions(setting, best),
        provenance=_provenance(setting),
    )


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


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best first, leaving out plans that tie with or differ only in a detail from one already listed."""
    kept: list[Candidate] = []
    seen: set[tuple[Any, ...]] = set()
    for candidate in candidates:
        x = vars(candidate.plan)
        key = tuple(
            (n, x[n]) for n in ("devices", "tp", "pp", "cp", "ep", "int4", "attention_engine", "recompute") if n in x
        )
        tied = any(abs(candidate.score / k.score - 1.0) < 1e-9 for k in kept)
        if key not in seen and not tied:
            seen.add(key)
            kept.append(candidate)
    return kept[: RUNNERS_UP + 5]


def _rival(best: EvaluatedPlan, plan: EvaluatedPlan, ratio: float) -> Rival:
    """Terms on which a plan loses, largest first."""
    mine = {r.name: r.seconds for r in best.terms}
    losses = [(r.name, r.seconds - mine.get(r.name, 0.0)) for r in plan.terms]
    losses = [(n, d) for n, d in losses if d > 0.002 * best.timed_seconds]
    return Rival(plan, ratio, tuple(sorted(losses, key=lambda item: -item[1])[:3]))


def _with_interval(plan: EvaluatedPlan, interval: Any) -> EvaluatedPlan:
    from dataclasses import replace

    return replace(plan, interval=interval)


def _network_spread(system: System) -> float:
    """Relative half-width of the link efficiencies; the widest of the levels."""
    spreads = [
        level.efficiency.spread if level.efficiency.spread is not None else DEFAULT_SPREAD[level.efficiency.kind]
        for level in system.cluster.levels.values()
    ]
    return max(spreads, default=0.0)


def _certificate(setting: Setting, outcome: Outcome, elapsed: float, gap: float | None) -> Certificate:
    return Certificate(
        candidates=outcome.cells,
        left_out=outcome.left_out,
        legal=outcome.legal,
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


def _rejected(setting: Setting, outcome: Outcome, best: Candidate | None) -> tuple[Rejected, ...]:
    """Nearest misses at the chosen device count that would have won; else those that come closest."""
    misses = [
        m for (_, n), m in outcome.near.items() if best is None or n == int(best.devices) or setting.phase == "serving"
    ]
    if best is not None:
        better = [m for m in misses if m.candidate.score < best.score]
        misses = better or misses
    by_constraint: dict[str, Any] = {}
    for miss in sorted(misses, key=lambda m: m.candidate.score if best else m.ratio):
        by_constraint.setdefault(miss.constraint, miss)
    result = []
    for miss in list(by_constraint.values())[:3]:
        plan = evaluate_plan(setting.problem, miss.candidate.plan)
        result.append(Rejected(miss.constraint, miss.ratio, plan, miss.plans, _remedy(miss.constraint, miss.ratio)))
    return tuple(result)


def _remedy(constraint: str, ratio: float) -> str:
    """What would have to change for a rejected plan to be legal."""
    if constraint.endswith("memory"):
        return f"needs {ratio:.2f} × the {constraint}"
    if constraint == "quality":
        return f"spends {ratio:.2f} × the quality budget; --max-quality-loss raises it"
    if constraint in ("TTFT", "TPOT", "end-to-end"):
        return f"{constraint} is {ratio:.2f} × its limit; --set-workload slo.{constraint.lower()} relaxes it"
    return f"{ratio:.2f} × the limit"


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
        return tuple(_serving_point(setting, c) for c in outcome.front)
    best = [candidates[0] for candidates in outcome.by_devices.values()]
    front: list[ParetoPoint] = []
    for c in sorted(best, key=lambda c: c.seconds):
        rate = setting.workload.global_batch / c.seconds
        if not front or rate / c.devices > front[-1].y:
            front.append(ParetoPoint(rate, rate / c.devices, dict(vars(c.plan))))
    return tuple(front)


def _serving_point(setting: Setting, c: Candidate) -> ParetoPoint:
    assert isinstance(setting.problem, ServingProblem)  # noqa: S101 - narrows the type, not user input
    replica = setting.problem.evaluate(c.plan)
    per_device = float(replica.rate) * setting.problem.situation.workload.output / float(replica.devices)
    return ParetoPoint(1.0 / c.seconds, per_device, dict(vars(c.plan)))


def _impossible(setting: Setting, outcome: Outcome, elapsed: float) -> Answer:
    """No legal plan: what binds, by how much, and the plan that comes nearest."""
    rejected = _rejected(setting, outcome, None)
    if not rejected and outcome.closest is not None:
        ratio, name, candidate = outcome.closest
        plan = evaluate_plan(setting.problem, candidate.plan)
        rejected = (Rejected(name, ratio, plan, 0, _remedy(name, ratio)),)
    return Answer(
        phase=setting.phase,
        workload=setting.workload.name,
        best=None,
        runners_up=(),
        rejected=rejected,
        scaling=(),
        pareto=(),
        pareto_axes=_pareto_axes(setting),
        certificate=_certificate(setting, outcome, elapsed, None),
        assumptions=_assumptions(setting, None),
        provenance=_provenance(setting),
    )


def _assumptions(setting: Setting, best: EvaluatedPlan | None) -> tuple[tuple[str, str], ...]:
    """What was assumed, each with the flag that changes it."""
    workload, found = setting.workload, []
    if workload.kind == "training":
        batch = workload.global_batch / workload.sequence
        found.append(
            (f"{workload.name}: {batch:,.0f} sequences of {workload.sequence:,} tokens per step", "--workload")
        )
        r = workload.recipe
        states = f"{r.weights:g} + {r.gradients:g} + {r.optimizer_bytes:g} B per parameter"
        found.append((f"{r.name} ({states} for weights, gradients, optimizer)", "--set-workload recipe=…"))
        if setting.question.devices is None and setting.problem.objective == "time":
            found.append(
                (f"device count: the largest that keeps {EFFICIENT:.0%} of the best per-device speed", "--devices")
            )
    else:
        slo = [f"{n.upper()} ≤ {v:g} s" for n in ("ttft", "tpot", "e2e") if (v := getattr(workload.slo, n)) is not None]
        limits = ", ".join(slo) or "no latency limit"
        found.append(
            (f"{workload.name}: {workload.prompt:,} prompt + {workload.output:,} output tokens, {limits}", "--workload")
        )
        load = "as many requests as the limits allow" if workload.rate is None else f"{workload.rate:g} requests/s"
        found.append((f"{load}, steady state, mean lengths", "--set-workload rate=…"))
        found.append(
            (f"weights {_served_format(setting)}, KV cache {workload.kv_format}", "--set-workload kv_format=…")
        )
    name, version = setting.framework.name, setting.framework.version
    found.append((f"software behaves like {name} {version}", "--framework"))
    if best is not None and best.quality is None:
        found.append(("quality of a technique in use is unknown for this model", "--max-quality-loss"))
    return tuple(found)


def _served_format(setting: Setting) -> str:
    from perfmodel.phases.serving import weight_format
    from perfmodel.techniques.record import Layout

    stored = setting.model.architecture.weight_format
    used = weight_format(setting.problem.situation, Layout())
    return used if used == stored else f"{used} (checkpoint: {stored}, which this device does not run)"


def _provenance(setting: Setting) -> tuple[tuple[str, str, str], ...]:
    """The facts that decide most, with kind and source."""
    device, cluster = setting.system.accelerator, setting.system.cluster
    rows: list[tuple[str, str, str]] = []
    wanted = setting.machine.main.compute_format("bf16")
    rate = device.peak.matrix.get(wanted) or device.peak.vector.get(wanted)
    if rate is not None:
        rows.append((f"{wanted} peak {rate.text}", rate.kind, device.sources.get(rate.source, rate.source)))
    last = device.memory[list(device.memory)[-1]]
    if last.bandwidth is not None:
        text = f"memory {last.capacity.text} at {last.bandwidth.text}"
        rows.append((text, last.bandwidth.kind, device.sources.get(last.bandwidth.source, last.bandwidth.source)))
    gemm = setting.machine.main.constant("gemm", wanted)
    rows.append(
        (f"sustained matrix share {gemm.compute_fraction:.0%}", gemm.kind, "calibration of the device or its class")
    )
    for name, level in cluster.levels.items():
        fact = level.efficiency
        rows.append((f"{name} links reach {fact.value:.0%}", fact.kind, cluster.sources.get(fact.source, fact.source)))
    return tuple(rows)


def scaled(value: Scalar) -> float:
    """Plain float of a scalar."""
    return float(value)
