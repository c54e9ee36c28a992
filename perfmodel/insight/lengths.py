"""Training on sequences of unlike lengths: groups of one size for all of them against groups chosen for each batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.insight.setting import Setting
from perfmodel.solver.assignment import Assignment, assign, buckets_of
from perfmodel.solver.result import EvaluatedPlan, LengthGroups
from perfmodel.specs.lengths import QUANTILES
from perfmodel.specs.workload import TrainingWorkload, revise
from perfmodel.techniques.settled import Plan, split_by

__all__ = ["MixedLengths", "groups_by_length", "mixed_lengths"]

MOST_SEQUENCES = 1024
"""Sequences of a batch that are assigned one by one; larger batches are a multiple of them."""
LEAST = 1024
"""Tokens per rank at which memory is looked at first."""
WAYS = ("ulysses", "cp", "cp_directions")
"""Columns that share a sequence."""


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


def mixed_lengths(
    setting: Setting, lengths: Sequence[int], *, trading: int, columns: Mapping[str, Any]
) -> MixedLengths:
    """Assign the sequences of a step to groups of ranks.

    Parameters
    ----------
    setting : what is trained, on which devices and how; its workload's ``sequence`` is the longest it allows.
    lengths : tokens of each sequence of the step.
    trading : most ranks of a group that trade tokens for heads; more of them form a ring of such parts. 1: a ring only.
    columns : the other columns of the plan.

    Raises
    ------
    SpecError
        If the ranks to share are no power of two, a sequence fits no group, or the states alone do not fit.
    """
    workload = setting.workload
    if not isinstance(workload, TrainingWorkload):
        raise SpecError("lengths of sequences belong to training", field="workload", found=workload.name)
    devices = int(setting.question.devices or columns.get("devices", setting.machine.devices))

    def evaluated(length: int, degree: int, copies: int, ranks: int) -> Any:
        batch = length * copies * max(ranks // degree, 1)
        changed = revise(
            workload,
            {"sequence": length, "global_batch": batch, "tokens": max(workload.tokens, batch), "lengths": None},
        )
        problem = replace(setting.problem, situation=setting.problem.situation._replace(workload=changed))
        near = min(degree, trading)
        shared = {"ulysses": near, "cp": degree // near, "micro_batch": copies}
        return problem.evaluate(_plan(setting, devices, {**columns, **shared}))

    dims = evaluated(LEAST, 1, 1, 1).settled.dims
    ranks = round(split_by(dims, "batch") * split_by(dims, "tokens"))
    if ranks & (ranks - 1):
        raise SpecError("groups are powers of two", field="devices", found=ranks, allowed="a power of two to share")
    degrees = [2**i for i in range(ranks.bit_length())]
    room = _tokens_per_rank(lambda tokens: evaluated(tokens * ranks, ranks, 1, ranks), ranks)
    counted = buckets_of(lengths)
    costs: dict[int, dict[int, float]] = {}
    for degree in degrees:
        costs[degree] = {}
        for length in sorted(set(counted.values())):
            copies = max(1, int(room * degree / length))
            seconds = float(evaluated(length, degree, copies, ranks).micro_batches_seconds)
            costs[degree][length] = seconds / copies
    sequences = [counted[n] for n in lengths]
    devices = ranks
    adaptive = assign(sequences, devices, costs, room)
    longest = max(workload.sequence, *sequences)
    holding = [d for d in degrees if longest <= d * room]
    if not holding:
        allowed = f"{devices} ranks of {room:.0f} tokens"
        raise SpecError("the longest sequence does not fit", field="sequence", found=longest, allowed=allowed)
    static = {d: assign(sequences, devices, {d: costs[d]}, room) for d in holding}
    return MixedLengths(adaptive, static, room, tuple(sequences))


def groups_by_length(setting: Setting, best: EvaluatedPlan) -> LengthGroups | None:
    """Groups chosen for each batch under a plan, where its workload says how long sequences are; ``None`` elsewhere.

    The batch is a sample of the distribution; where it has more sequences than are assigned one by one, a part of it.
    """
    workload = setting.workload
    if not isinstance(workload, TrainingWorkload) or workload.lengths is None:
        return None
    few = workload.lengths.sample(QUANTILES, workload.sequence)
    count = round(workload.global_batch / (sum(few) / len(few)))
    lengths = workload.lengths.sample(min(max(count, 1), MOST_SEQUENCES), workload.sequence)
    plain = {n: v for n, v in best.columns.items() if n not in (*WAYS, "micro_batch")}
    trading = round(best.columns.get("ulysses", 1))
    try:
        found = mixed_lengths(setting, lengths, trading=trading, columns=plain)
    except SpecError:
        return None
    whole = max(count / len(lengths), 1.0)
    degree, static = min(found.static.items(), key=lambda item: item[1].seconds)
    counts = Counter(load.degree for r in found.adaptive.rounds for load in r.loads)
    return LengthGroups(
        seconds=found.adaptive.seconds * whole,
        static_seconds=static.seconds * whole,
        static_degree=degree,
        bound_seconds=found.adaptive.bound * whole,
        rounds=len(found.adaptive.rounds),
        degrees=tuple(sorted(counts.items(), reverse=True)),
        tokens_per_rank=found.tokens_per_rank,
        trading=trading,
    )


def _plan(setting: Setting, devices: int, columns: Mapping[str, Any]) -> Plan:
    """The plan with every column not named at its neutral value."""
    x: dict[str, Any] = {}
    for technique in setting.problem.techniques:
        x.update(technique.neutral)
    x["devices"] = devices
    x.update(columns)
    return Plan(**{n: float(v) if isinstance(v, int) else v for n, v in x.items()})


def _fullest(ratios: Mapping[str, Any]) -> float:
    """Demand over limit of the fullest memory [1]."""
    return max(float(ratio) for name, ratio in ratios.items() if name.endswith(" memory"))


def _tokens_per_rank(evaluated: Callable[[int], Any], devices: int) -> float:
    """Tokens that fit beside the states: what memory needs is linear in them."""
    few, many = LEAST, 4 * LEAST
    first, second = (_fullest(evaluated(n).ratios) for n in (few, many))
    slope = (second - first) / (many - few)
    room = few + (1.0 - first) / slope
    if room < 1.0:
        raise SpecError(
            "the states alone do not fit", field="devices", found=devices, allowed="more, or sharded states"
        )
    return room
