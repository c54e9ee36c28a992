r"""Closed forms of continuous batching under Poisson arrivals: batch, rate and time to first token.

The queue is that of :mod:`perfmodel.serving.moments`; the batch is the fixed point of Little's law.
Valid while prompts of one iteration fit its token budget and the batch hardly fluctuates:
against the simulator of a plan, time to first token is within 15 % up to 0.8 of the stable rate, and too short beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from perfmodel.errors import SpecError
from perfmodel.serving.moments import Moments, first_token_moments
from perfmodel.serving.tables import IterationTables
from perfmodel.units import Seconds

__all__ = [
    "OperatingPoint",
    "batch_at_rate",
    "first_token",
    "operating_point",
    "stable_rate",
    "token_seconds",
]


def stable_rate(batch: float, output: float, decode_seconds: Seconds, prompt_seconds: Seconds) -> float:
    r"""Most requests per second that a full batch carries: :math:`B / (n_{out} T(B) + B w)` [1/s].

    Parameters
    ----------
    batch : most sequences in flight.
    output : tokens that a request gains in decode passes: output tokens but for the first.
    decode_seconds : decode pass of the full batch [s].
    prompt_seconds : what a prompt adds to an iteration [s].

    Examples
    --------
    >>> stable_rate(100, 200, 0.02, 0.01)
    20.0
    """
    return float(batch / (output * decode_seconds + batch * prompt_seconds))


def token_seconds(decode_seconds: Seconds, rate: float, prompt_seconds: Seconds) -> Seconds:
    r"""Mean time per output token, decode passes stretched by prompts: :math:`T / (1 - \lambda w)` [s].

    Examples
    --------
    >>> token_seconds(0.02, 50.0, 0.01)
    0.04
    """
    free = 1.0 - rate * prompt_seconds
    return decode_seconds / free if free > 0.0 else math.inf


def batch_at_rate(
    rate: float, output: float, decode_seconds: Callable[[float], Seconds],
    prompt_seconds: Callable[[float], Seconds], *, most: float,
) -> float | None:  # fmt: skip
    r"""Sequences in flight at a rate: the least root of :math:`B (1 - \lambda w(B)) = \lambda n_{out} T(B)`.

    Little's law for the time that requests decode. ``None`` where even ``most`` sequences cannot keep up.

    Parameters
    ----------
    rate : arrivals per second.
    output : tokens that a request gains in decode passes.
    decode_seconds, prompt_seconds : by the number of sequences in flight [s].
    most : most sequences in flight.

    Examples
    --------
    >>> round(batch_at_rate(10.0, 100.0, lambda b: 0.01 + 1e-4 * b, lambda b: 0.01, most=256), 6)
    12.5
    """
    if rate <= 0.0 or output < 0.0:
        raise SpecError("a positive number is needed", field="rate", found=rate)

    def lacking(batch: float) -> float:
        return float(rate * output * decode_seconds(batch) - batch * (1.0 - rate * prompt_seconds(batch)))

    low, high = 0.0, 1.0
    while lacking(high) > 0.0:
        if high >= most:
            return None
        low, high = high, min(2.0 * high, most)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if lacking(middle) > 0.0 else (low, middle)
    return high


def first_token(
    rate: float, decode_seconds: Seconds, prompt_seconds: Seconds, *, prompt_variation: float = 0.0, chunks: float = 1.0
) -> Moments | None:
    """Time to first token of a replica whose decode passes never cease; ``None`` where prompts alone are too much.

    Parameters
    ----------
    rate : arrivals per second of the replica.
    decode_seconds : decode pass of the mean batch [s].
    prompt_seconds : mean of what a prompt adds to an iteration [s].
    prompt_variation : its coefficient of variation.
    chunks : iterations that a prompt takes; each but the last costs a decode pass more.
    """
    if rate * prompt_seconds >= 1.0:
        return None
    own = decode_seconds * chunks + prompt_seconds
    return first_token_moments(rate, decode_seconds, prompt_seconds, variation=prompt_variation, own=own)


class OperatingPoint(NamedTuple):
    """A replica in steady state under Poisson arrivals.

    Parameters
    ----------
    batch : mean number of sequences that decode.
    tpot : mean time per output token [s].
    ttft : time to first token.
    stable_rate : most requests per second that the replica carries with all its sequences in flight.
    """

    batch: float
    tpot: Seconds
    ttft: Moments
    stable_rate: float


def operating_point(
    tables: IterationTables, rate: float, prompt: int, output: int, *, most: int, budget: int = 8192,
    admission_seconds: Seconds = 0.0,
) -> OperatingPoint | None:  # fmt: skip
    """Steady state of one replica from its tables; ``None`` where the rate is not carried.

    An iteration with prompts costs more than a decode pass and its prompts (decoding tokens share products that are
    no longer bound by memory): the pass is that of both kinds of iteration, by how often each occurs.

    Parameters
    ----------
    tables : times of iterations.
    rate : Poisson arrivals per second of the replica.
    prompt, output : tokens of a request.
    most : most sequences in flight.
    budget : most new tokens of an iteration.
    admission_seconds : host time per request [s].
    """
    context = prompt + 0.5 * output
    pairs = 0.5 * prompt * prompt
    chunks = math.ceil(prompt / budget)

    def around(batch: float, seconds: Callable[[int], Seconds]) -> Seconds:
        low = min(int(batch), most - 1)
        below = seconds(low)
        return below + (batch - low) * (seconds(low + 1) - below)

    def costs(batch: float) -> tuple[Seconds, Seconds]:
        """Pass, and what a prompt adds."""
        alone = around(batch, lambda b: tables.decode_seconds(b, context))
        one, two = (
            around(batch, lambda b, n=n: tables.mixed_seconds(b, context, n * prompt, n * pairs, n))  # type: ignore[misc]
            for n in (1, 2)
        )
        added = two - one
        seconds, load = alone, rate * (added + admission_seconds)
        for _ in range(20):
            without = math.exp(-rate * seconds / (1.0 - load)) if load < 1.0 else 0.0
            seconds = without * alone + (1.0 - without) * (one - added)
        return seconds, added + admission_seconds

    ceiling = stable_rate(most, output - 1.0, *costs(float(most)))
    batch = batch_at_rate(rate, output - 1.0, lambda b: costs(b)[0], lambda b: costs(b)[1], most=float(most))
    if batch is None:
        return None
    seconds, added = costs(batch)
    ttft = first_token(rate, seconds, added, chunks=float(chunks))
    return None if ttft is None else OperatingPoint(batch, token_seconds(seconds, rate, added), ttft, ceiling)
