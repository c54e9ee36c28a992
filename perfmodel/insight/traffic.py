"""A trace as load by the hour, and the service that carries it: replicas over time for one plan.

Each window is sized by its busiest minute, less what a Poisson process of that rate could show by chance: the spread
of single arrivals is already in the percentiles of a plan. Requests count by the work they bring, so that an hour of
long prompts is not taken for an easy one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from perfmodel.elementwise import Scalar
from perfmodel.errors import SpecError
from perfmodel.solver.result import Answer, EvaluatedPlan, Rival
from perfmodel.specs.trace import Arrival

__all__ = ["Sizing", "Traffic", "Window", "cheapest_over_time", "demand", "size_over_time", "traffic_of"]

MINUTE = 60.0
CHANCE = 3.0
"""Standard deviations of a Poisson count that are taken for chance [1]."""
REPORT_EVERY = 8192
TIED = 1.001
"""Cost at the peak over that of the best plan, up to which what follows the load better is chosen [1]."""


class Window(NamedTuple):
    """Requests of one window of the trace.

    Parameters
    ----------
    start, seconds : from the first arrival, and its length [s].
    requests : in it.
    prompt, output : mean tokens; 0 where no request came.
    busiest : most requests of a minute of it, per second, less chance [1/s].
    """

    start: float
    seconds: float
    requests: int
    prompt: float
    output: float
    busiest: float


@dataclass(frozen=True)
class Traffic:
    """A trace in windows.

    Parameters
    ----------
    windows : one after the other, without gaps.
    requests : in all; ``skipped`` had no prompt or no output, ``too_long`` more tokens than the model's context.
    prompt, output, variation : mean tokens, and the larger coefficient of variation of the two.
    span : from the first arrival to the last [s].
    """

    windows: tuple[Window, ...]
    requests: int
    skipped: int
    too_long: int
    prompt: float
    output: float
    variation: float
    span: float


def traffic_of(
    arrivals: Iterable[Arrival], *, window: float = 3600.0, longest: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Traffic:  # fmt: skip
    """Sort the requests of a trace into windows; memory grows with the minutes of the trace, not with its requests.

    Parameters
    ----------
    arrivals : in the order of their times.
    window : length of a window, rounded to whole minutes unless shorter than one [s].
    longest : most tokens of a request; longer ones are left out and counted.
    progress : called with the number of requests read.
    """
    if not window > 0.0 or not math.isfinite(window):
        raise SpecError("a time above zero is needed", field="window", found=window)
    bin_ = MINUTE if window >= MINUTE else window
    per = max(round(window / bin_), 1)
    counts: dict[int, list[float]] = {}
    taken = skipped = too_long = 0
    last, squares = 0.0, [0.0, 0.0]
    for arrival in arrivals:
        taken += 1
        if progress is not None and taken % REPORT_EVERY == 0:
            progress(taken)
        if arrival.prompt < 1 or arrival.output < 1:
            skipped += 1
            continue
        if longest is not None and arrival.prompt + arrival.output > longest:
            too_long += 1
            continue
        entry = counts.setdefault(int(arrival.seconds // bin_), [0.0, 0.0, 0.0])
        entry[0] += 1.0
        entry[1] += arrival.prompt
        entry[2] += arrival.output
        squares[0] += float(arrival.prompt) ** 2
        squares[1] += float(arrival.output) ** 2
        last = arrival.seconds
    if not counts:
        found = f"{skipped} without prompt or output, {too_long} longer than the model's {longest} tokens"
        raise SpecError("no request of the trace can be answered", found=found)
    whole = [sum(entry[i] for entry in counts.values()) for i in range(3)]
    number = whole[0]
    means = [whole[1] / number, whole[2] / number]
    spreads = [math.sqrt(max(s / number / (m * m) - 1.0, 0.0)) for s, m in zip(squares, means, strict=True)]
    windows = tuple(_window(counts, i, per, bin_, last) for i in range(int(last // bin_) // per + 1))
    return Traffic(windows, int(number), skipped, too_long, means[0], means[1], max(spreads), last)


def _window(counts: dict[int, list[float]], index: int, per: int, bin_: float, last: float) -> Window:
    """One window from the counts of its minutes; the last one ends with the trace."""
    entries = [counts.get(i, [0.0, 0.0, 0.0]) for i in range(index * per, (index + 1) * per)]
    start = index * per * bin_
    seconds = min(per * bin_, max(last - start, bin_))
    requests, prompts, outputs = (sum(e[i] for e in entries) for i in range(3))
    most = max(e[0] for e in entries)
    sure = max(most - CHANCE * math.sqrt(most), 0.0) / bin_
    mean = requests / seconds
    return Window(
        start, seconds, int(requests), prompts / requests if requests else 0.0, outputs / requests if requests else 0.0,
        max(mean, sure),
    )  # fmt: skip


def demand(traffic: Traffic, window: Window, prompts: Scalar) -> float:
    """Requests of mean lengths per second that are as much work as those of a window [1/s].

    Parameters
    ----------
    traffic : whose means count.
    window : of it.
    prompts : share of the work that prompts are, the rest being output tokens [1].
    """
    work = prompts * window.prompt / traffic.prompt + (1.0 - prompts) * window.output / traffic.output
    return window.busiest * float(work)


class Step(NamedTuple):
    """One window of a service that follows its load.

    Parameters
    ----------
    start, seconds : of the window [s].
    rate : demand, in requests of mean lengths [1/s].
    replicas : of each kind, as in the plan: of the one kind, or prefill and decode.
    devices : in all.
    """

    start: float
    seconds: float
    rate: float
    replicas: tuple[int, ...]
    devices: int


@dataclass(frozen=True)
class Sizing:
    """Replicas over the time of a trace.

    Parameters
    ----------
    steps : window by window.
    peak_devices : that carry every window.
    device_hours : where replicas follow the load, window by window.
    fixed_device_hours : of the peak all the time.
    cost_usd, fixed_cost_usd : of the same; ``None`` without a price.
    mean_devices : over the time.
    requests, skipped, too_long, prompt, output, variation : of the trace.
    """

    steps: tuple[Step, ...]
    peak_devices: int
    device_hours: float
    fixed_device_hours: float
    cost_usd: float | None
    fixed_cost_usd: float | None
    mean_devices: float
    requests: int
    skipped: int
    too_long: int
    prompt: float
    output: float
    variation: float


def size_over_time(traffic: Traffic, plan: EvaluatedPlan, price: float | None) -> Sizing:
    """Replicas of a plan, window by window; at least one of each kind at any time.

    Parameters
    ----------
    traffic : the load.
    plan : made for its peak.
    price : of a device [USD/s].
    """
    kinds = _kinds(plan)
    steps = []
    for window in traffic.windows:
        rates = [demand(traffic, window, kind.prompts) for kind in kinds]
        counts = tuple(max(math.ceil(r / kind.rate - 1e-9), 1) for r, kind in zip(rates, kinds, strict=True))
        devices = sum(round(n * kind.devices) for n, kind in zip(counts, kinds, strict=True))
        steps.append(Step(window.start, window.seconds, max(rates), counts, devices))
    span = sum(step.seconds for step in steps)
    used = sum(step.seconds * step.devices for step in steps)
    peak = max(step.devices for step in steps)
    return Sizing(
        tuple(steps), peak, used / 3600.0, peak * span / 3600.0, None if price is None else used * price,
        None if price is None else peak * span * price, used / span, traffic.requests, traffic.skipped,
        traffic.too_long, traffic.prompt, traffic.output, traffic.variation,
    )  # fmt: skip


def cheapest_over_time(found: Answer, size: Callable[[EvaluatedPlan], Sizing]) -> Answer:
    """The answer with its replicas over time; of plans that cost the same at the peak, the one that follows best.

    Parameters
    ----------
    found : an answer with a plan.
    size : replicas over time of a plan.
    """
    best = found.best
    assert best is not None  # noqa: S101 - the caller has seen a plan
    sizing = size(best)
    for rival in found.runners_up:
        if rival.score_ratio > TIED:
            continue
        other = size(rival.plan)
        if other.device_hours < sizing.device_hours * (1.0 - 1e-9) and other.peak_devices <= sizing.peak_devices:
            low, high = (bound * rival.plan.seconds / best.seconds for bound in best.interval[:2])
            chosen = replace(rival.plan, interval=best.interval._replace(low=low, high=high))
            others = tuple(r for r in found.runners_up if r is not rival)
            found = replace(found, best=chosen, runners_up=(Rival(best, 1.0 / rival.score_ratio, ()), *others))
            best, sizing = chosen, other
    return replace(found, sizing=sizing)


class _Kind(NamedTuple):
    """A kind of replica: devices, requests per second at most, and the share of prompts in its work."""

    devices: float
    rate: float
    prompts: float


def _kinds(plan: EvaluatedPlan) -> Sequence[_Kind]:
    if plan.pools is not None:
        share = {"prefill": 1.0, "decode": 0.0}
        return [_kind(pool, share[name]) for name, pool in plan.pools.items()]
    return [_kind(plan, plan.metrics.get("prefill_share") or 0.0)]


def _kind(plan: EvaluatedPlan, prompts: float) -> _Kind:
    m = plan.metrics
    replicas = m["replicas"] or 1.0
    return _Kind(m["devices_per_replica"] or 1.0, (m["requests_per_second_at_most"] or 0.0) / replicas, prompts)
