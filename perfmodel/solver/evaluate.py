"""One plan as plain numbers, with its terms, ledger, metrics and bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.operators.layers import Sizes, embedding_calls, head_calls, layer_calls
from perfmodel.phases.compose import Exposure, Node
from perfmodel.phases.training import Step
from perfmodel.serving.open_loop import percentiles
from perfmodel.serving.steady import Replica
from perfmodel.solver.problems import ServingProblem, TrainingProblem
from perfmodel.solver.result import Degree, EvaluatedPlan, Interval, LedgerLine, Spent, StageLedger, TermRow
from perfmodel.solver.running import (
    expected_metrics,
    headroom,
    interruptions,
    plan_power,
    prefill_share,
    run_metrics,
    serving_bill,
    serving_peak,
    serving_power,
    stall_share,
    training_power,
)
from perfmodel.specs.architecture import Architecture
from perfmodel.techniques.base import Line, Technique
from perfmodel.techniques.settled import Plan, Settled

__all__ = [
    "bottleneck_of",
    "describe_plan",
    "evaluate_plan",
    "model_flops_per_token",
    "stage_ledgers",
    "summary_of",
    "term_rows",
]


def term_rows(exposures: Sequence[Exposure]) -> tuple[TermRow, ...]:
    """Rows merged by name, largest first; zero rows dropped."""
    merged: dict[str, list[Any]] = {}
    for row in exposures:
        entry = merged.setdefault(row.name, [0.0, 0.0, {}])
        entry[0] += row.exposed
        entry[1] += row.busy
        entry[2][row.resource] = entry[2].get(row.resource, 0.0) + max(row.exposed, 1e-30)
    total = sum(e[0] for e in merged.values()) or 1.0
    rows = [TermRow(n, max(e[2], key=e[2].get), e[0], e[1], e[0] / total) for n, e in merged.items() if e[1] or e[0]]
    return tuple(sorted(rows, key=lambda r: -r.seconds))


def stage_ledgers(
    ledgers: Mapping[str, Sequence[Line]], tiers: Mapping[str, float], stages: float
) -> tuple[StageLedger, ...]:
    """Ledger per stage; one stage has one ledger."""
    result = []
    for stage, lines in ledgers.items():
        summed: dict[tuple[str, str], float] = {}
        for line in lines:
            summed[line.name, line.tier] = summed.get((line.name, line.tier), 0.0) + float(line.bytes)
        kept = tuple(LedgerLine(name, tier, size) for (name, tier), size in summed.items() if size > 0.0)
        totals: dict[str, float] = {}
        for entry in kept:
            totals[entry.tier] = totals.get(entry.tier, 0.0) + entry.bytes
        result.append(StageLedger(stage, kept, totals, {t: float(tiers[t]) for t in totals}))
    return tuple(result) if stages > 1 else (result[0]._replace(stage="only"),)


def _degrees(s: Settled) -> tuple[Degree, ...]:
    """Dims nearest first with the level their ranks stay inside."""
    result, reach = [], 1.0
    for dim in sorted(s.dims, key=lambda d: d.near):
        reach *= float(dim.degree)
        level = next((lvl.name for lvl in s.network.levels if reach <= lvl.reach), s.network.levels[-1].name)
        result.append(Degree(dim.name, round(float(dim.degree)), level))
    return tuple(result)


def summary_of(x: Plan, techniques: Sequence[Technique]) -> tuple[str, ...]:
    """Active techniques in words: those with a column away from its neutral value."""
    words = []
    for technique in techniques:
        changed = {c: getattr(x, c) for c, v in technique.neutral.items() if getattr(x, c) != v}
        if technique.describe is not None:
            words.append(technique.describe(x))
        elif changed:
            values = ", ".join(f"{c.replace('_', ' ')} {_number(v)}" for c, v in changed.items())
            words.append(f"{technique.name.replace('_', ' ')}: {values}")
    return tuple(word for word in words if word)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


@lru_cache(maxsize=64)
def model_flops_per_token(
    architecture: Architecture, sequence: float, documents: tuple[tuple[float, float], ...] = ()
) -> float:
    """Forward FLOP per token of a sequence: every product once, attention by its causal pairs [FLOP].

    ``documents`` are the classes of shorter sequences packed into it, as in :class:`perfmodel.operators.layers.Sizes`.

    Training counts three times this (backward is twice the forward), recomputation not included: the definition of
    MFU here.
    """
    sizes = Sizes(sequences=1.0, queries=sequence, context=sequence, documents=documents)
    calls = [*layer_calls(architecture, sizes)]
    layers = sum(c.work.flops * c.share for c in calls if c.work.operator != "elementwise") * architecture.layers
    ends = [*embedding_calls(architecture, sizes), *head_calls(architecture, sizes, rows=sequence, logit_bytes=0.0)]
    return float(layers + sum(c.work.flops for c in ends if c.work.operator == "gemm")) / sequence


def evaluate_plan(problem: TrainingProblem | ServingProblem, x: Plan) -> EvaluatedPlan:
    """Evaluate one plan as numbers: the same functions as the mesh, with names kept."""
    if isinstance(problem, TrainingProblem):
        return _training(problem, x)
    return _serving(problem, x)


def _basis(interval_kind: str) -> Interval:
    return Interval(0.0, 0.0, interval_kind)


def _training(problem: TrainingProblem, x: Plan) -> EvaluatedPlan:
    step: Step = problem.evaluate(x)
    workload, machine = problem.situation.workload, problem.machine
    seconds, devices = float(step.seconds), round(x.devices)
    exposures = step.tree.exposed()
    rows = term_rows(exposures)
    tokens = workload.global_batch
    layout = step.settled.layout
    passes = float(layout.forward_passes + 2.0 * layout.backward_passes)
    flops = passes * model_flops_per_token(problem.situation.architecture, workload.sequence, workload.documents)
    peak = machine.main.peak(workload.recipe.compute) / machine.main.clock
    extra = float(layout.extra_steps)
    run_seconds = seconds * workload.steps * (1.0 + extra)
    shares = training_power(machine, step)
    power = plan_power(machine, shares, devices)
    failures = interruptions(machine, step, workload, devices)
    metrics: dict[str, float | None] = {
        "step_seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "tokens_per_second_per_device": tokens / seconds / devices,
        "mfu": tokens / seconds * flops / (devices * peak),
        **run_metrics(machine, devices, run_seconds, sum(power.values())),
        **expected_metrics(machine, devices, run_seconds, sum(power.values()), failures),
        "micro_batches": float(step.settled.micro_batches),
        "average_power_kw": sum(power.values()),
        **headroom(machine, devices, machine.main.draw.limit),
    }
    return EvaluatedPlan(
        columns=dict(vars(x)),
        degrees=_degrees(step.settled),
        summary=summary_of(x, problem.techniques),
        devices=devices,
        seconds=seconds,
        metrics=metrics,
        terms=rows,
        timed_seconds=seconds,
        bound_seconds=_training_bound(problem, step, flops * tokens, peak * devices),
        ledgers=stage_ledgers(step.ledgers, machine.tiers, float(step.settled.stages)),
        bottleneck=bottleneck_of(rows),
        interval=_basis("not drawn"),
        quality=_published(step.settled),
        losses=_losses(x, problem),
        constraints={n: float(r) for n, r in step.ratios.items()},
        power=power,
        interruptions={n: float(v) for n, v in failures._asdict().items()},
    )


def _published(s: Settled) -> float | None:
    loss = float(s.layout.quality_loss + s.layout.quality_accepted)
    return None if loss != loss or s.layout.quality_unknown else loss


def _losses(x: Plan, problem: TrainingProblem | ServingProblem) -> tuple[Spent, ...]:
    """What every active technique costs in quality, as published."""
    found = []
    for t in problem.techniques:
        changed = [f"{getattr(x, c)}" for c, v in t.neutral.items() if getattr(x, c) != v]
        if t.quality is not None and changed:
            found.append(Spent(t.name, ", ".join(changed), t.quality(x, problem.situation)))
    return tuple(found)


def _training_bound(problem: TrainingProblem, step: Step, flops: float, peak: float) -> float:
    """Every product at peak on all devices, and every parameter's state read and written once at full bandwidth [s]."""
    s = step.settled
    owned = sum(float(f.heaviest / f.shards(s.layout.optimizer_shards)) for f in s.families)
    owned *= float(s.layout.backward_passes)
    states = owned * (2.0 * s.optimizer_bytes * (1.0 - float(s.layout.optimizer_off)) + s.gradients_bytes)
    return float(flops / peak + states / problem.machine.main.bandwidth)


