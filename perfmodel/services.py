"""The library for services under a stream of requests: simulated, or planned and sized over the time of a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmodel.api import Answers, Request, load, plan, plan_columns, settings_of
from perfmodel.errors import SpecError
from perfmodel.insight.setting import Question, longest_request
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import Model, load_model
from perfmodel.specs.system import System

if TYPE_CHECKING:
    from perfmodel.insight.simulation import Simulated
    from perfmodel.serving.simulation import Router
    from perfmodel.solver.result import Answer, EvaluatedPlan
    from perfmodel.specs.trace import Arrival

__all__ = ["Simulation", "plan_trace", "simulate"]

ROUNDS = 3
"""Plans for a trace: the work of an hour depends on the plan's share of prefills, which settles at once."""
LEAST_RATE = 1e-6
"""Requests per second of a trace that hardly has any [1/s]."""


@dataclass(frozen=True)
class Simulation:
    """A stream of requests through replicas of one plan."""

    model: Model
    system: System
    framework: str
    columns: Mapping[str, Any]
    source: str
    """Where the requests came from."""
    found: Simulated


def simulate(
    model: str | Path,
    hw: str | Path,
    arrivals: Iterable[Arrival],
    workload: str | Path = "chat",
    *,
    scheduler: str | None = None,
    replicas: int = 1,
    prefill_replicas: int = 0,
    router: Router = "round-robin",
    max_sequences: int | None = None,
    token_budget: int | None = None,
    block: int | None = None,
    prefix_cache: bool = True,
    hashed: int = 512,
    flop_aware: float = 0.0,
    kv_tokens: float | None = None,
    columns: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
    checkpoint: str | Path | None = None,
    source: str = "requests",
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Simulation:
    """Simulate requests iteration by iteration: latencies, throughput, cache, and whether the load can be carried.

    Parameters
    ----------
    model, hw, changes, workload_changes, framework, use : as in :func:`perfmodel.api.estimate`.
    arrivals : requests in the order of their times: :func:`perfmodel.specs.trace.read_trace`,
        :class:`perfmodel.serving.arrivals.Synthetic`, or any of one's own.
    workload : says the format of the cache and the latency limits; lengths are those of the requests.
    scheduler : by name; by default that of the framework.
    replicas, router : replicas of the plan, and how requests are spread over them.
    prefill_replicas : replicas of a pool that computes the prompts; ``replicas`` are then those that decode.
    max_sequences, token_budget, block : limits of the scheduler, where not its defaults.
    prefix_cache, hashed : whether prompts are kept, and the tokens of a block of their hashes.
    flop_aware : for models with recurrent states, the weight of saved operations per byte against recency.
    kv_tokens : tokens of the KV cache of a replica, where known from the engine's log.
    columns : plan of a replica, e.g. ``{"tp": 2}``; of one pool ``{"prefill.tp": 4}``.
    checkpoint : file to save to and to go on from.
    source : of the requests, in words; a saved run goes on only with the same.
    progress, stop : as in :func:`perfmodel.insight.simulation.simulate`.

    Raises
    ------
    PerfmodelError
        If a name is unknown, a file cannot be used, or the plan cannot run.
    """
    from perfmodel.insight.simulation import Options
    from perfmodel.insight.simulation import simulate as run
    from perfmodel.serving.open_pools import POOLS
    from perfmodel.serving.schedulers import choose_scheduler, usual_scheduler
    from perfmodel.serving.simulation import ROUTERS

    if replicas < 1:
        raise SpecError("one or more is needed", field="replicas", found=replicas)
    if prefill_replicas < 0:
        raise SpecError("none or more are needed", field="prefill_replicas", found=prefill_replicas)
    if router not in ROUTERS:
        raise SpecError("unknown router", field="router", found=router, allowed=", ".join(ROUTERS))
    request = Request(model, hw, workload, Question(use=tuple(use)), changes, workload_changes, framework)
    setting = settings_of(request, *load(request))[0]
    if setting.phase != "serving":
        raise SpecError("a serving workload is needed", field="workload", found=str(workload))
    rules = choose_scheduler(
        scheduler or usual_scheduler(setting.framework.name),
        max_sequences=max_sequences, token_budget=token_budget, block=block,
    )  # fmt: skip
    saved = None if checkpoint is None else Path(checkpoint)
    options = Options(rules, replicas, prefill_replicas, router, prefix_cache, hashed, flop_aware, kv_tokens, saved)
    pinned = Question(pinned=columns or {})
    lonely = [name for name in columns or {} if "." in name]
    if lonely and not prefill_replicas:
        raise SpecError("one kind of replica has no pools", field="columns", found=lonely[0],
                        allowed="prefill replicas beside it")  # fmt: skip
    first, x = (plan_columns(setting, pinned.pool_pins(pool), None) for pool in POOLS)
    found = run(
        setting, x, arrivals, options, prefill=first if prefill_replicas else None, identity=source, progress=progress,
        stop=stop,
    )  # fmt: skip
    return Simulation(setting.model, setting.system, setting.framework.name, dict(columns or {}), source, found)


def plan_trace(
    model: str | Path,
    hw: str | Path,
    arrivals: Iterable[Arrival],
    workload: str | Path = "chat",
    *,
    window: float = 3600.0,
    workload_changes: Mapping[str, Any] | None = None,
    read: Callable[[int], None] | None = None,
    **asked: Any,
) -> Answers:
    """Plan a service for a trace, and its replicas window by window.

    Rate, mean lengths and their variation are those of the trace; limits, formats and the shared prefix those of the
    workload. The plan is made for the window with the most work, and its replicas follow the load.

    Parameters
    ----------
    model, hw, workload, workload_changes, asked : as in :func:`perfmodel.api.plan`.
    arrivals : requests in the order of their times.
    window : time for which a number of replicas stays [s].
    read : called with the number of requests read.

    Raises
    ------
    PerfmodelError
        If the workload says a rate or lengths, which the trace does.
    """
    from perfmodel.insight.traffic import cheapest_over_time, demand, size_over_time, traffic_of

    changes = dict(workload_changes or {})
    for name in ("rate", "prompt", "output", "length_variation"):
        if name in changes:
            raise SpecError("the trace says this", field=name, found=changes[name], allowed="--rate-scale")
    longest = longest_request(load_model(find_model(model)))
    traffic = traffic_of(arrivals, window=window, longest=longest, progress=read)
    changes |= {
        "prompt": max(round(traffic.prompt), 1),
        "output": max(round(traffic.output), 1),
        "length_variation": round(traffic.variation, 3),
    }
    share, rate = 0.5, 0.0
    for _ in range(ROUNDS):
        wanted = max(demand(traffic, w, share) for w in traffic.windows)
        if rate and abs(wanted / rate - 1.0) < 0.01:
            break
        rate = max(wanted, LEAST_RATE)
        changes["rate"] = f"{rate!r} requests/s"
        for name, prompts in (("prompt_peak", 1.0), ("output_peak", 0.0)):
            changes[name] = max(demand(traffic, w, prompts) for w in traffic.windows) / rate
        answers = plan(model, hw, workload, workload_changes=changes, **asked)
        found = answers.answers[0]
        if found.best is None:
            return answers
        common = _common(found)
        if common is None:
            break
        share = common.metrics.get("prefill_share") or 0.0
    price = settings_of(answers.request, answers.model, answers.system)[0].machine.price
    found = cheapest_over_time(found, lambda plan: size_over_time(traffic, plan, price))
    return replace(answers, answers=(found,))


def _common(found: Answer) -> EvaluatedPlan | None:
    """The plan whose replicas prefill and decode, chosen or not."""
    plans = [found.best, found.other_arrangement.plan if found.other_arrangement else None]
    return next((plan for plan in plans if plan is not None and plan.pools is None), None)
