"""The sentences of an answer: what to use, how fast, what binds, how sure. The screen and the reports say the same."""

from __future__ import annotations

import math

from perfmodel.phases.judge import memory_limit
from perfmodel.report.service import pools_text, serving_sentences
from perfmodel.report.words import (
    GIB,
    View,
    degrees_text,
    devices_text,
    dollars,
    percent,
    resource_text,
    shares,
    spaced,
    techniques_text,
)
from perfmodel.solver.result import Answer, EvaluatedPlan, LengthGroups, Placement, Rejected, Rival, Spent
from perfmodel.specs.system import System
from perfmodel.specs.workload import ServingWorkload, TrainingWorkload
from perfmodel.units import format_bytes, format_count, format_number, format_rate, format_seconds

__all__ = [
    "bound_sentence",
    "confidence",
    "difference",
    "excess",
    "illegal",
    "impossible",
    "lengths_sentence",
    "plan_line",
    "rejected_sentence",
    "remedies",
    "rival_sentence",
    "running",
    "search_sentence",
    "speed",
    "verdict",
]

MARGIN = 1.15
"""Part of a larger memory that engines leave free again, a tenth or so, on top of what is lacking."""


def verdict(view: View, plan: EvaluatedPlan, *, use: str = "Use ") -> list[str]:
    """What to use and how fast it is; then what that means for the run or the service."""
    if isinstance(view.workload, TrainingWorkload):
        return [_training(view, plan, use), _run(view, plan)]
    return serving_sentences(view, plan, use, _interval(plan))


def running(view: View, plan: EvaluatedPlan) -> list[str]:
    """Failures with their checkpoints, and power by what draws it."""
    return [*_failures(plan), *_power(view, plan)]


def _number(plan: EvaluatedPlan, name: str) -> float:
    return plan.metrics.get(name) or 0.0


def _interval(plan: EvaluatedPlan) -> str:
    low, high = plan.interval.low, plan.interval.high
    if not high:
        return ""
    low_text, high_text = format_seconds(low), format_seconds(high)
    if low_text.split()[1:] == high_text.split()[1:]:
        low_text = low_text.split()[0]
    return f"80 % interval {low_text} to {high_text}"


def _training(view: View, plan: EvaluatedPlan, use: str) -> str:
    interval = _interval(plan)
    return (
        f"{use}{devices_text(view, plan.devices)}: {format_seconds(plan.seconds)}/step"
        + (f" ({interval})" if interval else "")
        + f", {format_number(_number(plan, 'tokens_per_second_per_device'))} tokens/s/{view.noun}"
        + f", MFU {percent(_number(plan, 'mfu'))}."
    )


def _run(view: View, plan: EvaluatedPlan) -> str:
    workload = view.workload
    tokens = f"{format_count(workload.tokens)} tokens" if isinstance(workload, TrainingWorkload) else "The run"
    days = format_seconds(_number(plan, "run_days") * 86400)
    expected = format_seconds(_number(plan, "expected_days") * 86400)
    parts = [
        days
        if expected == days
        else f"{expected} with failures ({days} without, goodput {percent(_number(plan, 'goodput'), 1)})"
    ]
    if view.per_node > 1:
        parts.append(f"{format_count(_number(plan, 'expected_node_hours'))} node-hours")
    parts.append(f"{format_count(_number(plan, 'expected_device_hours'))} {view.noun}-hours")
    energy = plan.metrics.get("expected_energy_mwh")
    if energy is None:
        parts.append("energy unknown")
    else:
        parts.append(f"{format_number(energy)} MWh" if energy >= 0.1 else f"{format_number(energy * 1e3)} kWh")
    cost = plan.metrics.get("expected_cost_usd")
    parts.append(dollars(cost) if cost is not None else "price unknown (--set price='2 USD/h')")
    carbon = plan.metrics.get("expected_co2_tonnes")
    if carbon is not None:
        parts.append(f"{format_number(carbon)} t CO2")
    return f"{tokens}: " + ", ".join(parts) + "."


def _failures(plan: EvaluatedPlan) -> list[str]:
    """How often the job is interrupted, and the checkpoints that keep the loss smallest."""
    found = plan.interruptions
    if not found or not math.isfinite(found["mtbf_seconds"]):
        return []
    size, every = format_bytes(found["checkpoint_bytes"]), format_seconds(found["interval_seconds"])
    drain = found.get("drain_seconds", 0.0)
    stop = f" (stops for {format_seconds(found['write_seconds'])}, written in {format_seconds(drain)})" if drain else ""
    return [
        f"Goodput {percent(found['goodput'], 1)}: a failure every {format_seconds(found['mtbf_seconds'])}, "
        f"{size} saved every {every}{stop}."
    ]


