"""Training on sequences of unlike lengths: groups of one size for all of them against groups chosen for each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from statistics import NormalDist
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.insight.setting import Setting
from perfmodel.solver.assignment import Assignment, assign, buckets_of
from perfmodel.specs.workload import TrainingWorkload, revise
from perfmodel.techniques.settled import Plan

__all__ = ["MixedLengths", "long_tail_lengths", "mixed_lengths"]


@dataclass(frozen=True)
class MixedLengths:
    """One step over given sequences.

    Parameters
    ----------
    adaptive : groups chosen for every round.
    static : group size -> the same sequences on groups of that size only, where the workload's longest fits.
    tokens_per_rank : what the memory of a rank holds.
    lengths : tokens of each sequence as counted, after those of like length were put together.
    """

    adaptive: Assignment
    static: Mapping[int, Assignment]
    tokens_per_rank: float
    lengths: tuple[int, ...]

    @property
    def speedup(self) -> float:
        """Best static groups over adaptive ones, in time [1]."""
        return min(a.seconds for a in self.static.values()) / self.adaptive.seconds


def mixed_lengths(setting: Setting, lengths: Sequence[int], *, column: str, columns: Mapping[str, Any]) -> MixedLengths:
    """Assign the sequences of a step to groups of ranks.

    Parameters
    ----------
    setting : what is trained, on which devices and how; its workload's ``sequence`` is the longest it allows.
    lengths : tokens of each sequence of the step.
    column : plan column that shares a sequence: ``ulysses`` or ``cp``.
    columns : the other columns of the plan.

    Raises
    ------
    SpecError
        If the devices are no power of two, a sequence fits no group, or the states alone do not fit.
    """
    devices, workload = int(setting.question.devices or setting.machine.devices), setting.workload
    if devices & (devices - 1) or not isinstance(workload, TrainingWorkload):
        raise SpecError("groups are powers of two", field="devices", found=devices, allowed="a power of two")

    def evaluated(length: int, degree: int, copies: int) -> Any:
        batch = length * copies * (devices // degree)
        changed = revise(workload, {"sequence": length, "global_batch": batch, "tokens": max(workload.tokens, batch)})
        problem = replace(setting.problem, situation=setting.problem.situation._replace(workload=changed))
        return problem.evaluate(_plan(setting, {**columns, column: degree, "micro_batch": copies}))

    degrees = [2**i for i in range(devices.bit_length())]
    room = _tokens_per_rank(evaluated, devices)
    counted = buckets_of(lengths)
    costs: dict[int, dict[int, float]] = {}
    for degree in degrees:
        costs[degree] = {}
        for length in sorted(set(counted.values())):
            copies = max(1, int(room * degree / length))
            costs[degree][length] = float(evaluated(length, degree, copies).micro_batches_seconds) / copies
    sequences = [counted[n] for n in lengths]
    adaptive = assign(sequences, devices, costs, room)
    longest = max(workload.sequence, *sequences)
    holding = [d for d in degrees if longest <= d * room]
    if not holding:
        allowed = f"{devices} ranks of {room:.0f} tokens"
        raise SpecError("the longest sequence does not fit", field="sequence", found=longest, allowed=allowed)
    static = {d: assign(sequences, devices, {d: costs[d]}, room) for d in holding}
    return MixedLengths(adaptive, static, room, tuple(sequences))


def _plan(setting: Setting, columns: Mapping[str, Any]) -> Plan:
    """The plan with every column not named at its neutral value."""
    x: dict[str, Any] = {}
    for technique in setting.problem.techniques:
        x.update(technique.neutral)
    x["devices"] = setting.question.devices
    x.update(columns)
    return Plan(**{n: float(v) if isinstance(v, int) else v for n, v in x.items()})


def _fullest(ratios: Mapping[str, Any]) -> float:
    """Demand over limit of the fullest memory [1]."""
    return max(float(ratio) for name, ratio in ratios.items() if name.endswith(" memory"))


def _tokens_per_rank(evaluated: Any, devices: int) -> float:
    """Tokens that fit beside the states: what memory needs is linear in them."""
    few, many = 1024, 4096
    first, second = (_fullest(evaluated(n * devices, devices, 1).ratios) for n in (few, many))
    slope = (second - first) / (many - few)
    room = few + (1.0 - first) / slope
    if room < 1.0:
        raise SpecError(
            "the states alone do not fit", field="devices", found=devices, allowed="more, or sharded states"
        )
    return room


def long_tail_lengths(count: int, *, median: float, sigma: float, longest: int) -> list[int]:
    """Log-normal lengths at the quantiles of their distribution, none longer than the longest [token].

    Examples
    --------
    >>> long_tail_lengths(4, median=1000, sigma=1.0, longest=65536)
    [317, 727, 1375, 3159]
    """
    normal = NormalDist()
    quantiles = (normal.inv_cdf((i + 0.5) / count) for i in range(count))
    return [max(1, min(longest, round(median * exp(sigma * z)))) for z in quantiles]
