"""Sentences and tables of a serving plan: what it serves, which limit binds, what a million tokens cost."""

from __future__ import annotations

import math

from perfmodel.report.words import View, degrees_text, devices_text, dollars, percent, plural, shares, techniques
from perfmodel.solver.result import EvaluatedPlan, Rival
from perfmodel.specs.slo import LATENCIES, Limit
from perfmodel.specs.workload import ServingWorkload
from perfmodel.units import format_number, format_seconds

__all__ = ["arrangement_sentence", "binding", "latency_rows", "pools_text", "serving_sentences"]

PERCENTILES = (50, 90, 99)
BINDS = 0.9
"""Share of a limit from which a plan is said to be bound by it; batches and degrees come in steps."""


def _number(plan: EvaluatedPlan, name: str) -> float:
    return plan.metrics.get(name) or 0.0


def serving_sentences(view: View, plan: EvaluatedPlan, use: str, interval: str) -> list[str]:
    """What to use and how fast it is; what it serves at which cost; which limit binds."""
    said = [_serving(view, plan, use, interval), _service(view, plan), _cost(plan)]
    return [text for text in (*said, binding(view, plan)) if text]


def _limits(view: View) -> tuple[Limit, ...]:
    return view.workload.slo.limits if isinstance(view.workload, ServingWorkload) else ()


def _serving(view: View, plan: EvaluatedPlan, use: str, interval: str) -> str:
    limits = {limit.name: limit for limit in _limits(view)}
    shown = [("TPOT", plan.seconds, interval), ("TTFT", _number(plan, "ttft_seconds"), "")]
    if "end-to-end" in limits:
        shown.append(("end-to-end", _number(plan, "e2e_seconds"), ""))
    text = (
        f"{use}{devices_text(view, plan.devices)}: "
        f"{format_number(_number(plan, 'output_tokens_per_second_per_device'))} output tokens/s/{view.noun}"
    )
    for name, seconds, spread in shown:
        limit = limits.pop(name, None)
        noted = ", ".join(p for p in (spread, _limit(limit.seconds) if limit else "") if p)
        text += f", {name} {format_seconds(seconds)}" + (f" ({noted})" if noted else "")
    for limit in limits.values():
        ratio = (plan.constraints or {}).get(limit.name)
        if ratio is not None:
            text += f", {limit.name} {format_seconds(ratio * limit.seconds)} ({_limit(limit.seconds)})"
    return text + "."


def _limit(seconds: float) -> str:
    return f"limit {format_seconds(seconds, 2)}"


def binding(view: View, plan: EvaluatedPlan) -> str:
    """The latency limit that the plan comes nearest to, and whether it binds; nothing where there is no limit."""
    ratios = {n: (plan.constraints or {}).get(n) for n in (limit.name for limit in _limits(view))}
    known = {n: r for n, r in ratios.items() if r is not None and r == r}
    if not known:
        return ""
    name = max(known, key=lambda n: known[n])
    rest = ", ".join(f"{n} {percent(r)}" for n, r in known.items() if n != name)
    if known[name] >= BINDS:
        return f"Of its limits {name} binds, at {percent(known[name])}" + (f" ({rest})." if rest else ".")
    return f"No latency limit binds: {name} comes nearest, at {percent(known[name])}" + (f" ({rest})." if rest else ".")


def latency_rows(plan: EvaluatedPlan) -> list[tuple[str, ...]]:
    """Mean and percentiles of the latencies; nothing where requests do not come at random."""
    rows = []
    for quantity in ("ttft", "tpot", "e2e"):
        if f"{quantity}_p50_seconds" not in plan.metrics:
            continue
        names = [f"{quantity}_seconds", *(f"{quantity}_p{p}_seconds" for p in PERCENTILES)]
        rows.append((LATENCIES[quantity], *(format_seconds(_number(plan, n)) for n in names)))
    return [("", "mean", *(f"p{p}" for p in PERCENTILES)), *rows] if rows else []


def _cost(plan: EvaluatedPlan) -> str:
    """A million tokens in and out, each by the time that its passes take, and their energy."""
    names = ("usd_per_million_input_tokens", "usd_per_million_generated_tokens")
    paid, made = (plan.metrics.get(n) for n in names)
    energy = [_number(plan, n) for n in ("joules_per_input_token", "joules_per_generated_token")]
    parts = []
    if paid is not None and made is not None:
        parts.append(f"{dollars(paid)} per 1 M input tokens and {dollars(made)} per 1 M generated")
    if any(energy):
        parts.append(f"{format_number(energy[0])} J per input token, {format_number(energy[1])} J per generated one")
    return ("By the time that passes take: " + "; ".join(parts) + ".") if parts else ""