def _power(view: View, plan: EvaluatedPlan) -> list[str]:
    """Average power and what draws it, and what the same provision would carry."""
    total = _number(plan, "average_power_kw")
    if not plan.power or not total or view.system.accelerator.power is None:
        return []
    parts = sorted(((w, n) for n, w in plan.power.items() if w >= 0.01 * total), reverse=True)
    text = ", ".join(f"{n} {percent(w / total)}" for w, n in parts)
    room = _number(plan, "power_headroom")
    more = f"; room for {percent(room)} more under the same supply" if room >= 0.005 else ""
    return [f"{format_rate(total * 1e3, 'W')} on average: {text}{more}."]


def plan_line(view: View, plan: EvaluatedPlan) -> str:
    """The arithmetic of the degrees, then the techniques."""
    parts = [pools_text(view, plan) if plan.pools else degrees_text(plan.degrees)]
    replicas = _number(plan, "replicas")
    if replicas > 1:
        parts[0] += f" per replica, × {replicas:,.0f} replicas = {plan.devices:,}"
    words = techniques_text(plan)
    if words and not plan.pools:
        parts.append(words)
    return "; ".join(parts)


def quality(plan: EvaluatedPlan) -> list[str]:
    """What every technique costs in quality and where that stands, and what all of them cost together."""
    lines = [_spent(s) for s in plan.losses]
    if plan.quality is None and not any(s.loss is None for s in plan.losses):
        lines.append("loss unknown")
    if plan.quality and not lines:
        lines.append(f"published loss {percent(plan.quality, 1)}")
    if len(lines) > 1:
        whole = "unknown" if plan.quality is None else percent(plan.quality, 1)
        lines.append(f"together {whole}: losses are taken to add up")
    return lines


def _spent(spent: Spent) -> str:
    loss = spent.loss
    if loss is None:
        return f"{spent.chosen}: loss unknown for this model"
    if loss.bits is not None:
        where = f"interpolated between {loss.bits[0]:g} and {loss.bits[1]:g} bits of {' and '.join(loss.models)}"
    elif loss.interpolated:
        where = f"interpolated between {' and '.join(loss.models)}"
    else:
        where = "published" + (f" for {loss.models[0]}" if loss.models else "")
    return f"{spent.chosen}: {percent(loss.value, 1)} worse {loss.metric}, {where} ({loss.source})"


def bound_sentence(view: View, plan: EvaluatedPlan) -> str:
    """What binds, and how far the plan is from what no implementation beats."""
    text = f"bound by {resource_text(view, plan.bottleneck)}"
    if plan.bound_seconds > 0:
        what = "step" if isinstance(view.workload, TrainingWorkload) else "pass"
        text += (
            f"; {format_number(plan.timed_seconds / plan.bound_seconds)} × the physical lower bound of this plan "
            f"({format_seconds(plan.bound_seconds)} per {what})"
        )
    return text


def difference(view: View, before: EvaluatedPlan, after: EvaluatedPlan) -> str:
    """What a change is worth: time of a step, or tokens of a device."""
    if isinstance(view.workload, TrainingWorkload):
        text = f"{shares(after.seconds / before.seconds)} time per step"
    else:
        name = "output_tokens_per_second_per_device"
        text = f"{shares(_number(after, name) / _number(before, name))} output tokens/s/{view.noun}"
        text += f", {shares(after.seconds / before.seconds)} TPOT"
    same = before.columns == after.columns and before.devices == after.devices
    return text + ("; the best plan stays the same" if same else "; the best plan is another one")


def speed(view: View, plan: EvaluatedPlan) -> str:
    """The one number of a plan."""
    if isinstance(view.workload, TrainingWorkload):
        return f"{format_seconds(plan.seconds)}/step"
    rate = format_number(_number(plan, "output_tokens_per_second_per_device"))
    return f"{rate} output tokens/s/{view.noun} at TPOT {format_seconds(plan.seconds)}"


def rival_sentence(view: View, best: EvaluatedPlan, rival: Rival) -> str:
    """A plan that lost, how it differs, and on which terms it loses."""
    same = [d for d in rival.plan.degrees if d.degree > 1] == [d for d in best.degrees if d.degree > 1]
    degrees = "same degrees" if same else degrees_text(rival.plan.degrees, levels=False, product=False)
    differs = techniques_text(rival.plan, beside=best)
    text = f"{shares(rival.score_ratio)}  {degrees}" + (f", {differs}" if differs else "")
    text += f": {speed(view, rival.plan)}"
    if rival.loses_on:
        text += "; loses on " + ", ".join(f"{n} +{format_seconds(s)}" for n, s in rival.loses_on[:2])
    return text


