r"""Electrical power of a device from what its parts do, and what a power cap does to its clock.

A running device draws a floor (clocks up, kernels waiting); compute units, memory and links add to it in proportion to
the share of the time in which they would be busy at full rate:

.. math:: P = P_{active} + u_c (P_{limit} - P_{active}) + u_m (P_{memory} - P_{active}) + u_n P_{network} \le P_{limit}

Above idle, power grows with a power of the clock (voltage follows frequency), so a cap lowers the clock by the root.
"""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum
from perfmodel.units import Fraction, Seconds, Watts

__all__ = ["Draw", "Shares", "Use", "average_power", "clock_under_cap"]


class Use(NamedTuple):
    """Seconds for which the parts of a device would be busy at the full rate that kernels reach [s].

    ``engines`` is what engines beside the device draw meanwhile, above idle [J].
    """

    compute: Seconds = 0.0
    memory: Seconds = 0.0
    network: Seconds = 0.0
    engines: Scalar = 0.0

    def scaled(self, factor: Scalar) -> Use:
        """All times multiplied by ``factor``."""
        return Use(*(part * factor for part in self))

    def plus(self, other: Use) -> Use:
        """Both."""
        return Use(*(a + b for a, b in zip(self, other, strict=True)))


class Draw(NamedTuple):
    """Power of one device: the floor of a running one, what full use of each part adds, and the limit [W]."""

    idle: Watts = 0.0
    active: Watts = 0.0
    compute: Watts = 0.0
    memory: Watts = 0.0
    network: Watts = 0.0
    limit: Watts = 0.0


class Shares(NamedTuple):
    """Average power of one device by what draws it [W]; ``idle`` is also drawn at rest."""

    idle: Watts
    active: Watts
    compute: Watts
    memory: Watts
    network: Watts
    engines: Watts = 0.0
    """Engines beside the device that work for it."""

    @property
    def total(self) -> Watts:
        """All of it [W]."""
        return self.idle + self.active + self.compute + self.memory + self.network + self.engines


def average_power(draw: Draw, use: Use, seconds: Seconds) -> Shares:
    """Average power of a device that is used so much within ``seconds``; its own no more than its limit [W]."""
    parts = (draw.compute * use.compute, draw.memory * use.memory, draw.network * use.network)
    dynamic = (parts[0] + parts[1] + parts[2]) / seconds
    fits = minimum(1.0, (draw.limit - draw.active) / maximum(dynamic, 1e-30))
    compute, memory, network = (part / seconds * fits for part in parts)
    return Shares(draw.idle, draw.active - draw.idle, compute, memory, network, use.engines / seconds)


def clock_under_cap(cap: Watts, idle: Watts, uncapped: Watts, exponent: Scalar) -> Fraction:
    r"""Share of the clock that remains where a draw must come down to a cap [1].

    .. math:: f/f_0 = \min\left(1, \left(\frac{P_{cap} - P_{idle}}{P - P_{idle}}\right)^{1/a}\right)
    """
    return minimum(1.0, (maximum(cap - idle, 0.0) / (uncapped - idle)) ** (1.0 / exponent))
