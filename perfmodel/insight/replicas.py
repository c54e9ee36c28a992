"""Replicas of a simulation from a plan: tables of iteration times, KV blocks, prefix cache."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from perfmodel.errors import SpecError
from perfmodel.insight.setting import Setting, longest_request
from perfmodel.operators.state import cache_bytes, recurrent_bytes
from perfmodel.phases.iteration import Iteration
from perfmodel.serving.checkpoints import CheckpointCache
from perfmodel.serving.fetching import Fetch
from perfmodel.serving.pool import Pool
from perfmodel.serving.prefix import LruCache, PrefixCache
from perfmodel.serving.schedulers import NO_BUDGET, Scheduler
from perfmodel.serving.simulation import Router
from perfmodel.serving.steady import Replica as Loaded
from perfmodel.serving.tables import IterationTables, tabulate
from perfmodel.solver.evaluate import model_flops_per_token
from perfmodel.solver.problems import ServingProblem
from perfmodel.specs.workload import ServingWorkload
from perfmodel.techniques.settled import Plan, split_by, tokens_kept

__all__ = ["CacheSize", "Options", "Side", "cache_size", "iteration_of", "side_of"]

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
    replicas : replicas behind the router; those that decode where there are pools.
    prefill_replicas : replicas of a pool that computes the prompts, where there is one.
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
    prefill_replicas: int = 0
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


@dataclass(frozen=True)
class Side:
    """What the replicas of one plan have in common.

    Parameters
    ----------
    setting, options : of the simulation.
    tables : times of the iterations.
    cache : KV cache of a replica.
    loaded : the plan evaluated with as many sequences as the scheduler admits.
    longest : most tokens of a request.
    fetch : what of every prompt comes from a store, if anything does.
    """

    setting: Setting
    options: Options
    tables: IterationTables
    cache: CacheSize
    loaded: Loaded
    longest: int
    fetch: Fetch | None = None

    @property
    def devices(self) -> float:
        """Devices of a replica."""
        return float(self.loaded.devices)

    @property
    def overhead(self) -> float:
        """Host time of every admission [s]."""
        return self.setting.problem.framework.get("request_overhead", 0.0)

    def pool(self, *, caching: bool = True) -> Pool:
        """KV blocks of one more replica."""
        rules, cache = self.options.scheduler, self.cache
        tokens = min(cache.tokens, float(self.longest) * rules.max_sequences + self.longest)
        blocks, state = int(tokens // rules.block), math.ceil(cache.fixed / rules.block)
        return Pool(
            blocks, rules.block, fixed=rules.reserve == "whole", state=state,
            cache=_prefixes(self.setting, cache, self.options) if caching else None, hashed=self.options.hashed,
            ahead=self.tables.verify - 1,
        )  # fmt: skip


def side_of(setting: Setting, x: Plan, options: Options, longest: int | None) -> Side:
    """Tabulate a plan.

    Raises
    ------
    SpecError
        If the plan cannot run.
    """
    problem, rules = setting.problem, options.scheduler
    assert isinstance(problem, ServingProblem)  # noqa: S101 - narrows the type, checked by the caller
    model = iteration_of(problem, x)
    cache, loaded, top = _room(setting, problem, x, options)
    whole = int(min(longest or MOST_CONTEXT, top, max(cache.tokens, 2)))
    tables = tabulate(
        model, sequences=rules.max_sequences, tokens=min(rules.token_budget, whole), context=whole,
        gain=float(model.tokens_per_pass), verify=round(float(model.verify_tokens)),
        above=model.above if model.ends_early else None, again=model.again if model.prompt_passes > 1 else None,
        pieces=model.pieces,
    )  # fmt: skip
    fetch = Fetch(*model.fetched()) if model.fetches else None
    return Side(setting, options, tables, cache, loaded, whole, fetch)


def iteration_of(problem: ServingProblem, x: Plan) -> Iteration:
    """Times of the iterations of a plan."""
    return Iteration(x, problem.techniques, problem.situation, problem.machine, problem.network, problem.framework)


def _room(setting: Setting, problem: ServingProblem, x: Plan, options: Options) -> tuple[CacheSize, Loaded, int]:
    """KV cache of a replica, its plan evaluated, and the model's longest context.

    The plan is judged at one sequence: what more sequences need beside their KV blocks is in the runtime's memory.
    """
    workload = setting.workload
    assert isinstance(workload, ServingWorkload)  # noqa: S101 - narrows the type, checked by the caller
    rules = options.scheduler
    sized = Plan(**{**vars(x), "batch": float(rules.max_sequences)})
    limits = {"sampled_rows": float(rules.max_sequences)}
    if rules.token_budget < NO_BUDGET:
        limits["pass_tokens"] = float(rules.token_budget)
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
    top = longest_request(setting.model) or MOST_CONTEXT
    return cache, loaded, top


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
