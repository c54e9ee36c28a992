r"""Latencies as distributions of which two moments are known, and the queue whose moments they are.

Every iteration of continuous batching decodes the running sequences and computes the prompts that arrived during the
one before: :math:`I' = a + \sum_{i \in \text{arrivals in } I} w_i` with the decode pass :math:`a` and what a prompt
adds, :math:`w`: gated service with vacations (H. Takagi, Queueing Analysis, vol. 1, 1991).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum, sqrt, where
from perfmodel.units import Seconds

__all__ = ["Moments", "first_token_moments", "iteration_moments", "queue_moments"]

FULLEST = 0.999999
"""Load that stands for any larger one, where no queue is finite [1]."""
TINY = 1e-300


class Moments(NamedTuple):
    """Distribution of a latency by its moments; every entry may be an array.

    Parameters
    ----------
    mean, variance : [s], [s²].
    least : no request is faster [s].
    """

    mean: Seconds
    variance: Scalar
    least: Seconds

    def percentile(self, percent: float) -> Seconds:
        """Percentile of the gamma distribution above ``least`` that has these moments [s].

        By the cube root that makes a gamma variable nearly normal (Wilson and Hilferty, 1931): within 2 % from the
        median to the 99th percentile where the excess varies by no more than its mean.
        """
        excess = maximum(self.mean - self.least, 0.0)
        ninth = self.variance / (9.0 * maximum(excess * excess, TINY))
        root = maximum(1.0 - ninth + _deviations(percent) * sqrt(ninth), 0.0)
        return self.least + where(excess > 0.0, excess * root * root * root, 0.0)

    def then(self, other: Moments, times: Scalar = 1.0) -> Moments:
        """Latency that is followed by ``times`` another that does not depend on it."""
        variance = self.variance + times * times * other.variance
        return Moments(self.mean + times * other.mean, variance, self.least + times * other.least)


@lru_cache(maxsize=64)
def _deviations(percent: float) -> float:
    """Standard deviations of a normal variable below which ``percent`` of its values lie."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(percent / 100.0)


def iteration_moments(
    rate: Scalar, decode_seconds: Seconds, prompt_seconds: Seconds, variation: Scalar = 0.0
) -> tuple[Scalar, Scalar, Scalar]:
    r"""First three moments of an iteration.

    .. math:: C_1 = \frac{a}{1 - \rho},\qquad
              C_2 = \frac{a^2 + 2 a \rho C_1 + \lambda C_1 \overline{w^2}}{1 - \rho^2},\qquad \rho = \lambda \bar w

    Parameters
    ----------
    rate : arrivals per second.
    decode_seconds : decode pass of the mean batch [s].
    prompt_seconds : mean of what a prompt adds to an iteration [s].
    variation : its coefficient of variation; the third moment is that of a gamma distribution.
    """
    a, w, v = decode_seconds, prompt_seconds, variation * variation
    load = minimum(rate * w, FULLEST)
    w2, w3 = w * w * (1.0 + v), w * w * w * (1.0 + v) * (1.0 + 2.0 * v)
    c1 = a / (1.0 - load)
    c2 = (a * a + 2.0 * a * load * c1 + rate * c1 * w2) / (1.0 - load * load)
    c3 = (
        a * a * a + 3.0 * a * a * load * c1 + 3.0 * a * (rate * w2 * c1 + load * load * c2)
        + rate * w3 * c1 + 3.0 * rate * load * w2 * c2
    ) / (1.0 - load * load * load)  # fmt: skip
    return c1, c2, c3


def first_token_moments(
    rate: Scalar, decode_seconds: Seconds, prompt_seconds: Seconds, *, variation: Scalar = 0.0,
    own: Seconds | None = None,
) -> Moments:  # fmt: skip
    r"""Time to first token: the rest of the iteration a request comes into, then the one that holds its prompt.

    .. math:: E[TTFT] = \frac{C_2}{2 C_1} + a + \bar w + \rho \frac{C_2}{C_1}

    and the variance from :math:`C_3` in the same way. Meaningful below a load of one only.

    Parameters
    ----------
    rate, decode_seconds, prompt_seconds, variation : as in :func:`iteration_moments`.
    own : from the first pass with a part of the prompt to the token; :math:`a + w` where left out [s].
    """
    a, w, v = decode_seconds, prompt_seconds, variation * variation
    load = minimum(rate * w, FULLEST)
    c1, c2, c3 = iteration_moments(rate, a, w, variation)
    w2 = w * w * (1.0 + v)
    rest, others = c2 / (2.0 * c1), load * c2 / c1
    square = c3 / (3.0 * c1) + load * c3 / c1 + rate * w2 * c2 / c1 + load * load * c3 / c1
    alone = a + w if own is None else own
    spread = square - (rest + others) * (rest + others)
    least = alone - where(v > 0.0, w, 0.0)
    return Moments(alone + rest + others, spread + w * w * v, least)


def queue_moments(rate: Scalar, service: Seconds, own: Seconds, variation: Scalar = 0.0) -> Moments:
    """Time from arrival to the end of the own service in M/G/1, by Pollaczek and Khinchine.

    Parameters
    ----------
    rate : arrivals per second.
    service : mean time that a request keeps the server busy [s].
    own : from the start of the own service to its end, longer than that where a pipeline follows [s].
    variation : coefficient of variation of the service, whose third moment is that of a gamma distribution.

    Examples
    --------
    >>> round(queue_moments(0.5, 1.0, 1.0).mean, 3)
    1.5
    """
    v, d = variation * variation, service
    free = 1.0 - minimum(rate * d, FULLEST)
    square, cube = d * d * (1.0 + v), d * d * d * (1.0 + v) * (1.0 + 2.0 * v)
    wait = rate * square / (2.0 * free)
    return Moments(own + wait, wait * wait + rate * cube / (3.0 * free) + d * d * v, own - where(v > 0.0, d, 0.0))
