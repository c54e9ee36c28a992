"""Disaggregated serving: workers that only prefill, workers that only decode, and caches handed over between them.

No prompt stalls a decode, so the time per token is that of a decode pass; the time to the first token is the queue of
the prefill pool, a prefill, the hand-over of the cache and the first decode pass. The number of requests in either pool
follows from the closed loop of the clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum, sqrt
from perfmodel.network.topology import Network
from perfmodel.operators.state import cache_bytes
from perfmodel.phases.serving import Passes
from perfmodel.techniques.settled import Settled, split_by
from perfmodel.units import Bytes, Seconds

__all__ = ["PoolLoad", "Pools", "closed_pools", "handed_over", "transfer_seconds"]


class PoolLoad(NamedTuple):
    """Latencies of a request [s] and the state of both pools.

    Parameters
    ----------
    ttft, tpot : in steady state.
    burst : mean time to the first token of requests that all arrive at idle pools.
    rate : requests per second.
    decoding : requests that decode, of those that clients have open.
    busy : share of the time that prefill workers compute [1].
    """

    ttft: Seconds
    tpot: Seconds
    burst: Seconds
    rate: Scalar
    decoding: Scalar
    busy: Scalar


def handed_over(s: Settled, tokens: Scalar) -> Bytes:
    """Cache of a prompt on one prefill rank: what that rank sends to the decode pool [B]."""
    split = split_by(s.dims, "kv")
    layers = s.layers / s.stages
    return layers * cache_bytes(s.architecture, tokens, kv_split=split, kv_bytes=s.sizes.kv_bytes)


def transfer_seconds(network: Network, size: Bytes) -> Seconds:
    """Time of a message between ranks of two pools, over the level that separates them: the farthest there is [s]."""
    level = network.levels[-1]
    return level.latency + size / (level.bandwidth * level.efficiency)


def closed_pools(
    *,
    clients: Scalar,
    prefill: Seconds,
    between: Seconds,
    decode_pass: Seconds,
    output: Scalar,
    tokens_per_pass: Scalar = 1.0,
    hand_over: Seconds = 0.0,
    first_token: Seconds = 0.0,
) -> PoolLoad:
    r"""Latencies of ``clients`` open requests, each replaced as soon as it is answered.

    The prefill pool is one queue from which a prompt leaves every S seconds, the rest of a request's life Z a delay. By
    Schweitzer's mean value analysis the time R in the queue and its service solves

    .. math:: R^2 + R\,(Z - C S) - S Z = 0

    which is S for few clients and C S - Z for many, when the prefill pool limits.

    Parameters
    ----------
    clients : requests open at any time.
    prefill : one prompt through a worker [s].
    between : seconds between prompts that leave the pool when it is never idle: of a worker with full passes, over the
        number of workers and of prompts that they hold together [s].
    decode_pass : one decode pass of the batch at hand [s].
    output : output tokens of a request.
    tokens_per_pass : tokens a request gains per decode pass.
    hand_over : from the end of a prefill until the decode pool has the cache [s].
    first_token : time to the first token outside both pools [s].

    References
    ----------
    .. [1] P. Schweitzer, "Approximate analysis of multiclass closed networks of queues", 1979.

    Examples
    --------
    >>> load = closed_pools(clients=1, prefill=0.2, between=0.2, decode_pass=0.01, output=101)
    >>> round(load.ttft, 3), load.tpot, round(load.busy, 3)
    (0.21, 0.01, 0.165)
    """
    tpot = decode_pass / tokens_per_pass
    alone = first_token + hand_over + decode_pass
    delay = maximum(prefill - between, 0.0) + alone + (output - 1.0) * tpot
    excess = delay - clients * between
    queue = 0.5 * (sqrt(excess * excess + 4.0 * between * delay) - excess)
    rate = clients / (delay + queue)
    ttft = alone + maximum(prefill - between, 0.0) + queue
    burst = alone + maximum(prefill - between, 0.0) + 0.5 * (clients + 1.0) * between
    return PoolLoad(ttft, tpot, burst, rate, rate * output * tpot, minimum(rate * between, 1.0))


@dataclass(frozen=True)
class Pools:
    """Two pools of workers, each evaluated as a replica of its own.

    Parameters
    ----------
    prefill, full : passes of a prefill worker with one prompt per rank, and with as many as a pass holds.
    prompts : prompts of a rank in a full pass.
    decode : passes of a decode worker at the batch at hand.
    prefill_workers, decode_workers : in either pool.
    network : joins the pools at its farthest level.
    framework : constants of the engine.
    """

    prefill: Passes
    full: Passes
    prompts: Scalar
    decode: Passes
    prefill_workers: Scalar
    decode_workers: Scalar
    network: Network
    framework: Mapping[str, float]

    @property
    def hand_over(self) -> Seconds:
        """From the end of a prefill until the decode pool has the cache: transfer, and what the router takes [s]."""
        s = self.prefill.settled
        moved = handed_over(s, 1.0 * s.situation.workload.prompt)
        return transfer_seconds(self.network, moved) + self.framework.get("pool_hand_over", 0.0)

    @property
    def between(self) -> Seconds:
        """Seconds between prompts that leave a prefill pool that is never idle [s]."""
        s, framework = self.full.settled, self.framework
        held = self.prompts * s.split("batch")
        work = self.full.prefill_seconds + framework.get("host_per_iteration", 0.0)
        work = work / (held * s.stages) + framework.get("request_overhead", 0.0) / held
        return work / self.prefill_workers

    @property
    def rate(self) -> Scalar:
        """Requests per second that both pools carry with the decode batch at hand full."""
        s = self.decode.settled
        held = self.decode_workers * s.batch * s.split("batch")
        life = 1.0 * s.situation.workload.output * self.decode.pass_seconds / s.layout.tokens_per_pass
        return minimum(1.0 / self.between, held / life)

    def under(self, clients: Scalar) -> PoolLoad:
        """Latencies with so many requests open; the decode batch at hand should be the one that this implies."""
        s, framework = self.decode.settled, self.framework
        return closed_pools(
            clients=clients,
            prefill=self.prefill.prefill_seconds + framework.get("request_overhead", 0.0),
            between=self.between,
            decode_pass=self.decode.pass_seconds,
            output=1.0 * s.situation.workload.output,
            tokens_per_pass=s.layout.tokens_per_pass,
            hand_over=self.hand_over,
            first_token=framework.get("first_token", 0.0),
        )