def bottleneck_of(rows: Sequence[TermRow]) -> str:
    """Resource with the largest exposed share."""
    shares: dict[str, float] = {}
    for row in rows:
        shares[row.resource] = shares.get(row.resource, 0.0) + row.seconds
    return max(shares, key=lambda r: shares[r]) if shares else "none"


def _serving(problem: ServingProblem, x: Plan) -> EvaluatedPlan:
    replica: Replica = problem.evaluate(x)
    s, workload, machine = replica.settled, problem.situation.workload, problem.machine
    replicas = float(problem.replicas(replica))
    devices = round(float(replica.devices) * replicas)
    rate = float(replica.rate) if workload.rate is None else min(float(replica.rate), workload.rate / replicas)
    output = rate * workload.output
    per_device = output / float(replica.devices)
    price = machine.price
    duration = float(replica.ttft) + (workload.output - 1) * float(replica.tpot)
    shares = serving_power(machine, replica, min(rate / float(replica.rate), 1.0))
    power = plan_power(machine, shares, devices)
    dollars = None if price is None else price / per_device * 1e6
    metrics: dict[str, float | None] = {
        "ttft_seconds": float(replica.ttft),
        "tpot_seconds": float(replica.tpot),
        "e2e_seconds": duration,
        "pass_seconds": float(replica.pass_seconds),
        "tokens_per_pass": float(s.layout.tokens_per_pass),
        "tokens_per_second_per_user": 1.0 / float(replica.tpot),
        "output_tokens_per_second_per_device": per_device,
        "output_tokens_per_second": output * replicas,
        "total_tokens_per_second_per_device": rate * (workload.output + workload.prompt) / float(replica.devices),
        "requests_per_second": rate * replicas,
        "requests_per_second_at_most": float(replica.rate) * replicas,
        "replicas": replicas,
        "devices_per_replica": float(replica.devices),
        "batch_per_replica": float(x.batch),
        "usd_per_million_output_tokens": dollars,
        **serving_bill(machine, replica, rate, price),
        **percentiles(replica),
        "kv_tokens_capacity": _kv_capacity(replica, machine.tiers),
        "prefill_share": float(prefill_share(replica)),
        "stall_share": float(stall_share(replica)),
        "average_power_kw": sum(power.values()),
        **headroom(machine, devices, serving_peak(machine, replica, replicas)),
    }
    found = describe_plan(problem, x, s, replica.decode, replica.ledgers, replica.ratios)
    return replace(
        found,
        devices=devices,
        seconds=float(replica.tpot),
        metrics=metrics,
        extra_terms={"prefill": term_rows(replica.prefill.exposed())},
        power=power,
    )


