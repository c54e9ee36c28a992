"""Steady state of a replica under continuous batching: a closed loop of decode passes that prefills stall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from perfmodel.elementwise import Scalar, floor, is_nothing, maximum, minimum
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.phases.compose import Node
from perfmodel.phases.host import sending_of
from perfmodel.phases.judge import memory_ratios
from perfmodel.phases.memo import Memo
from perfmodel.phases.serving import Passes, evaluate_passes
from perfmodel.serving.first_token import first_token_of
from perfmodel.serving.gathering import ALONE, Gathering, gathering_of
from perfmodel.serving.open_loop import Load, Tails, latency_of, nodes, tails_of
from perfmodel.specs.architecture import Architecture
from perfmodel.specs.slo import LATENCIES, Slo
from perfmodel.techniques.base import Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import Seconds

__all__ = ["Latency", "Replica", "at_nodes", "closed_loop", "evaluate_serving", "latency_ratios", "load_of"]

BUSIEST = 0.95
"""Share of the time that prefills take at most: the loop is closed, its queue finite [1]."""


class Latency(NamedTuple):
    """Latencies of a request in steady state [s].

    ``burst`` is the mean time to the first token of requests that all arrive at an idle replica.
    """

    ttft: Seconds
    tpot: Seconds
    end_to_end: Seconds
    burst: Seconds


def closed_loop(
    pass_seconds: Seconds,
    prefill_seconds: Seconds,
    *,
    batch: Scalar,
    output: Scalar,
    stages: Scalar = 1.0,
    tokens_per_pass: Scalar = 1.0,
    request_overhead: Seconds = 0.0,
    stall: Seconds | None = None,
    own: Seconds | None = None,
    first_token: Seconds = 0.0,
    polling: Scalar = 1.0,
    link: Seconds = 0.0,
    sending: Seconds = 0.0,
    gathered: Scalar = 1.0,
    fill: Scalar = 1.0,
    gathering: Gathering = ALONE,
    units: Seconds = 0.0,
) -> Latency:
    r"""Latencies of ``batch`` requests that are replaced as soon as they finish.

    Every other request's prefill stalls a request once per lifetime, for the time S that it adds to the passes of a
    stage; prompts wait for each other where prefills take the share :math:`\rho` of the time:

    .. math:: TPOT = T_{decode} + \frac{B - 1}{n_{out}} S,\qquad
        TTFT = t_0 + \tfrac12 k T_{decode} + P + \frac{\rho}{2 (1 - \rho)} \frac{B - 1}{B} P

    Parameters
    ----------
    pass_seconds : one decode pass of the batch [s].
    prefill_seconds : prefill of the prompts of a pass through all stages [s].
    batch : requests that share the passes of one rank.
    output : output tokens of a request.
    stages : pipeline stages; a prefill holds one of them at a time.
    tokens_per_pass : tokens a request gains per decode pass.
    request_overhead : host time of a pass that admits requests: it is launched from the host, not replayed [s].
    stall : what a prompt adds to the passes of the others; a prefill by default [s].
    own : prefill beside the decodes of the others; a prefill by default [s].
    first_token : time to the first token outside passes [s].
    polling : passes between two looks at the queue.
    link : for which one request keeps a link busy that all share; requests leave no faster [s].
    sending : for which a token of every request keeps the process busy that answers clients; none comes faster [s].
    gathered : prompts of a pass.
    fill : prompts that a pass holds when all of the batch arrive at once.
    gathering : prompts that wait for each other, then run in the same passes.
    units : for which a prompt keeps compute units busy; requests come no faster, however much hides under passes [s].

    References
    ----------
    .. [1] L. Kleinrock, "Queueing Systems", vol. 1, 1975: the wait of M/D/1, here among B - 1 others.

    Examples
    --------
    >>> closed_loop(0.02, 0.1, batch=1, output=100).tpot
    0.02
    """
    own = prefill_seconds if own is None else own
    others = maximum(batch - 1.0, 0.0)
    together = gathering.together
    admitted = maximum(others * tokens_per_pass / output, maximum(gathered, together))  # prompts in one pass
    stall = (prefill_seconds / gathered if stall is None else stall) / stages + request_overhead / admitted
    decode = pass_seconds / tokens_per_pass
    apart = maximum(batch - together, 0.0)  # those that run in the same passes do not stall each other
    tpot = decode + apart / output * stall
    if not is_nothing(link):
        tpot = maximum(tpot, others / output * link)
    if not is_nothing(sending):
        tpot = maximum(tpot, sending)
    busy = minimum(others * stall / (output * tpot + own), BUSIEST)
    queue = gathering.queued * busy / (2.0 * (1.0 - busy)) * others / batch * (stall + pass_seconds)
    wait = (0.5 * polling + gathering.wait) * pass_seconds + queue + (together - 1.0) * stall
    alone = stall * (together + apart / output)  # a loop is no faster than its server: all prompts and passes in turn
    alone = maximum(alone, batch * units - (output - 1.0) * tpot)
    ttft = first_token + request_overhead + maximum(wait + own, alone)
    full = maximum(minimum(maximum(fill, 1.0), batch), gathered)
    each = prefill_seconds / stages / gathered + request_overhead / full
    burst = first_token + 0.5 * (batch + 1.0) * each
    return Latency(ttft, tpot, ttft + (output - 1.0) * tpot, burst)


@dataclass(frozen=True)
class Replica:
    """One replica under load; every number may be an array over the mesh.

    Parameters
    ----------
    settled : record and derivations of the decode pass.
    decode, prefill : composition of one decode pass, and of the prefill of one prompt.
    pass_seconds : one decode pass [s].
    tpot, ttft : in steady state with the batch full [s].
    burst : mean time to the first token when the whole batch arrives at once [s].
    rate : requests per second of the replica.
    devices : devices of the replica.
    ledgers : memory lines of the first and the last stage.
    ratios : demand / limit of every constraint.
    tails : latencies as distributions where requests come at random; the batch is then the mean number in flight, and
        memory that of its peak.
    prompts : share of the time that prefills take, of a replica that does only one of the two; ``None`` if both.
    busy : share of the time in which the replica computes.
    """

    settled: Settled
    decode: Node
    prefill: Node
    pass_seconds: Seconds
    tpot: Seconds
    ttft: Seconds
    burst: Seconds
    rate: Scalar
    devices: Scalar
    ledgers: Mapping[str, tuple[Line, ...]]
    ratios: Mapping[str, Scalar]
    tails: Tails | None = None
    prompts: float | None = None
    busy: Scalar = 1.0


def evaluate_serving(
    x: Plan,
    techniques: Sequence[Technique],
    situation: Situation,
    machine: Machine,
    network: Network,
    framework: Mapping[str, float],
    memo: Memo[list[Term]] | None = None,
    *,
    power: bool = False,
    bounds: bool = False,
) -> Replica:
    """Evaluate one replica plan under load, or a whole mesh at once; ``power`` and ``bounds`` as in the passes."""
    memo = Memo() if memo is None else memo
    apart = situation.workload.random_arrivals  # else what sends tokens catches up while prompts run
    given = (techniques, situation, machine, network, framework, memo)
    passes = evaluate_passes(x, *given, power=power, bounds=bounds, sent=apart)
    if not apart:
        return _under_load(passes, x.batch, situation, framework)
    quieter, busier = (evaluate_passes(plan, *given) for plan in at_nodes(x, passes.settled.batch))
    return _at_random((quieter, passes, busier), x.batch / passes.settled.batch, machine, framework)


def at_nodes(x: Plan, batch: Scalar) -> tuple[Plan, ...]:
    """The plan at the batches that stand for the spread around its own, ``batch`` on a rank."""
    return tuple(Plan(**{**vars(x), "batch": x.batch / batch * node}) for node in nodes(batch))


def load_of(workload: Any, framework: Mapping[str, float], architecture: Architecture) -> Load:
    """What the requests of a workload ask of a replica that some framework runs."""
    return Load(
        output=1.0 * workload.output,
        variation=workload.length_variation,
        request_overhead=framework.get("request_overhead", 0.0),
        first_token=first_token_of(framework, architecture),
        polling=framework.get("polling", 1.0),
    )


def latency_ratios(tails: Tails, slo: Slo, quantities: Sequence[str] = tuple(LATENCIES)) -> dict[str, Scalar]:
    """Latency over its limit, for the limits on some quantities that are set."""
    limits = [limit for limit in slo.limits if limit.quantity in quantities]
    return {limit.name: latency_of(tails, limit) / limit.seconds for limit in limits}


def _at_random(
    around: tuple[Passes, Passes, Passes], ranks: Scalar, machine: Machine, framework: Mapping[str, float]
) -> Replica:
    """Latencies and rate where requests come at random, and the latency limits as ratios."""
    passes = around[1]
    workload = passes.settled.situation.workload
    s = passes.settled
    load = replace(load_of(workload, framework, s.architecture), gathering=gathering_of(s, framework))
    tails, ledgers, decode = tails_of(*around, load)
    each = passes.prefill_seconds / s.stages + load.request_overhead
    limits = latency_ratios(tails, workload.slo)
    return Replica(
        settled=s,
        decode=passes.decode,
        prefill=passes.prefill,
        pass_seconds=decode,
        tpot=tails.tpot.mean,
        ttft=tails.ttft.mean,
        burst=load.first_token + 0.5 * (s.batch + 1.0) * each,
        rate=ranks * tails.rate,
        devices=passes.devices,
        ledgers=ledgers,
        ratios={**passes.ratios, **memory_ratios(ledgers, machine), **limits, "prompts": tails.prompt_load},
        tails=tails,
    )


def _under_load(passes: Passes, batch: Scalar, situation: Situation, framework: Mapping[str, float]) -> Replica:
    """Latencies and rate of the closed loop, and the latency limits as ratios."""
    s = passes.settled
    latency = closed_loop(
        passes.pass_seconds,
        passes.prefill_seconds,
        batch=s.batch,
        output=1.0 * situation.workload.output,
        stages=s.stages,
        tokens_per_pass=s.layout.tokens_per_pass,
        request_overhead=framework.get("request_overhead", 0.0),
        stall=passes.chunks.stall,
        own=passes.chunks.own,
        first_token=first_token_of(framework, s.architecture),
        polling=framework.get("polling", 1.0),
        link=passes.chunks.link,
        sending=sending_of(framework, s),
        gathered=passes.chunks.gathered,
        fill=floor(passes.chunks.fill),
        gathering=gathering_of(s, framework),
        units=passes.prompt_compute,
    )
    return Replica(
        settled=s,
        decode=passes.decode,
        prefill=passes.prefill,
        pass_seconds=passes.pass_seconds,
        tpot=latency.tpot,
        ttft=latency.ttft,
        burst=latency.burst,
        rate=batch / latency.end_to_end,
        devices=passes.devices,
        ledgers=passes.ledgers,
        ratios={**passes.ratios, **_limits(latency, situation.workload.slo)},
    )


def _limits(latency: Latency, slo: Slo) -> dict[str, Scalar]:
    """Latency over its limit, for the limits that are set."""
    values = {"ttft": latency.ttft, "tpot": latency.tpot, "e2e": latency.end_to_end}
    return {limit.name: values[limit.quantity] / limit.seconds for limit in slo.limits}
