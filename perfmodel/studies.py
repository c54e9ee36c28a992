"""The library beyond plans: rooflines of one plan, batches of sequences of unlike lengths, fleets of unlike groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmodel.api import Answers, Request, load, plan, plan_columns, settings_of, usual_framework
from perfmodel.errors import SpecError, UnknownName
from perfmodel.insight.setting import Question
from perfmodel.specs.framework import load_framework
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import Model, load_model
from perfmodel.specs.system import System
from perfmodel.specs.workload import TrainingWorkload, Workload, load_workload, revise

if TYPE_CHECKING:
    from perfmodel.insight.fleet import FleetAnswer
    from perfmodel.insight.lengths import MixedLengths
    from perfmodel.insight.roofline import Roofline
    from perfmodel.insight.scaling import Scaling
    from perfmodel.insight.simulation import Simulated
    from perfmodel.serving.simulation import Router
    from perfmodel.specs.trace import Arrival

__all__ = [
    "Rooflines",
    "ScaleStudy",
    "Simulation",
    "across",
    "assign_sequences",
    "fleet",
    "plan_trace",
    "roofline",
    "scale",
    "simulate",
]

ROUNDS = 3
"""Plans for a trace: the work of an hour depends on the plan's share of prefills, which settles at once."""
LEAST_RATE = 1e-6
"""Requests per second of a trace that hardly has any [1/s]."""


@dataclass(frozen=True)
class Rooflines:
    """The passes of one plan, every operator under the roofs of the machine."""

    model: Model
    system: System
    workload: Workload
    columns: Mapping[str, Any]
    passes: tuple[Roofline, ...]


