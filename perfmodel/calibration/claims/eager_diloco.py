"""Bandwidth at which an average hides behind all of its local steps, for a 1B model with a step of 0.1 s."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["over_synchronous", "required"]

PARAMETERS, STEP = 1e9, 0.1


def _bits(run: Run) -> float:
    """Bits that cross the line per period [b]."""
    asked = run.asked("eager")
    wan = run.estimate(asked).system.cluster.levels["wan"]
    rate = wan.nics.bandwidth.value * wan.nics.count.value if wan.nics else float("nan")
    return run.busy("eager", "outer sync") * float(asked.columns["local_steps"]) * 8.0 * rate * wan.efficiency.value


def required(run: Run) -> float:
    """Bits of an average over the steps it may take [Gb/s]."""
    asked = run.asked("eager")
    bits = _bits(run) * PARAMETERS / run.estimate(asked).model.architecture.parameters
    return bits / (float(asked.columns["local_steps"]) * STEP) / 1e9


def over_synchronous(run: Run) -> float:
    """Time of the exchange per synchronous step over that of the average per local step, times 1 / H."""
    ratio = run.busy("synchronous", "gradient sync") / run.busy("eager", "outer sync")
    return ratio / float(run.asked("eager").columns["local_steps"])