def pools_text(view: View, plan: EvaluatedPlan, *, total: bool = True) -> str:
    """Replicas of each pool, and the devices that they add up to."""
    parts = []
    for name, pool in (plan.pools or {}).items():
        count = pool.metrics.get("replicas") or 1.0
        words = [degrees_text(pool.degrees, product=False), *(w for w in techniques(pool) if name == "decode")]
        parts.append(f"{name} {count:,.0f} × ({', '.join(words)})")
    return " + ".join(parts) + (f" = {plan.devices:,} {view.noun}s" if total else "")


def arrangement_sentence(view: View, best: EvaluatedPlan, other: Rival) -> str:
    """The best plan of the other arrangement of prefill and decode, and on what it loses."""
    plan = other.plan
    if plan.pools is None:
        how = f"prefill and decode together: {degrees_text(plan.degrees, levels=False, product=False)}"
        how += f", {plural(_number(plan, 'replicas'), 'replica')}"
    else:
        how = f"prefill and decode apart: {pools_text(view, plan, total=False)}"
    rate = format_number(_number(plan, "output_tokens_per_second_per_device"))
    text = f"{shares(other.score_ratio)}  {how}: {devices_text(view, plan.devices)}, {rate} output tokens/s/{view.noun}"
    text += f" at TPOT {format_seconds(plan.seconds)}, TTFT {format_seconds(_number(plan, 'ttft_seconds'))}"
    more = ", ".join(f"{name} +{format_seconds(s)}" for name, s in other.loses_on if s > 1e-6)
    if other.score_ratio <= 1.0 + 1e-4:
        return text + "; no cheaper, and needs a second kind of replica" if plan.pools else text
    return text + (f"; loses on device time per request: {more}" if more else "")


def _pools(view: View, plan: EvaluatedPlan) -> str:
    loads = {name: pool.metrics.get("load") or 0.0 for name, pool in (plan.pools or {}).items()}
    moved = _number(plan, "hand_over_seconds")
    return (
        f"Prefill and decode run apart: prefill replicas compute {percent(loads.get('prefill', 0.0))} of the time; "
        f"the cache of a prompt moves in {format_seconds(moved)}. "
    )


def _service(view: View, plan: EvaluatedPlan) -> str:
    if plan.pools:
        return _pools(view, plan) + _served(view, plan, "They serve")
    replicas, size = _number(plan, "replicas"), _number(plan, "devices_per_replica")
    one = "One replica serves"
    several = f"{plural(replicas, 'replica')} of {plural(size, view.noun)} serve"
    return _served(view, plan, one if replicas == 1 else several)


def _served(view: View, plan: EvaluatedPlan, who: str) -> str:
    replicas, size = _number(plan, "replicas"), _number(plan, "devices_per_replica")
    rate = _number(plan, "requests_per_second")
    asked = view.workload.rate if isinstance(view.workload, ServingWorkload) else None
    parts = [
        f"{who} {format_number(rate)} requests/s, {format_number(_number(plan, 'output_tokens_per_second'))} "
        f"output tokens/s, {_flying(plan)}" + (" each" if replicas > 1 else "")
    ]
    cost = plan.metrics.get("usd_per_million_output_tokens")
    parts.append(
        f"{dollars(cost)} per 1 M output tokens" if cost is not None else "price unknown (--set price='2 USD/h')"
    )
    joules = plan.metrics.get("joules_per_output_token")
    parts.append("energy unknown" if joules is None else f"{format_number(joules)} J per output token")
    text = "; ".join(parts) + "."
    room = math.floor(view.devices / size) if size else 0
    if asked is None and room > 1:
        text += f" The machine holds {room:,} such replicas (--set-workload rate='… requests/s' sizes the service)."
    return text


def _flying(plan: EvaluatedPlan) -> str:
    batch, peak = _number(plan, "batch_per_replica"), plan.metrics.get("peak_batch_per_replica")
    if plan.pools is not None:
        return f"{plural(batch, 'request')} at a time on average in each decode replica"
    if peak is None:
        return f"up to {plural(batch, 'request')} at a time"
    return f"{plural(batch, 'request')} at a time on average, room for {peak:,.0f}"
