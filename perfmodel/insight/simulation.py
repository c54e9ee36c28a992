"""Simulate a serving plan under a stream of requests: blocks and iteration times from the plan, then what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.insight.replicas import CacheSize, Options, Side, side_of
from perfmodel.insight.setting import Setting
from perfmodel.phases.host import decoding_only
from perfmodel.serving.fetching import FetchingReplica
from perfmodel.serving.first_token import first_token_of
from perfmodel.serving.open_pools import hand_over, prompt_bytes
from perfmodel.serving.pooled_simulation import Decoder, PooledRun, PrefillReplica, Transfer
from perfmodel.serving.replica import Replica
from perfmodel.serving.resume import Saver, load_run
from perfmodel.serving.simulation import Run, drive
from perfmodel.serving.stability import Stability, stability
from perfmodel.serving.statistics import Spread, Totals, spread
from perfmodel.specs.trace import Arrival
from perfmodel.specs.workload import Slo
from perfmodel.techniques.settled import Plan

__all__ = ["Options", "Simulated", "simulate"]


@dataclass(frozen=True)
class Simulated:
    """What happened.

    Parameters
    ----------
    options : how it was simulated.
    cache : KV cache of a replica.
    latencies : ``ttft``, ``tpot``, ``e2e``: mean and percentiles with intervals.
    gaps : times between tokens of a request, all requests together: ``mean``, ``p50``, ``p90``, ``p99`` [s].
    metrics : counts, rates, shares, seconds; the unit is in the name.
    limits : share of the busy time in which requests waited, by what kept them out.
    slo : limits of a request that counts for the goodput.
    stability : whether the load can be carried on and on.
    verdict : one sentence.
    """

    options: Options
    cache: CacheSize
    latencies: Mapping[str, Spread]
    gaps: Mapping[str, float]
    metrics: Mapping[str, float | None]
    limits: Mapping[str, float]
    slo: Slo
    stability: Stability
    totals: Totals = field(repr=False, compare=False)


def simulate(
    setting: Setting, x: Plan, arrivals: Iterable[Arrival], options: Options, *, prefill: Plan | None = None,
    longest: int | None = None, identity: str = "", progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Simulated:  # fmt: skip
    """Simulate replicas of one plan, or a pool of replicas that prefill before one of replicas that decode.

    Parameters
    ----------
    setting : model, machine and workload; of the workload only formats and latency limits are read.
    x : plan of a replica; its batch is what the scheduler allows.
    arrivals : requests in the order of their times.
    options : how.
    prefill : plan of a prefill replica, where prompts have a pool of their own; ``x`` is then that of the decode pool.
    longest : most tokens of a request; by default what the model and the blocks allow.
    identity : of the arrivals, so that a saved run goes on with the same ones.
    progress : called with the number of requests taken.
    stop : asked now and then whether to save and raise ``KeyboardInterrupt``.

    Raises
    ------
    SpecError
        If the plan cannot run.
    """
    began = time.perf_counter()
    side = side_of(setting if prefill is None else _decoding(setting), x, options, longest)
    framework = setting.problem.framework
    if prefill is None:
        _fits(setting, options.replicas * side.devices, alone=setting.machine.devices == 1)
        run = _common(side, Totals(first_token_of(framework, setting.model.architecture)))
    else:
        first = side_of(setting, prefill, options, side.longest)
        _fits(setting, options.prefill_replicas * first.devices + options.replicas * side.devices)
        run = _pools(first, side)
    saver = None
    if options.checkpoint is not None:
        plans = [vars(plan) for plan in (prefill, x) if plan is not None]
        signature = f"{identity}|{setting.model.name}|{setting.system.name}|{plans}|{options}|{framework}"
        run = load_run(options.checkpoint, signature, run)
        saver = Saver(options.checkpoint, signature)
    prepared, computed = time.perf_counter(), time.process_time()
    before = run.taken
    drive(run, iter(arrivals), progress=progress, save=saver, stop=stop)
    if options.checkpoint is not None:
        options.checkpoint.unlink(missing_ok=True)
    spent = time.process_time() - computed
    wall = (prepared - began, time.perf_counter() - prepared, float(run.taken - before), spent)
    slo = setting.workload.slo if setting.workload.kind == "serving" else Slo()
    return _result(run, side.cache, options, slo, wall)


def _decoding(setting: Setting) -> Setting:
    """The setting of workers that only decode."""
    problem = setting.problem
    return replace(setting, problem=replace(problem, framework=decoding_only(problem.framework)))


def _fits(setting: Setting, devices: float, *, alone: bool = False) -> None:
    """Refuse more devices than the machine has, unless machines stand ``alone`` and there may be any number of them."""
    if devices > setting.machine.devices and not alone:
        raise SpecError(
            "the replicas take more devices than the machine has", field="replicas", found=f"{devices:,.0f} devices",
            allowed=f"up to {setting.machine.devices:,.0f}; --hw with a larger machine",
        )  # fmt: skip


def _common(side: Side, totals: Totals) -> Run:
    """Replicas that do both."""
    options = side.options
    kind = Replica if side.fetch is None else partial(FetchingReplica, fetch=side.fetch)
    replicas = [
        kind(
            side.tables, options.scheduler, side.pool(), totals, admission_seconds=side.overhead,
            stepping=options.stepping,
        )
        for _ in range(options.replicas)
    ]  # fmt: skip
    return Run(replicas, totals, options.router, side.longest)


def _pools(prefill: Side, decode: Side) -> Run:
    """Replicas that prefill, replicas that decode, and the link between them."""
    options, problem = decode.options, decode.setting.problem
    if prefill.fetch is not None:
        raise SpecError("a store before a prefill pool is not simulated", field="--pin", found="prefill_replicas",
                        allowed="replicas that prefill and decode, or kv_source=none")  # fmt: skip
    devices = [side.devices for side in (prefill, decode)]
    whole = options.prefill_replicas * devices[0] + options.replicas * devices[1]

    def moved(tokens: float) -> float:
        size = prompt_bytes(decode.loaded, tokens)
        return float(hand_over(problem.network, size, min(devices), whole))

    transfer = Transfer.of(moved, float(decode.longest), problem.framework.get("pool_hand_over", 0.0))
    before, after = Totals(), Totals(first_token_of(problem.framework, decode.setting.model.architecture))
    first: list[Replica] = [
        PrefillReplica(
            prefill.tables, options.scheduler, prefill.pool(), before, admission_seconds=prefill.overhead,
            stepping=options.stepping, transfer=transfer,
        )
        for _ in range(options.prefill_replicas)
    ]  # fmt: skip
    then = [
        Decoder(
            Replica(
                decode.tables, options.scheduler, decode.pool(caching=False), after,
                admission_seconds=decode.overhead, stepping=options.stepping,
            )
        )
        for _ in range(options.replicas)
    ]  # fmt: skip
    answers = problem.framework.get("prefill_answers", 0.0) > 0.0
    longest = min(prefill.longest, decode.longest)
    return PooledRun(first, after, options.router, longest, decoders=then, answers=answers)


def _result(
    run: Run, cache: CacheSize, options: Options, slo: Slo, wall: tuple[float, float, float, float]
) -> Simulated:
    totals = run.totals
    if not totals.ended:
        limit = f"longer than the {run.longest:,} tokens that the model or the cache allows"
        found = f"{run.skipped.too_long} {limit}, {run.skipped.empty} without a prompt or an output"
        raise SpecError("no request could be answered", found=found)
    latencies = {n: s for n in ("ttft", "tpot", "e2e") if (s := spread(getattr(totals, n))) is not None}
    gaps = {"mean": totals.gaps.mean, **{f"p{p}": totals.gaps.percentile(p) for p in (50, 90, 99)}}
    first, last = run.arrivals[0], max(totals.ended)
    makespan, requests = last - first, len(totals.ended)
    span = run.arrivals[-1] - first
    verdict = stability(run.arrivals, run.outstanding, totals.ended)
    good = _good(totals, slo)
    first_pool = _prefill_metrics(run, makespan) if isinstance(run, PooledRun) else {}
    asked = run.replicas[0].totals
    metrics: dict[str, float | None] = {
        "requests": requests,
        "skipped_empty": run.skipped.empty,
        "skipped_too_long": run.skipped.too_long,
        "longest_tokens": run.longest,
        "arrival_seconds": span,
        "makespan_seconds": makespan,
        "offered_requests_per_second": (requests - 1) / span if span > 0 else None,
        "requests_per_second": requests / makespan,
        "output_tokens_per_second": totals.output_tokens / makespan,
        "total_tokens_per_second": (totals.output_tokens + totals.prompt_tokens) / makespan,
        "goodput_share": good,
        "goodput_requests_per_second": good * requests / makespan,
        "utilisation": totals.busy / (makespan * options.replicas),
        "prompt_time_share": totals.chunk_seconds / totals.busy,
        "mean_batch": totals.sequence_seconds / totals.busy,
        "kv_tokens": cache.tokens,
        "kv_occupancy": totals.block_seconds / totals.busy,
        "kv_occupancy_peak": totals.fullest,
        "preemptions": totals.preemptions,
        "prefix_hit_share": asked.hit_tokens / asked.asked_tokens,
        "iterations": totals.iterations + (asked.iterations if asked is not totals else 0),
        **first_pool,
        "prepare_wall_seconds": wall[0],
        "simulation_wall_seconds": wall[1],
        "simulation_processor_seconds": wall[3],
        "simulated_requests_per_second": wall[2] / wall[1] if wall[1] else None,
    }
    shares = {n: seconds / totals.busy for n, seconds in totals.limits.items() if n}
    if asked is not totals:
        shares = {f"decode {n}": share for n, share in shares.items()}
        shares |= {f"prefill {n}": seconds / asked.busy for n, seconds in asked.limits.items() if n}
    limits = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return Simulated(options, cache, latencies, gaps, metrics, limits, slo, verdict, totals)


def _prefill_metrics(run: PooledRun, makespan: float) -> dict[str, float | None]:
    """What the prefill pool and the link to the other did."""
    totals, count = run.replicas[0].totals, len(run.replicas)
    return {
        "prefill_utilisation": totals.busy / (makespan * count),
        "prefill_iterations": totals.iterations,
        "prefill_kv_occupancy_peak": totals.fullest,
        "hand_over_seconds": run.moved / max(run.handed_over, 1),
        "link_utilisation": sum(r.link_busy for r in run.prefill) / (makespan * count),
    }


def _good(totals: Totals, slo: Slo) -> float:
    """Share of the requests within every limit that is set; a single token has no time per later token."""
    within = np.ones(len(totals.ended), dtype=bool)
    for limit in slo.limits:
        if limit.quantity != "tbt":
            within &= ~(np.asarray(getattr(totals, limit.quantity)) > limit.seconds)
    return float(within.mean())
