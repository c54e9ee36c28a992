r"""A replica under requests that come at random: batch, rate, percentiles, and the room that its peaks need.

The batch :math:`b` of a plan is the mean number of sequences that decode; the rate that keeps it is the fixed point of
Little's law, :math:`\lambda (n T(b) + b w) = b` with the decode pass T and what a prompt adds, w. The number in flight
is that of a processor-sharing queue whose speed depends on it; around its mean it varies as

.. math:: \sigma^2 = \frac{b}{(1 - e) (1 - \rho)^2},\qquad
    e = \frac{d \ln T}{d \ln b},\quad \rho = \lambda w

(without prompts insensitive to the lengths; F. P. Kelly, Reversibility and Stochastic Networks, 1979, ch. 3): a plan
whose passes grow with the batch comes to rest slowly. Passes are averaged over that spread, since kernels step where a
tile is full. A token sees the batch of its own pass, and most tokens are made in large ones: the pass that tokens see
on average is longer than that of the mean batch,

.. math:: E[T] = T(b) + \frac{d T}{d b} (1 - e) \frac{\sigma^2}{b}

and prompts that came while a request waited for its first token run before its second. Latencies are those of
:mod:`perfmodel.serving.moments`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from perfmodel.elementwise import Scalar, clamp, exp, maximum, minimum, sqrt, where
from perfmodel.phases.serving import Passes
from perfmodel.serving.gathering import ALONE, Gathering
from perfmodel.serving.moments import Moments, first_token_moments, iteration_moments, queue_moments
from perfmodel.specs.slo import Limit
from perfmodel.techniques.base import Line
from perfmodel.units import Seconds

if TYPE_CHECKING:
    from perfmodel.serving.steady import Replica

__all__ = ["PEAK", "Load", "Tails", "latency_of", "nodes", "percentiles", "tails_of"]

PEAK = 2.3263
"""Standard deviations above the mean batch that a replica has room for: 99 % of the time; chosen [1]."""
STEEPEST = 0.99
"""Largest elasticity of a pass in its batch that is told from one [1]."""
MANY = 1e9
"""Prompts of a pass that no budget limits."""
TURNS = 3
"""Rounds of batch seen, rate and first tokens; each leaves a fifth of the difference or less."""
ROUNDS = 8
"""Rounds of the fixed point of rate and pass; each leaves a tenth of the difference or less."""
REMEMBERED = 0.6667
"""Variance of the batch over the life of a request, over that at one time: lives of equal length overlap so [1]."""


@dataclass(frozen=True)
class Load:
    """What requests ask of a replica, and what passes cost beside the model.

    Parameters
    ----------
    output : output tokens of a request.
    variation : coefficient of variation of both lengths.
    request_overhead, first_token : host time per request; time to the first token outside passes [s].
    polling : passes between two looks at the queue.
    gathering : prompts that wait for each other.
    """

    output: Scalar
    variation: Scalar = 0.0
    request_overhead: Seconds = 0.0
    first_token: Seconds = 0.0
    polling: Scalar = 1.0
    gathering: Gathering = ALONE


@dataclass(frozen=True)
class Tails:
    """Latencies of a replica under random arrivals; every number may be an array over the mesh.

    Parameters
    ----------
    ttft, tpot, e2e : distributions over requests.
    gaps : distribution of the times between two tokens of a request, over all tokens.
    longest_gap : no gap is longer where a pass has a budget: its passes are full [s].
    held_gap, holding : gap around a pass that holds a piece of a prompt, and the share of such passes [s], [1].
    prompt_load : passes that hold a piece of a prompt, of those there are (one each), where prompts are cut; or how
        busy the link is that they are fetched over, if that is more [1].
    rate : requests per second of one rank of the batch.
    peak : sequences in flight that a rank has room for.
    """

    ttft: Moments
    tpot: Moments
    e2e: Moments
    gaps: Moments
    longest_gap: Seconds
    held_gap: Seconds
    holding: Scalar
    prompt_load: Scalar
    rate: Scalar
    peak: Scalar

    def tbt(self, percent: float) -> Seconds:
        """Percentile of the times between two tokens [s]."""
        held = where(self.holding > 1.0 - percent / 100.0, self.held_gap, 0.0)
        return minimum(maximum(self.gaps.percentile(percent), held), self.longest_gap)


def _spread(batch: Scalar, elasticity: Scalar, load: Scalar) -> Scalar:
    """Variance of the sequences in flight.

    More arrivals than usual add sequences and, by their prompts, hold up the others, in which time yet more come: the
    Poisson count of the arrivals of a lifetime weighs by 1 / (1 - load).
    """
    free = maximum(1.0 - load, 0.05)
    return batch / (1.0 - elasticity) / (free * free)


def nodes(batch: Scalar) -> tuple[Scalar, Scalar]:
    """Batches below and above the mean that stand for its spread (Gauss-Hermite of three nodes, variance ``batch``)."""
    apart = sqrt(3.0 * batch)
    return maximum(batch - apart, 0.3 * batch), batch + apart


def tails_of(
    quieter: Passes, passes: Passes, busier: Passes, load: Load
) -> tuple[Tails, dict[str, tuple[Line, ...]], Seconds]:
    """Latencies at a mean batch, the memory ledgers at its peak, and the mean decode pass [s].

    Parameters
    ----------
    quieter, passes, busier : the plan at its mean batch and at the :func:`nodes` on either side; what memory grows by
        with the batch is linear.
    load : of the requests.
    """
    s = passes.settled
    batch, less, more = s.batch, quieter.settled.batch, busier.settled.batch
    gained = s.layout.tokens_per_pass
    slope = maximum(busier.pass_seconds - quieter.pass_seconds, 0.0) / (more - less)
    decode = (quieter.pass_seconds + 4.0 * passes.pass_seconds + busier.pass_seconds) / 6.0
    elasticity = clamp(slope * batch / decode, 0.0, STEEPEST)
    count = maximum(load.output - 1.0, 1.0) / gained
    alone, ttft, rate, spread = decode, Moments(0.0, 0.0, 0.0), 0.0, batch
    for _ in range(TURNS):
        seen = alone + slope * (1.0 - elasticity) * minimum(spread / batch, maximum(batch, 1.0))
        turn, added, rate, holding = _mixed(seen / s.stages, passes, load, count, rate * ttft.mean)
        decode = turn * s.stages
        spread = _spread(batch, elasticity, rate * added)
        ttft, held = _first_tokens(passes, load, turn, added, rate)
    cut = passes.chunks.count > 1.0
    looks, window = (load.polling - 1.0) * decode, load.gathering.window * decode
    outer = load.first_token + 0.5 * looks + load.gathering.wait * decode + (load.gathering.together - 1.0) * added
    outside = Moments(outer, (looks * looks + window * window) / 12.0, load.first_token)
    ttft, waited = ttft.then(outside), rate * ttft.mean
    tpot = _per_token(decode / gained, slope / gained, spread, rate, added, load, passes.chunks.variation, waited)
    alike = replace(load, variation=0.0)  # the whole time of a request does not weigh short ones more
    whole = _per_token(decode / gained, slope / gained, spread, rate, added, alike, passes.chunks.variation, waited)
    e2e = ttft.then(whole, load.output - 1.0)
    e2e = e2e._replace(variance=e2e.variance + (load.output * tpot.mean * load.variation) ** 2)
    first, second, _ = iteration_moments(rate, turn, added, passes.chunks.variation)
    swing = slope * sqrt(spread) / s.stages  # of a pass, with the batch at its time
    gaps = Moments(decode - turn + first, maximum(second - first * first, 0.0) + swing * swing, decode - PEAK * swing)
    most = maximum(passes.chunks.stall, passes.chunks.further) / s.stages
    longest = decode + PEAK * swing + minimum(passes.chunks.fill, MANY) * most
    piece = decode + minimum(passes.chunks.fill, 1.0) * passes.chunks.stall / s.stages
    peak = batch + PEAK * sqrt(spread)
    ledgers = _stretched(passes.ledgers, busier.ledgers, (peak - batch) / (more - batch))
    return (
        Tails(ttft, tpot, e2e, gaps, longest, piece, where(cut, minimum(held, 1.0), holding), held, rate, peak),
        ledgers,
        decode,
    )


def _first_tokens(passes: Passes, load: Load, turn: Seconds, added: Seconds, rate: Scalar) -> tuple[Moments, Scalar]:
    """Time to the first token but for what is outside passes, and how much of the time prompts take that are cut."""
    s, chunks = passes.settled, passes.chunks
    own = chunks.own + load.request_overhead
    gated = first_token_moments(rate, turn, added, variation=chunks.variation, own=own)
    cut = chunks.count > 1.0
    queued = queue_moments(rate, own / s.stages, own, chunks.variation)
    queued = queued.then(Moments(0.5 * turn, turn * turn / 12.0, 0.0))
    ttft = Moments(*(where(cut, a, b) for a, b in zip(queued, gated, strict=True)))
    return ttft, maximum(where(cut, rate * own / s.stages, 0.0), rate * chunks.link)


def _mixed(
    turn: Seconds, passes: Passes, load: Load, count: Scalar, waiting: Scalar
) -> tuple[Seconds, Seconds, Scalar, Scalar]:
    """The pass of one stage, what a prompt adds to it, the rate that keeps the batch, and the passes that hold prompts.

    The first prompt of a pass finds units idle that decoding leaves, a second one does not: a prompt costs what a
    second one does, and passes that hold any are so much shorter (or longer) than those sums; how many do follows from
    the rate. ``waiting`` prompts come while a request waits for its own first token, and run before its second.
    """
    s, chunks = passes.settled, passes.chunks
    first = chunks.stall / s.stages + load.request_overhead
    added = chunks.further / s.stages + load.request_overhead
    alone, holding, rate = turn, 0.0, s.batch / (count * turn * s.stages + s.batch * first)
    for _ in range(ROUNDS):
        holding = 1.0 - exp(-rate * turn / maximum(1.0 - rate * added, 1e-3))
        turn = maximum(alone + holding * (first - added), 0.1 * alone)
        rate = s.batch / (count * turn * s.stages + (s.batch + waiting) * added)
    return turn, added, rate, holding


def _per_token(
    decode: Seconds, slope: Scalar, spread: Scalar, rate: Scalar, added: Seconds, load: Load, variation: Scalar,
    waited: Scalar,
) -> Moments:  # fmt: skip
    """Time per output token of a request: prompts that came during its life, and the batch it was in.

    A prompt more than usual prolongs the life, in which others come: its delay counts by the share of time left free.

    Parameters
    ----------
    decode, slope : pass per token that it gives, and by how much that grows with a sequence [s].
    spread : variance of the batch.
    rate, added : arrivals per second, and what each adds [s].
    load : of the requests.
    variation : coefficient of variation of what a prompt adds.
    waited : prompts that came while a request waited for its first token.
    """
    free = maximum(1.0 - rate * added, 1e-6)
    tokens = maximum(load.output - 1.0, 1.0)
    mean = (decode + waited * added / tokens) / free
    short = 1.0 + load.variation * load.variation  # mean of 1 / length over 1 / mean length: few tokens share a prompt
    prompts = rate * mean * added * added * (1.0 + variation * variation) * short / tokens
    batches = slope * slope * spread * REMEMBERED
    return Moments(mean, (prompts + batches) / (free * free), 0.0 * mean)


def _stretched(
    ledgers: Mapping[str, tuple[Line, ...]], busier: Mapping[str, tuple[Line, ...]], share: Scalar
) -> dict[str, tuple[Line, ...]]:
    """Memory lines on the line through two batches, ``share`` of the way from the first to the second."""

    def between(a: Line, b: Line) -> Line:
        return a._replace(bytes=a.bytes + share * (b.bytes - a.bytes))

    return {stage: tuple(map(between, lines, busier[stage])) for stage, lines in ledgers.items()}


def percentiles(replica: Replica) -> dict[str, float | None]:
    """Latencies of one plan by name, and the requests that it has room for; nothing where none come at random."""
    tails = replica.tails
    if tails is None:
        return {}
    found: dict[str, float | None] = {}
    for name, moments in (("ttft", tails.ttft), ("tpot", tails.tpot), ("e2e", tails.e2e)):
        found |= {f"{name}_p{share}_seconds": float(moments.percentile(share)) for share in (50, 90, 95, 99)}
    ranks = float(replica.settled.split("batch"))
    return {**found, "tbt_p99_seconds": float(tails.tbt(99.0)), "peak_batch_per_replica": float(tails.peak) * ranks}


def latency_of(tails: Tails, limit: Limit) -> Seconds:
    """The latency that a limit is on [s]."""
    if limit.quantity == "tbt":
        return tails.tbt(limit.percentile or 99.0)
    moments: Moments = getattr(tails, limit.quantity)
    return moments.mean if limit.percentile is None else moments.percentile(limit.percentile)
