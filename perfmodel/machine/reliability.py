r"""Failures and checkpoints: how much of the time a long job makes progress.

Failures strike a running job at a constant rate :math:`\lambda` (exponential times, mean :math:`M = 1/\lambda`), also
while it writes a checkpoint; a job that stands for repair is not struck again. It computes for :math:`\tau`, writes a
checkpoint for :math:`\delta`, and loses :math:`R` and everything since the last checkpoint at a failure. The expected
time of one such segment is exact:

.. math:: E = (M + R)\left(e^{\lambda(\tau + \delta)} - 1\right)

Where the copy of the state is durable only a time D after the job went on (it is written beside training), a failure
before that falls back to the checkpoint before. From one durable checkpoint to the next pass
:math:`\tau + \delta`, after a failure :math:`\tau + \delta + D`, and the renewal equation gives
:math:`E\,e^{\lambda D}` with the stall :math:`\delta` alone: the best interval is that of the stall, but no shorter
than D.

Where failures strike during repair too, :math:`M e^{\lambda R}` stands for :math:`M + R` [2]_; crash counts of real
jobs, whose faults take hours to find, agree with the former.

References
----------
.. [1] J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974.
.. [2] J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", FGCS 22(3), 2006.
"""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, exp, expm1, maximum, minimum, sqrt, where
from perfmodel.units import Fraction, Seconds

__all__ = [
    "Failures",
    "daly_interval",
    "expected_segment",
    "failure_rate",
    "goodput",
    "optimal_goodput",
    "optimal_interval",
    "young_interval",
]

NEWTON_STEPS = 7
"""Steps of Newton's method from Young's interval; six reach the last digits from any checkpoint time."""

SMALL = 1e-16
"""Checkpoint time over the mean time between failures below which Young's interval is as good as floats are."""


class Failures(NamedTuple):
    """Failure rates of one device, one node, and the network interfaces of one device [1/s]; repair times [s]."""

    device: Scalar = 0.0
    node: Scalar = 0.0
    links: Scalar = 0.0
    detection: Seconds = 0.0
    restart: Seconds = 0.0


def failure_rate(failures: Failures, devices: Scalar, nodes: Scalar) -> Scalar:
    """Interruptions per second of a job on so many devices and nodes: any part stops all [1/s]."""
    return devices * (failures.device + failures.links) + nodes * failures.node


def young_interval(write: Seconds, rate: Scalar) -> Seconds:
    r"""First-order optimum of the time between checkpoints: :math:`\sqrt{2 \delta M}` [s], [1]_."""
    return sqrt(2.0 * write / rate)


def daly_interval(write: Seconds, rate: Scalar) -> Seconds:
    r"""Higher-order optimum [s], [2]_ eq. 37; :math:`M` where a checkpoint takes longer than :math:`2M`.

    .. math:: \sqrt{2\delta M}\left[1 + \tfrac13\sqrt{\tfrac{\delta}{2M}} + \tfrac19\tfrac{\delta}{2M}\right] - \delta
    """
    half = write * rate / 2.0
    series = young_interval(write, rate) * (1.0 + sqrt(half) / 3.0 + half / 9.0) - write
    return where(half < 1.0, series, 1.0 / rate)


def _optimum(write_share: Scalar) -> Scalar:
    r"""Root :math:`u = \lambda\tau` of :math:`u = 1 - e^{-(u + d)}` at :math:`d = \lambda\delta`.

    The slope of :math:`\tau/E` vanishes there. The function is convex and Young's :math:`\sqrt{2d}` lies right of the
    root, so Newton's method falls to it without overshooting.
    """
    u = start = minimum(sqrt(2.0 * write_share), 1.0)
    for _ in range(NEWTON_STEPS):
        u = 1.0 + u * (1.0 - 1.0 / maximum(-expm1(-(u + write_share)), 1e-300))
    return where(write_share > SMALL, u, start)


def optimal_interval(write: Seconds, rate: Scalar) -> Seconds:
    """Exact optimum of the computing time between checkpoints under exponential failures [s]."""
    return _optimum(write * rate) / rate


def optimal_goodput(write: Seconds, repair: Seconds, rate: Scalar) -> Fraction:
    r"""Share of the time that is progress at the optimal interval; 1 without failures [1].

    At the optimum :math:`e^{-\lambda(\tau+\delta)} = 1 - \lambda\tau`, so
    :math:`\tau/E = (1 - \lambda\tau) / (1 + \lambda R)`.
    """
    return (1.0 - _optimum(write * rate)) / (1.0 + rate * repair)


def expected_segment(work: Seconds, write: Seconds, repair: Seconds, rate: Scalar, drain: Seconds = 0.0) -> Seconds:
    """Expected time until ``work`` seconds of progress and their checkpoint are done [s]; see the module.

    ``write`` stops the job; ``drain`` runs beside what follows.
    """
    return (1.0 / rate + repair) * expm1(rate * (work + write)) * exp(rate * drain)


def goodput(work: Seconds, write: Seconds, repair: Seconds, rate: Scalar, drain: Seconds = 0.0) -> Fraction:
    """Share of the time that is progress with a checkpoint every ``work`` seconds [1]."""
    return work / expected_segment(work, write, repair, rate, drain)