def excess(view: View, found: Rejected) -> str:
    """By how much a plan breaks a constraint, in the constraint's own unit where it has one."""
    over = f"{format_number(found.ratio)} ×" if found.ratio >= 1.1 else f"{percent(found.ratio - 1, 1)} over"
    tier = _tier(found)
    if tier is not None:
        need = max(g.totals.get(tier, 0.0) for g in found.plan.ledgers)
        digits = 1 if found.ratio > 1.01 else 3
        limit = next(g.capacities[tier] for g in found.plan.ledgers if tier in g.totals)
        return f"{found.constraint} {need / GIB:,.{digits}f} of {limit / GIB:,.{digits}f} GiB ({over})"
    latency = view.workload.slo.limit(found.constraint) if isinstance(view.workload, ServingWorkload) else None
    if latency is not None:
        most = latency.seconds
        return f"{found.constraint} {format_seconds(most * found.ratio)}, limit {format_seconds(most, 2)} ({over})"
    if found.constraint == "machine size":
        most = _most_devices(view)
        return f"machine size: {math.ceil(found.ratio * most - 1e-6):,} devices are needed, there are {most:,}"
    return f"{found.constraint}: {over}" if over.endswith("over") else f"{found.constraint} {over} its limit"


def _most_devices(view: View) -> int:
    """Devices that a plan may use."""
    return view.request.question.devices or view.devices


def _tier(found: Rejected) -> str | None:
    """The memory tier whose capacity a plan exceeds."""
    tiers = (tier for ledger in found.plan.ledgers for tier in ledger.totals)
    return next((tier for tier in tiers if memory_limit(tier) == found.constraint), None)


def _capacity(system: System, tier: str) -> str:
    """Where ``--set`` finds the capacity of a tier."""
    engine = system.engines.get(tier.removesuffix(" memory"))
    if engine is not None and tier.endswith(" memory"):
        return f"engines.{tier.removesuffix(' memory')}.memory.{list(engine.memory)[-1]}.capacity"
    return {"host": "node.host.memory", "storage": "node.storage.capacity"}.get(tier, f"{tier}_capacity")


def rejected_sentence(view: View, found: Rejected, best: EvaluatedPlan | None = None) -> str:
    """A plan that one constraint rules out, and what it would have given."""
    words = techniques_text(found.plan, beside=best)
    text = degrees_text(found.plan.degrees, levels=False, product=False) + (f", {words}" if words else "")
    text += f": {excess(view, found)}"
    if view.workload.kind == "training" or _number(found.plan, "output_tokens_per_second_per_device"):
        text += f"; would give {speed(view, found.plan)}"
    remedy = found.remedy.partition("; would ")[2]
    text += f", and {remedy}" if remedy else ""
    return text


def illegal(view: View, plan: EvaluatedPlan) -> list[str]:
    """The constraints that a given plan breaks, in words."""
    return [excess(view, found) for found in _broken(plan)]


def _all_broken(nearest: Rejected) -> list[Rejected]:
    """The constraints that a rejected plan breaks, that of the whole service among them."""
    broken = _broken(nearest.plan)
    return broken if any(r.constraint == nearest.constraint for r in broken) else [nearest, *broken]


def _broken(plan: EvaluatedPlan) -> list[Rejected]:
    """The constraints that a given plan breaks, the worst first."""
    broken = [(n, r) for n, r in (plan.constraints or {}).items() if r > 1 + 1e-9]
    return [Rejected(n, r, plan, 1, "") for n, r in sorted(broken, key=lambda item: -item[1])]


def impossible(view: View, found: Answer) -> str:
    """The verdict where no plan is legal."""
    apart = " with prefill and decode apart" if view.request.question.pools == "apart" else ""
    text = f"No plan{apart} is possible on {devices_text(view, _most_devices(view))} for {view.workload.name}"
    if not found.rejected:
        return f"{text}: {_all_misshapen(found)}."
    nearest = found.rejected[0]
    return f"{text}. The nearest plan breaks " + " and ".join(excess(view, r) for r in _all_broken(nearest)) + "."


def _all_misshapen(found: Answer) -> str:
    """What no plan can be, where counts and shares never come out whole."""
    plans, counts = found.certificate.candidates, found.certificate.rejected
    every = [name for name, count in counts.items() if count >= plans]
    if every:
        return f"every plan breaks `{'` and `'.join(every)}`"
    return "no plan meets all of " + ", ".join(f"`{name}`" for name in counts) if counts else "there are none"


