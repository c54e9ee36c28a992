"""A simulation as a screen and as data."""

from __future__ import annotations

import math
from typing import Any

from perfmodel.insight.setting import Question
from perfmodel.insight.simulation import Simulated
from perfmodel.report.bounds import labelled, table
from perfmodel.report.jsonable import plain
from perfmodel.report.screen import Line, Page
from perfmodel.report.words import columns_text, headline, percent, plural
from perfmodel.services import Simulation
from perfmodel.serving.open_pools import POOLS
from perfmodel.serving.statistics import Spread
from perfmodel.units import format_count, format_number, format_seconds

__all__ = ["SIMULATION", "lines", "simulation_data"]

SIMULATION = "perfmodel.simulation/1"
NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end to end"}
LIMITS = {
    "memory": "no free KV blocks",
    "sequences": "max_num_seqs",
    "budget": "the token budget of an iteration",
    "batch": "the batch before it",
}


def lines(done: Simulation, page: Page) -> list[Line]:
    """Verdict, latencies with intervals, where the time went."""
    found = done.found
    m, rules = found.metrics, found.options.scheduler
    limits = f"max_num_seqs {rules.max_sequences}, {rules.token_budget:,} tokens per iteration"
    title = [headline(done.model), f"{done.system.name} · {_replicas(done)} · {rules.name}: {limits}"]
    screen = [*page.block("", title, "title"), Line("", "")]
    screen += page.block("load", _load(done))
    screen += page.block("verdict", _verdict(found), "bad" if found.stability.stable is False else "verdict")
    screen += [Line("", ""), *labelled("", table(_latency_rows(found), 1), "wide"), Line("", "")]
    rate = (
        f"{_n(m['requests_per_second'])} requests/s, {_n(m['output_tokens_per_second'])} output tokens/s, "
        f"{_n(m['total_tokens_per_second'])} tokens/s in all"
    )
    if found.slo.limits:
        said = ", ".join(f"{limit.name} {format_seconds(limit.seconds)}" for limit in found.slo.limits)
        share = percent(_f(m["goodput_share"]), 1)
        rate += f"; goodput {_n(m['goodput_requests_per_second'])} requests/s ({share} within {said})"
    screen += page.block("throughput", rate)
    screen += _work(found, page)
    cache = (
        f"{percent(_f(m['kv_occupancy']))} of {format_count(_f(m['kv_tokens']))} tokens in use, "
        f"{percent(_f(m['kv_occupancy_peak']))} at most; {plural(_f(m['preemptions']), 'preemption')}; "
        f"{percent(_f(m['prefix_hit_share']))} of prompt tokens found in the prefix cache"
    )
    screen += page.block("KV cache", cache)
    screen += page.block("waiting for", _waiting(found))
    if m["skipped_empty"] or m["skipped_too_long"]:
        left = f"{m['skipped_empty']:,.0f} requests without tokens, {m['skipped_too_long']:,.0f} longer than"
        lost = (_f(m["skipped_empty"]) + _f(m["skipped_too_long"])) / (_f(m["requests"]) + _f(m["skipped_too_long"]))
        text = f"{left} the model or the cache allows ({_f(m['longest_tokens']):,.0f} tokens)"
        screen += page.block("left out", text, "bad" if lost > 0.01 else "")
    seconds = _f(m["prepare_wall_seconds"]) + _f(m["simulation_wall_seconds"])
    speed = f"{format_count(_f(m['iterations']))} iterations in {format_seconds(seconds)}"
    return [*screen, *page.block("simulated", f"{speed}, {_n(m['simulated_requests_per_second'])} requests/s", "quiet")]


def _replicas(done: Simulation) -> str:
    """How many replicas of what plan."""
    options = done.found.options
    asked = Question(pinned=done.columns)
    kinds = [(options.replicas, "replica", asked.common_pins)]
    if options.prefill_replicas:
        counts = (options.prefill_replicas, options.replicas)
        kinds = [(n, f"{p} replica", asked.pool_pins(p)) for n, p in zip(counts, POOLS, strict=True)]
    said = " and ".join(f"{plural(n, what)} of {columns_text(columns) or 'one device'}" for n, what, columns in kinds)
    return said + (f", {options.router}" if max(n for n, _, _ in kinds) > 1 else "")


