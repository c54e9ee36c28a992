"""Simulate a serving plan under a stream of requests: blocks and iteration times from the plan, then what happened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.insight.setting import Setting, position_limit
from perfmodel.operators.state import cache_bytes, recurrent_bytes
from perfmodel.phases.iteration import Iteration
from perfmodel.serving.checkpoints import CheckpointCache
from perfmodel.serving.pool import Pool
from perfmodel.serving.prefix import LruCache, PrefixCache
from perfmodel.serving.replica import Replica
from perfmodel.serving.resume import Saver, load_run
from perfmodel.serving.schedulers import Scheduler
from perfmodel.serving.simulation import Router, Run, drive
from perfmodel.serving.stability import Stability, stability
from perfmodel.serving.statistics import Spread, Totals, spread
from perfmodel.serving.steady import Replica as Loaded
from perfmodel.serving.tables import IterationTables, tabulate
from perfmodel.solver.evaluate import model_flops_per_token
from perfmodel.solver.problems import ServingProblem
from perfmodel.specs.trace import Arrival
from perfmodel.specs.workload import Slo
from perfmodel.techniques.settled import Plan, split_by, tokens_kept

__all__ = ["CacheSize", "Options", "Simulated", "cache_size", "simulate"]

GROWING = ("KV cache", "draft KV cache")
"""Lines of the ledger that grow with the tokens of a request; a replica holds them block by block."""
MOST_CONTEXT = 1 << 20
"""Longest context tabulated where neither the model nor the blocks end earlier."""


@dataclass(frozen=True)
class Options:
    """How to simulate.

    Parameters
    ----------
    scheduler : rules and limits of the engine, for each replica.
    replicas : replicas behind the router.
    router : how requests are spread.
    prefix_cache : keep prompts' blocks after requests have left.
    hashed : tokens of a block of the prefix hashes.
    flop_aware : weight of saved operations per byte against recency in what models with recurrent states evict.
    kv_tokens : tokens that the cache of a replica holds, where the engine has logged it; else from the memory ledger.
    checkpoint : file to save to, and to go on from where it exists.
    stepping : take every iteration by itself.
    """

    scheduler: Scheduler
    replicas: int = 1
    router: Router = "round-robin"
    prefix_cache: bool = True
    hashed: int = 512
    flop_aware: float = 0.0
    kv_tokens: float | None = None
    checkpoint: Path | None = None
    stepping: bool = False


@dataclass(frozen=True)
class CacheSize:
    """KV cache of a replica: tokens that fit, and what a request costs whatever its length, as tokens."""

    tokens: float
    fixed: float = 0.0


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


def cache_size(loaded: Loaded, tiers: Mapping[str, float], context: float) -> CacheSize:
    """Tokens that fit beside weights and everything else, on the fuller stage, for the whole replica.

    Sliding windows and recurrent states do not grow: the slope of the cache at long contexts is what a token costs, the
    rest what a sequence costs.
    """
    s = loaded.settled
    split = split_by(s.dims, "kv")

    def size(tokens: float) -> float:
        kept = tokens_kept(s.layout, tokens)
        return float(cache_bytes(s.architecture, kept, kv_split=split, kv_bytes=s.sizes.kv_bytes))

    cached = {n: sum(float(b.bytes) for b in loaded.ledgers[n] if b.name in GROWING) for n in ("first", "last")}
    own = {n: sum(float(b.bytes) for b in loaded.ledgers[n] if b.name == "KV cache") for n in cached}
    grown = {*GROWING, "tokens to verify"}
    beside = max(cached[n] / own[n] for n in cached) if all(own.values()) else 1.0
    slope = beside * (size(2.0 * context) - size(context)) / context
    rest = max(beside * size(context) - slope * context, 0.0)
    unit = slope or rest / context
    room = []
    for name, layers in (("first", s.first_layers), ("last", s.last_layers)):
        lines = loaded.ledgers[name]
        tier = next(line.tier for line in lines if line.name == "KV cache")
        others = sum(float(line.bytes) for line in lines if line.tier == tier and line.name not in grown)
        room.append((float(tiers[tier]) - others) / float(layers))
    ranks = float(s.split("batch"))
    fixed = rest / unit if unit else 0.0
    return CacheSize(
        max(min(room), 0.0) / unit * ranks if unit else math.inf, fixed if rest > 1e-9 * size(context) else 0.0
    )


def simulate(
    setting: Setting, x: Plan, arrivals: Iterable[Arrival], options: Options, *, longest: int | None = None,
    identity: str = "", progress: Callable[[int], None] | None = None, stop: Callable[[], bool] | None = None,
) -> Simulated:  # fmt: skip
    """Simulate replicas of one plan.

    Parameters
    ----------
    setting : model, machine and workload; of the workload only formats and latency limits are read.
    x : plan of a replica; its batch is what the scheduler allows.
    arrivals : requests in the order of their times.
    options : how.
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
    problem, rules = setting.problem, options.scheduler
    assert isinstance(problem, ServingProblem)  # noqa: S101 - narrows the type, checked by the caller
    model = _iteration(problem, x)
    cache, top = _room(setting, problem, x, options)
    whole = int(min(longest or MOST_CONTEXT, top, max(cache.tokens, 2)))
    tables = tabulate(
        model, sequences=rules.max_sequences, tokens=min(rules.token_budget, whole), context=whole,
        gain=float(model.tokens_per_pass), verify=round(float(model.verify_tokens)),
    )  # fmt: skip
    overhead = problem.framework.get("request_overhead", 0.0)
    totals = Totals(problem.framework.get("first_token", 0.0))
    run = _begin(tables, cache, options, overhead, totals, whole, lambda: _prefixes(setting, cache, options))
    saver = None
    if options.checkpoint is not None:
        signature = f"{identity}|{setting.model.name}|{setting.system.name}|{vars(x)}|{options}|{problem.framework}"
        run = load_run(options.checkpoint, signature, run)
        saver = Saver(options.checkpoint, signature)
    prepared, computed = time.perf_counter(), time.process_time()
    before = run.taken
    drive(run, iter(arrivals), progress=progress, save=saver, stop=stop)
    if options.checkpoint is not None:
        options.checkpoint.unlink(missing_ok=True)
    spent = time.process_time() - computed
    wall = (prepared - began, time.perf_counter() - prepared, float(run.taken - before), spent)
    return _result(run, cache, options, setting.workload.slo if setting.workload.kind == "serving" else Slo(), wall)