def remedies(view: View, answer: Answer) -> list[str]:
    """Flags that would make a plan possible: those that were tried, then all that the nearest plan lacks."""
    ways = [spaced(text) for text in answer.possible_with]
    if not answer.rejected:
        return ways
    nearest = answer.rejected[0]
    broken = _all_broken(nearest)
    needed = [_remedy(view, found) for found in broken]
    service = any(found.constraint == "machine size" for found in broken)
    if all(needed) and (len(broken) == 1 or not service):  # a service that is too large is not mended plan by plan
        ways.append(" and ".join(needed))
    if any(_tier(found) for found in broken):
        ways.append("more devices: --hw with a larger machine (perfmodel specs list clusters); or a smaller model")
    if answer.other_arrangement is not None:
        ways.append("prefill and decode on the same replicas, which is possible here: --pools together")
    return ways or [f"{nearest.constraint} must come down to its limit: another --pin or --devices"]


def _remedy(view: View, found: Rejected) -> str:
    """What would lift one constraint of a plan; empty where nothing is known to."""
    factor = math.ceil((1 + (found.ratio - 1) * MARGIN) * 100) / 100
    tier = _tier(found)
    if tier is not None:
        return f"more memory per device: --set {_capacity(view.system, tier)}=x{factor:g}" if factor <= 4 else ""
    limit = view.workload.slo.limit(found.constraint) if isinstance(view.workload, ServingWorkload) else None
    if limit is not None:
        wanted = f"{limit.seconds * found.ratio * 1000 * 1.005:.0f} ms"
        return f"a looser limit: --set-workload slo.{limit.field}='{wanted}'"
    if found.constraint == "number format":
        known = ", ".join(dict.fromkeys((*view.system.accelerator.peak.matrix, *view.system.accelerator.peak.vector)))
        return f"a format whose `products` are among those the device multiplies ({known}); or another --hw"
    if found.constraint == "quality":
        return "a larger budget: --max-quality-loss"
    if found.constraint == "machine size":
        needed = math.ceil(found.ratio * _most_devices(view) - 1e-6)
        more = f"--devices {needed}" if needed <= view.devices else f"--set nodes=x{math.ceil(needed / view.devices)}"
        lower = "; or a lower --set-workload rate=…" if getattr(view.workload, "rate", None) is not None else ""
        return f"more devices: {more}{lower}"
    return ""


def confidence(found: Answer) -> list[str]:
    """How sure the choice is, and what the interval stands on."""
    c, lines = found.certificate, []
    if c.win_probability is not None:
        regret = "" if c.regret is None else f"; expected regret {percent(c.regret, 1)}"
        lines.append(f"best of the plans kept in {percent(c.win_probability)} of draws of the constants{regret}")
    if found.best is not None and found.best.interval.basis:
        lines.append(f"interval from {spaced(found.best.interval.basis)}")
    return lines


def search_sentence(found: Answer) -> str:
    """What the search did."""
    c = found.certificate
    how = "all judged" if c.exhaustive else "part of them judged"
    text = f"{c.candidates:,} plans over {len(c.axes)} axes, {how} in {format_seconds(c.seconds, 2)}"
    text += f", {c.legal:,} legal, best by {c.objective}"
    if c.rejected and c.candidates:
        said = ", ".join(f"{n} {percent(k / c.candidates)}" for n, k in list(c.rejected.items())[:3])
        text += f"; rejected, overlapping: {said}"
    if c.placement is not None:
        text += f"; {placement_text(c.placement)}"
    return text


def placement_text(found: Placement) -> str:
    """How the shares over memories and engines were found, and what proves them."""
    gap = found.pass_seconds / found.dual_seconds - 1.0
    proof = "the optimum by its dual bound" if abs(gap) < 1e-4 else f"{percent(gap, 1)} over the dual bound of the pass"
    text = f"shares solved in {found.programmes} linear programmes, {proof}"
    if found.grid_seconds == found.grid_seconds:
        text += f" (best on the grid: {format_seconds(found.grid_seconds)} per pass)"
    return text


def lengths_sentence(found: LengthGroups) -> str:
    """What groups of ranks chosen for each batch of unlike sequences would gain."""
    sizes = ", ".join(f"{count} of {degree}" for degree, count in found.degrees)
    gain = found.static_seconds / found.seconds
    gap = found.seconds / found.bound_seconds - 1.0
    return (
        f"Groups of ranks chosen for each batch (in {found.rounds} rounds {sizes}): {format_seconds(found.seconds)} of "
        f"micro-batches a step, {gain:.2f} × as fast as groups of {found.static_degree} for all; within {percent(gap)} "
        "of the bound of these rounds."
    )
