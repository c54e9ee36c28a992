r"""Prefill and decode pools under requests that come at random: each pool alone, and a request through both.

The rate of a service is the least of its pools', a latency the sum along the request; between the pools the KV cache
of the prompt crosses the network level that separates them (Y. Zhong et al., DistServe, OSDI 2024; P. Patel et al.,
Splitwise, ISCA 2024). Prompts queue for a prefill replica as in M/G/1:

.. math:: E[W] = \frac{\lambda \overline{D^2}}{2 (1 - \rho)},\qquad
          E[W^2] = 2 E[W]^2 + \frac{\lambda \overline{D^3}}{3 (1 - \rho)}

with the time D that a prompt keeps a stage busy. Decode replicas are those of :mod:`perfmodel.serving.open_loop`,
whose passes hold no prompts. The first token reaches the client with the first decode pass, as in the closed loop of
:mod:`perfmodel.serving.pools`, or from the prefill pool where the framework says so; the second one then waits for the
hand-over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from perfmodel.elementwise import Scalar, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import point_to_point
from perfmodel.network.topology import Group, Network
from perfmodel.operators.state import cache_bytes
from perfmodel.phases.judge import memory_ratios
from perfmodel.phases.serving import Passes
from perfmodel.serving.moments import Moments, queue_moments
from perfmodel.serving.open_loop import Load, Tails, tails_of
from perfmodel.serving.steady import Replica, at_nodes, latency_ratios, load_of
from perfmodel.techniques.settled import Plan
from perfmodel.units import Bytes, Seconds

__all__ = [
    "LOADS",
    "POOLS",
    "Pool",
    "Request",
    "hand_over",
    "pool_replica",
    "prompt_bytes",
    "together",
]

Pool = Literal["prefill", "decode"]
POOLS: tuple[Pool, ...] = ("prefill", "decode")
LOADS = tuple(round(0.05 + 0.025 * i, 3) for i in range(37))
"""Shares of its capacity at which a prefill pool is considered [1]."""


def pool_replica(
    pool: Pool, x: Plan, evaluate: Callable[[Plan], Passes], machine: Machine, framework: Mapping[str, float]
) -> Replica:
    """A replica of one pool; its load is ``x.load`` of the capacity (prefill) or the mean batch ``x.batch`` (decode).

    Parameters
    ----------
    pool : which.
    x : plan, or a mesh of them.
    evaluate : plan to passes.
    machine : for the memories.
    framework : behaviour constants.
    """
    passes = evaluate(x)
    load = load_of(passes.settled.situation.workload, framework, passes.settled.architecture)
    found = _prefill(x, passes, load) if pool == "prefill" else _decode(x, passes, evaluate, load)
    ratios = {**passes.ratios, **memory_ratios(found.ledgers, machine)}
    kept = ("ttft",) if pool == "prefill" else ("tpot", "tbt")
    slo = passes.settled.situation.workload.slo
    assert found.tails is not None  # noqa: S101 - both pools have tails
    return replace(found, ratios={**ratios, **latency_ratios(found.tails, slo, kept)})


NOTHING = Moments(0.0, 0.0, 0.0)


def _prefill(x: Plan, passes: Passes, load: Load) -> Replica:
    s = passes.settled
    own = passes.prefill_seconds * passes.chunks.longer + (s.framework or {}).get("host_per_iteration", 0.0)
    busy = own / s.stages + load.request_overhead
    rate = x.load / busy
    ttft = queue_moments(rate, busy, own + load.request_overhead, passes.chunks.variation)
    ttft = ttft.then(Moments(load.first_token, 0.0, load.first_token))
    tails = Tails(ttft, NOTHING, ttft, NOTHING, 0.0, 0.0, 0.0, 0.0, rate, s.batch)
    return Replica(
        s, passes.decode, passes.prefill, passes.pass_seconds, 0.0 * ttft.mean, ttft.mean, ttft.mean,
        x.batch / s.batch * rate, passes.devices, passes.ledgers, passes.ratios, tails, prompts=1.0, busy=x.load,
    )  # fmt: skip


def _decode(x: Plan, passes: Passes, evaluate: Callable[[Plan], Passes], load: Load) -> Replica:
    none = passes.chunks._replace(count=1.0, stall=0.0, own=0.0, further=0.0)
    quieter, busier = (replace(evaluate(plan), chunks=none) for plan in at_nodes(x, passes.settled.batch))
    alone = replace(load, first_token=0.0)
    tails, ledgers, decode = tails_of(quieter, replace(passes, chunks=none), busier, alone)
    s = passes.settled
    return Replica(
        s, passes.decode, passes.prefill, decode, tails.tpot.mean, 0.0 * decode, 0.0 * decode,
        x.batch / s.batch * tails.rate, passes.devices, ledgers, passes.ratios, tails, prompts=0.0,
    )  # fmt: skip


def prompt_bytes(replica: Replica, tokens: Scalar | None = None) -> Bytes:
    """KV cache of one prompt, by default of the workload's, all layers and heads [B]."""
    s = replica.settled
    prompt = 1.0 * s.situation.workload.prompt if tokens is None else tokens
    return s.layers * cache_bytes(s.architecture, prompt, kv_split=1.0, kv_bytes=s.sizes.kv_bytes)


def hand_over(network: Network, size: Bytes, ranks: Scalar, devices: Scalar) -> Seconds:
    """Time to bring the cache of a prompt from one pool to the other [s].

    Every rank of the smaller replica sends or takes its part at the same time.

    Parameters
    ----------
    network : levels of the machine.
    size : of the cache [B].
    ranks : devices of the smaller of the two replicas.
    devices : of both pools together: the level that holds them all is crossed.
    """
    inside = [where(level.reach < devices, 1.0, 2.0) for level in network.levels]
    return point_to_point(network, Group((*inside[:-1], 2.0)), size / ranks)


@dataclass(frozen=True)
class Request:
    """A request through both pools.

    Parameters
    ----------
    ttft, tpot, e2e : distributions.
    gap : 99th percentile of the time between tokens [s].
    """

    ttft: Moments
    tpot: Moments
    e2e: Moments
    gap: Seconds


def together(
    prefill: Moments, decode: Moments, gap: Seconds, *, output: Scalar, moved: Seconds, turn: Seconds = 0.0,
    variation: Scalar = 0.0, answers: float = 0.0,
) -> Request:  # fmt: skip
    """Latencies along a request: prefill, hand-over, decode passes.

    Parameters
    ----------
    prefill : queue and prefill.
    decode : time per token within the decode pool.
    gap : 99th percentile of the time between tokens of that pool [s].
    output : tokens of a request.
    moved : from the end of the prefill until the decode pool has the cache [s].
    turn : pass of the decode pool, the rest of which a request waits for when its cache is there [s].
    variation : coefficient of variation of the output tokens.
    answers : 1 where the prefill gives the first token and decode passes the others, 0 where they give all.
    """
    between = Moments(0.5 * turn, turn * turn / 12.0, 0.0).then(Moments(moved, 0.0, moved))
    ready = prefill.then(between)
    if answers:
        ttft, e2e = prefill, ready.then(decode, output - 1.0)
        decode = Moments(decode.mean + between.mean / maximum(output - 1.0, 1.0), decode.variance, decode.least)
    else:
        ttft = ready.then(Moments(decode.mean, 0.0, decode.mean))
        e2e = ttft.then(decode, output - 1.0)
    lengths = output * decode.mean * variation
    return Request(ttft, decode, e2e._replace(variance=e2e.variance + lengths * lengths), gap)