def _iteration(problem: ServingProblem, x: Plan) -> Iteration:
    model = Iteration(
        x, problem.techniques, problem.situation, problem.machine, problem.network, problem.framework
    )  # fmt: skip
    if not model.prompts_pass_once:
        raise SpecError(
            "prompts that pass some of the layers, several times, in pieces or from a store are not simulated yet",
            field="--pin", found=f"{problem.situation.architecture.family} {_columns(x)}",
        )  # fmt: skip
    return model


def _room(setting: Setting, problem: ServingProblem, x: Plan, options: Options) -> tuple[CacheSize, int]:
    """KV cache of a replica and the model's longest context.

    The plan is judged at one sequence: what more sequences need beside their KV blocks is in the runtime's memory.
    """
    from perfmodel.specs.workload import ServingWorkload

    workload = setting.workload
    assert isinstance(workload, ServingWorkload)  # noqa: S101 - narrows the type, checked by the caller
    rules = options.scheduler
    sized = Plan(**{**vars(x), "batch": float(rules.max_sequences)})
    limits = {"sampled_rows": float(rules.max_sequences), "pass_tokens": float(rules.token_budget)}
    own = {n: v for n, v in limits.items() if problem.framework.get(n)}
    loaded = replace(problem, framework={**problem.framework, **own}).evaluate(sized)
    form = {n: float(r) for n, r in loaded.ratios.items() if n in ("heads", "device count", "layers", "experts")}
    broken = [n for n, ratio in form.items() if ratio > 1.0 + 1e-9]
    if broken:
        raise SpecError(f"the plan cannot run: {', '.join(broken)}", field="--pin", found=_columns(x))
    context = float(workload.prompt + workload.output)
    cache = cache_size(loaded, problem.machine.tiers, context)
    if options.kv_tokens is not None:
        cache = CacheSize(options.kv_tokens, cache.fixed)
    if cache.tokens < options.scheduler.block + cache.fixed:
        raise SpecError(
            "the weights leave no room for a KV cache", field="--pin", found=_columns(x),
            allowed="more devices (tp=2, …), narrower weights, or --kv-tokens",
        )  # fmt: skip
    top = position_limit(setting.model) or setting.model.architecture.max_positions or MOST_CONTEXT
    return cache, top


