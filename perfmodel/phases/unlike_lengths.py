r"""Prompts of unlike length: attention costs what the square of a length costs, so long ones weigh more than the mean.

Lengths are log-normal with mean 1 and coefficient of variation v, cut at the longest that the model reads. Of a prompt
of length x the products cost x, attention :math:`x^p` with p between 1 (windows, scans) and 2; uncut

.. math:: E[x^a] = (1 + v^2)^{a (a - 1) / 2}
"""

from __future__ import annotations

import math
from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, sqrt
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.attention import attention
from perfmodel.operators.layers import keys_seen
from perfmodel.specs.architecture import Architecture, Attention, LatentAttention

__all__ = ["UnlikeLengths", "length_moment", "length_power", "unlike_lengths"]


class UnlikeLengths(NamedTuple):
    """What lengths that vary do to the cost of prompts.

    Parameters
    ----------
    variation : coefficient of variation of the lengths.
    power : of the length, that attention costs.
    longest : length at which the distribution ends, over the mean.
    """

    variation: float
    power: float
    longest: float

    @property
    def core(self) -> float:
        """Mean cost of attention over that of a prompt of mean length [1]."""
        return length_moment(self.power, self.variation, self.longest)

    def cost_variation(self, share: Scalar) -> Scalar:
        """Coefficient of variation of a prompt's cost, ``share`` of whose mean is attention [1]."""
        p, rest = self.power, 1.0 - share
        products, mixed, cores = (length_moment(a, self.variation, self.longest) for a in (2.0, 1.0 + p, 2.0 * p))
        share = share / self.core
        square = rest * rest * products + 2.0 * rest * share * mixed + share * share * cores
        return sqrt(maximum(square - 1.0, 0.0))


def length_moment(power: float, variation: float, longest: float = math.inf) -> float:
    """E[x^power] of log-normal lengths of mean 1, those above ``longest`` left out.

    Examples
    --------
    >>> length_moment(2.0, 1.0), length_moment(1.0, 0.7), length_moment(2.0, 0.0)
    (2.0, 1.0, 1.0)
    """
    if variation == 0.0:
        return 1.0
    s2 = math.log1p(variation * variation)
    middle = -0.5 * s2

    def below(a: float) -> float:
        """E[x^a] of the lengths below the longest, not yet normalised."""
        whole = math.exp(0.5 * a * (a - 1.0) * s2)
        if math.isinf(longest):
            return whole
        deviations = (math.log(longest) - middle - a * s2) / math.sqrt(s2)
        return whole * 0.5 * math.erfc(-deviations / math.sqrt(2.0))

    kept = below(0.0)
    return float(below(power) / kept / (below(1.0) / kept) ** power)


def length_power(architecture: Architecture, prompt: float, engine: Engine, format: str) -> float:
    """Power of a prompt's length with which the time of its attention grows, from that length to twice as long [1].

    2 for long prompts; launches, windows and chosen keys bring it down.
    """

    def seconds(tokens: float) -> float:
        total = 0.0
        for run in architecture.runs:
            a = run.layer.mixer
            if isinstance(a, Attention):
                heads, width, seen = a.kv_heads, a.head_dim, keys_seen(a, tokens)
            elif isinstance(a, LatentAttention):
                heads, width, seen = a.heads, a.nope_dim + a.rope_dim, a.index_top_k
            else:
                continue
            work = attention(1.0, a.heads, heads, width, a.value_dim, tokens, tokens, window=seen, format=format)
            total += run.count * float(kernel_time(work, engine).seconds)
        return total

    found = seconds(prompt)
    return math.log2(seconds(2.0 * prompt) / found) if found else 1.0


def unlike_lengths(
    architecture: Architecture, prompt: float, variation: float, engine: Engine, format: str
) -> UnlikeLengths:
    """Lengths of prompts around a mean, up to the longest context that the configuration declares.

    Parameters
    ----------
    prompt, variation : mean tokens, and their coefficient of variation.
    engine, format : that attention runs on and in.
    """
    top = (architecture.max_positions or math.inf) / prompt
    power = length_power(architecture, prompt, engine, format)
    return UnlikeLengths(variation, power, top if top > LEAST_TOP else math.inf)


LEAST_TOP = 1.5
"""Longest context over the mean length below which lengths are not log-normal up to it."""