def describe_plan(
    problem: ServingProblem, x: Plan, s: Settled, node: Node, ledgers: Mapping[str, Sequence[Line]],
    ratios: Mapping[str, Scalar],
) -> EvaluatedPlan:  # fmt: skip
    """What is known of one replica and one of its passes: columns, terms, memory; load and money are not in it."""
    exposures = node.exposed()
    rows, seconds = term_rows(exposures), float(node.elapsed())
    return EvaluatedPlan(
        columns=dict(vars(x)),
        degrees=_degrees(s),
        summary=summary_of(x, problem.techniques),
        devices=round(math.prod(float(dim.degree) for dim in s.dims)),
        seconds=seconds,
        metrics={},
        terms=rows,
        timed_seconds=seconds,
        bound_seconds=float(node.bound()),
        ledgers=stage_ledgers(ledgers, problem.machine.tiers, float(s.stages)),
        bottleneck=bottleneck_of(rows),
        interval=_basis("not drawn"),
        quality=_published(s),
        losses=_losses(x, problem),
        constraints={n: float(r) for n, r in ratios.items()},
        gain=float(s.layout.tokens_per_pass),
    )


def _kv_capacity(replica: Replica, tiers: Mapping[str, float]) -> float:
    """Cached tokens that fit beside everything else, on the fuller stage, for the whole replica."""
    s = replica.settled
    tokens = []
    for name, layers in (("first", s.first_layers), ("last", s.last_layers)):
        lines = replica.ledgers[name]
        tier = next(line.tier for line in lines if line.name == "KV cache")
        others = sum(float(line.bytes) for line in lines if line.tier == tier and line.name != "KV cache")
        per_token = float(layers) * float(s.cache_per_sequence) / float(s.context)
        tokens.append(max(float(tiers[tier]) - others, 0.0) / per_token if per_token else float("inf"))
    return min(tokens) * float(s.split("batch"))