def _columns(x: Plan) -> str:
    degrees = {n: v for n, v in vars(x).items() if n in ("tp", "pp", "ep", "cp") and v != 1}
    return " ".join(f"{n}={v:g}" for n, v in degrees.items()) or "one device"


def _prefixes(setting: Setting, cache: CacheSize, options: Options) -> PrefixCache | None:
    """Prefix cache of a replica: by states where the model has any, else by blocks."""
    if not options.prefix_cache:
        return None
    architecture = setting.model.architecture
    if not recurrent_bytes(architecture, kv_split=1.0):
        return LruCache()
    size = options.hashed

    short, long = (model_flops_per_token(architecture, float(n * size)) * size for n in (1, 65))
    growing = (long - short) / 64.0
    return CheckpointCache(math.ceil(cache.fixed / size), (short - growing, growing), options.flop_aware)


def _begin(
    tables: IterationTables, cache: CacheSize, options: Options, overhead: float, totals: Totals, longest: int,
    prefixes: Callable[[], PrefixCache | None],
) -> Run:  # fmt: skip
    rules = options.scheduler
    tokens = min(cache.tokens, float(longest) * rules.max_sequences + longest)
    blocks, state = int(tokens // rules.block), math.ceil(cache.fixed / rules.block)
    replicas = [
        Replica(
            tables, rules,
            Pool(
                blocks, rules.block, fixed=rules.reserve == "whole", state=state,
                cache=prefixes(), hashed=options.hashed, ahead=tables.verify - 1,
            ),
            totals, admission_seconds=overhead, stepping=options.stepping,
        )
        for _ in range(options.replicas)
    ]  # fmt: skip
    return Run(replicas, totals, options.router, longest)


def _result(
    run: Run, cache: CacheSize, options: Options, slo: Slo, wall: tuple[float, float, float, float]
) -> Simulated:
    totals = run.totals
    if not totals.ended:
        found = f"{run.skipped.too_long} too long, {run.skipped.empty} empty"
        raise SpecError("no request could be answered", found=found)
    latencies = {n: s for n in ("ttft", "tpot", "e2e") if (s := spread(getattr(totals, n))) is not None}
    gaps = {"mean": totals.gaps.mean, **{f"p{p}": totals.gaps.percentile(p) for p in (50, 90, 99)}}
    first, last = run.arrivals[0], max(totals.ended)
    makespan, requests = last - first, len(totals.ended)
    span = run.arrivals[-1] - first
    verdict = stability(run.arrivals, run.outstanding, totals.ended)
    good = _good(totals, slo)
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
        "prefix_hit_share": totals.hit_tokens / totals.asked_tokens,
        "iterations": totals.iterations,
        "prepare_wall_seconds": wall[0],
        "simulation_wall_seconds": wall[1],
        "simulation_processor_seconds": wall[3],
        "simulated_requests_per_second": wall[2] / wall[1] if wall[1] else None,
    }
    limits = {n: seconds / totals.busy for n, seconds in sorted(totals.limits.items(), key=lambda i: -i[1]) if n}
    return Simulated(options, cache, latencies, gaps, metrics, limits, slo, verdict, totals)


def _good(totals: Totals, slo: Slo) -> float:
    """Share of the requests within every limit that is set; a single token has no time per later token."""
    within = np.ones(len(totals.ended), dtype=bool)
    for limit in slo.limits:
        if limit.quantity != "tbt":
            within &= ~(np.asarray(getattr(totals, limit.quantity)) > limit.seconds)
    return float(within.mean())