def _work(found: Simulated, page: Page) -> list[Line]:
    """How busy the replicas were, each pool by itself."""
    m = found.metrics
    together = f"{_n(m['mean_batch'])} sequences decode together"
    busy = f"busy {percent(_f(m['utilisation']))} of the time"
    if not found.options.prefill_replicas:
        return page.block("replicas", f"{busy}, {percent(_f(m['prompt_time_share']))} of it with prompts; {together}")
    first = (
        f"busy {percent(_f(m['prefill_utilisation']))} of the time; {format_seconds(_f(m['hand_over_seconds']))} from "
        f"a prompt's end until its cache is at the decode pool, links busy {percent(_f(m['link_utilisation']), 1)}"
    )
    return [*page.block("prefill", first), *page.block("decode", f"{busy}; {together}")]


def _f(value: float | None) -> float:
    return math.nan if value is None else value


def _n(value: float | None) -> str:
    return "–" if value is None else format_number(value)


def _load(done: Simulation) -> str:
    m = done.found.metrics
    rate = m["offered_requests_per_second"]
    pace = "all at once" if rate is None else f"{_n(rate)} requests/s over {format_seconds(_f(m['arrival_seconds']))}"
    asked = f"{plural(_f(m['requests']), 'request')} from {done.source}, {pace}"
    return f"{asked}; answered in {format_seconds(_f(m['makespan_seconds']))}"


def _verdict(found: Simulated) -> str:
    s = found.stability
    if s.stable is None:
        return "Too few requests to tell whether the load could be carried on and on."
    if s.stable:
        return f"Stable: {_n(s.offered)} requests/s are carried, the number in the system does not grow."
    return (
        f"Unstable: of {_n(s.offered)} requests/s, {_n(s.sustained)} leave, and the line grows by {_n(s.growth)} "
        f"requests every second; up to about {_n(s.sustained)} requests/s would be stable. The latencies below would "
        "grow with a longer trace."
    )


def _waiting(found: Simulated) -> str:
    if not found.limits:
        return "nothing: every request started with the next iteration"
    parts = [f"{_limit(n)} {percent(share)}" for n, share in found.limits.items() if share >= 0.005]
    return (", ".join(parts) + " of the busy time") if parts else "hardly anything: less than 0.5 % of the busy time"


def _limit(name: str) -> str:
    """What kept requests out, and in which pool."""
    pool, _, own = name.rpartition(" ")
    return f"{pool}: {LIMITS[own]}" if pool else LIMITS[own]


def _latency_rows(found: Simulated) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "mean", "p50", "p90", "p99")]
    for key, spread in found.latencies.items():
        rows.append((NAMES[key], *(_with_error(spread, name) for name in ("mean", "p50", "p90", "p99"))))
    gaps = found.gaps
    if not math.isnan(gaps["mean"]):
        rows.append(("between tokens", *(format_seconds(gaps[n]) for n in ("mean", "p50", "p90", "p99"))))
    return rows


def _with_error(spread: Spread, name: str) -> str:
    value, error = getattr(spread, name), getattr(spread, f"{name}_error")
    text = format_seconds(value)
    return text if math.isnan(error) or not value else f"{text} ±{percent(error / value)}"


def simulation_data(done: Simulation) -> dict[str, Any]:
    """Everything as numbers; the latencies of single requests are left to the library."""
    found = done.found
    return {
        "schema": SIMULATION,
        "model": done.model.name,
        "machine": done.system.name,
        "framework": done.framework,
        "columns": plain(done.columns),
        "source": done.source,
        "scheduler": plain(found.options.scheduler),
        "replicas": found.options.replicas,
        "prefill_replicas": found.options.prefill_replicas,
        "router": found.options.router,
        "metrics": plain(found.metrics),
        "latencies": {name: plain(spread._asdict()) for name, spread in found.latencies.items()},
        "gaps": plain(found.gaps),
        "waiting_share": plain(found.limits),
        "slo": plain(found.slo.model_dump()),
        "stability": plain(found.stability._asdict()),
    }