def roofline(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "chat",
    *,
    phase: str | None = None,
    columns: Mapping[str, Any] | None = None,
    devices: int | None = None,
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> Rooflines:
    """Put every operator of a model on a device under its roofs.

    Parameters
    ----------
    model, hw, workload, devices, changes, workload_changes, framework : as in :func:`estimate`.
    phase : ``prefill``, ``decode`` or ``training``; every phase of the workload if left out.
    columns : plan columns by name, e.g. ``{"tp": 8, "batch": 64}``; the others at their neutral value.

    Raises
    ------
    SpecError
        If the workload has no such phase.
    """
    from perfmodel.insight.roofline import rooflines

    request = Request(model, hw, workload, Question(None, devices), changes, workload_changes, framework)
    loaded, system = load(request)
    setting = settings_of(request, loaded, system)[0]
    x = plan_columns(setting, columns or {}, devices)
    return Rooflines(loaded, system, setting.workload, dict(columns or {}), rooflines(setting, x, phase))


def across(
    model: str | Path,
    machines: Sequence[str | Path],
    workload: str | Path = "chat",
    *,
    objective: str | None = None,
    pin: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    max_quality_loss: float | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> tuple[Answers, ...]:
    """Plan one workload on several machines.

    Parameters
    ----------
    machines : names, aliases or paths; one answer for each.
    model, workload, objective, pin, use, max_quality_loss, workload_changes, framework : as in :func:`plan`.

    Raises
    ------
    PerfmodelError
        If a name is unknown or a file cannot be used.
    """
    return tuple(
        plan(
            model, hw, workload, objective=objective, pin=pin, use=use, max_quality_loss=max_quality_loss,
            workload_changes=workload_changes, framework=framework,
        )
        for hw in machines
    )  # fmt: skip


def assign_sequences(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "pretrain",
    *,
    lengths: Sequence[int],
    devices: int,
    column: str = "ulysses",
    columns: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> MixedLengths:
    """Train one step on sequences of unlike lengths: groups of ranks chosen for the batch, against groups of one size.

    Parameters
    ----------
    lengths : tokens of each sequence of the step; groups of one size must hold the workload's ``sequence``.
    column : how ranks share a sequence: ``ulysses`` (exchange of heads) or ``cp`` (ring).
    model, hw, workload, devices, columns, use, changes, workload_changes, framework : as in :func:`estimate`.

    Raises
    ------
    SpecError
        If the devices are no power of two, a sequence fits no group, or the states alone do not fit.
    """
    from perfmodel.insight.lengths import mixed_lengths

    if column not in ("ulysses", "cp"):
        raise SpecError(
            "ranks share a sequence by one of two ways", field="column", found=column, allowed="ulysses, cp"
        )
    if not lengths or min(lengths) < 1:
        raise SpecError("sequences of one token or more are needed", field="lengths", found=list(lengths)[:3])
    request = Request(
        model, hw, workload, Question(None, devices, use=tuple(use)), changes, workload_changes, framework
    )
    setting = settings_of(request, *load(request))[0]
    plan_columns(setting, {**(columns or {}), column: 1}, devices)
    trading = devices if column == "ulysses" else 1
    return mixed_lengths(setting, lengths, trading=trading, columns=dict(columns or {}))


def fleet(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "pretrain",
    *,
    pin: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> FleetAnswer:
    """Plan training on a fleet of unlike groups: stages of one pipeline on groups, or replicas on groups.

    Parameters
    ----------
    model, workload, workload_changes, framework : as in :func:`plan`; without a framework each group has its usual one.
    hw : name or path of a fleet file.
    pin : ``tp``, ``pp``, ``dp``, ``micro_batch``, ``recompute`` of each group; or ``kind``: ``pipeline``, ``replicas``.

    Raises
    ------
    PerfmodelError
        If a name is unknown, a file cannot be used, or the workload is not training.
    """
    from perfmodel.insight.fleet import plan_fleet
    from perfmodel.specs.fleet import load_fleet

    joined, asked = load_fleet(hw), load_workload(workload)
    if workload_changes:
        asked = revise(asked, workload_changes)
    if not isinstance(asked, TrainingWorkload):
        raise SpecError("fleets are planned for training", field="workload", found=str(workload))
    software = {n: load_framework(framework or usual_framework(s, "training")) for n, s in joined.systems.items()}
    return plan_fleet(load_model(find_model(model)), joined, asked, software, pin or {})


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
    max_sequences, token_budget, block : limits of the scheduler, where not its defaults.
    prefix_cache, hashed : whether prompts are kept, and the tokens of a block of their hashes.
    flop_aware : for models with recurrent states, the weight of saved operations per byte against recency.
    kv_tokens : tokens of the KV cache of a replica, where known from the engine's log.
    columns : plan of a replica, e.g. ``{"tp": 2}``.
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
    from perfmodel.serving.schedulers import choose_scheduler, usual_scheduler
    from perfmodel.serving.simulation import ROUTERS

    if replicas < 1:
        raise SpecError("one or more is needed", field="replicas", found=replicas)
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
    options = Options(rules, replicas, router, prefix_cache, hashed, flop_aware, kv_tokens, saved)
    x = plan_columns(setting, columns or {}, None)
    found = run(setting, x, arrivals, options, identity=source, progress=progress, stop=stop)
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
    traffic = traffic_of(arrivals, window=window, progress=read)
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
        answers = plan(model, hw, workload, workload_changes=changes, **asked)
        best = answers.answers[0].best
        if best is None:
            return answers
        share = best.metrics.get("prefill_share") or 0.0
        if best.pools is not None:
            break
    price = settings_of(answers.request, answers.model, answers.system)[0].machine.price
    found = cheapest_over_time(answers.answers[0], lambda plan: size_over_time(traffic, plan, price))
    return replace(answers, answers=(found,))


@dataclass(frozen=True)
class ScaleStudy:
    """The best plan of every size of a machine."""

    model: Model
    system: System
    workload: Workload
    found: Scaling


def scale(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "pretrain",
    *,
    devices: Sequence[int] | None = None,
    step: str = "doubling",
    pin: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> ScaleStudy:
    """Find the best training plan of every size.

    Parameters
    ----------
    devices : two numbers are a range of sizes, more are the sizes themselves; the whole machine if left out.
    step : sizes of a range, as in :data:`perfmodel.insight.scaling.STEPS`.
    model, hw, workload, pin, use, changes, workload_changes, framework : as in :func:`perfmodel.plan`.

    Raises
    ------
    UnknownName
        If there is no such step.
    SpecError
        If the workload serves, or a size is beyond the machine.
    """
    from perfmodel.insight.scaling import STEPS, device_counts, scaling

    if step not in STEPS:
        raise UnknownName("step", step, STEPS, remedy="there are " + ", ".join(STEPS))
    request = Request(model, hw, workload, Question(None, None, pin, tuple(use)), changes, workload_changes, framework)
    loaded, system = load(request)
    setting = settings_of(request, loaded, system)[0]
    machine = setting.machine
    counts = tuple(devices or (machine.per_node, machine.devices))
    if len(counts) == 2:
        counts = device_counts(machine.per_node, counts[0], min(counts[1], machine.devices), step)
    return ScaleStudy(loaded, system, setting.workload, scaling(setting, counts))
