"""Typed, frozen results: what a plan is, what it costs, why, and what else was considered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from perfmodel.specs.quality.loss import Loss

__all__ = [
    "Answer",
    "Certificate",
    "Degree",
    "EvaluatedPlan",
    "Interval",
    "LedgerLine",
    "ParetoPoint",
    "Placement",
    "Rejected",
    "Rival",
    "ScalingRow",
    "Spent",
    "StageLedger",
    "TermRow",
]


class TermRow(NamedTuple):
    """One line of the time table: seconds it adds to the elapsed time, and seconds its resource is busy."""

    name: str
    resource: str
    seconds: float
    busy_seconds: float
    share: float


class LedgerLine(NamedTuple):
    """One line of the memory ledger of a device [B]."""

    name: str
    tier: str
    bytes: float


class StageLedger(NamedTuple):
    """Memory of one pipeline stage, per device."""

    stage: str
    lines: tuple[LedgerLine, ...]
    totals: Mapping[str, float]
    """Sum by tier [B]."""
    capacities: Mapping[str, float]
    """Capacity by tier [B]."""

    @property
    def fullest(self) -> tuple[str, float]:
        """The fullest tier and how full it is [1]."""
        tier = max(self.totals, key=lambda t: self.totals[t] / self.capacities[t])
        return tier, self.totals[tier] / self.capacities[tier]


class Degree(NamedTuple):
    """One factor of the device count and the topology level its ranks stay inside."""

    name: str
    degree: int
    level: str


class Interval(NamedTuple):
    """80 % interval of the predicted time, and what it stands on."""

    low: float
    high: float
    basis: str


class Spent(NamedTuple):
    """What a technique costs in quality.

    Parameters
    ----------
    technique : its name.
    chosen : its columns away from neutral, as ``awq-int4-g128``.
    loss : relative loss with metric, models and source; ``None`` where nobody published one.
    """

    technique: str
    chosen: str
    loss: Loss | None


@dataclass(frozen=True)
class EvaluatedPlan:
    """One plan with everything known about it.

    Parameters
    ----------
    columns : plan columns by name.
    degrees : factors of the device count; their product is ``devices`` (of one replica when serving).
    summary : techniques in words, one per entry.
    devices : devices used in all.
    seconds : time of one step (training) or per output token (serving) [s].
    metrics : what a user asks for, by name with unit in the name.
    terms : where the time goes; exposed seconds sum to ``timed_seconds``.
    timed_seconds : what the terms add up to: the step, or one decode pass [s].
    bound_seconds : no implementation of this plan on this machine is faster [s].
    ledgers : memory per stage.
    bottleneck : resource with the largest share.
    interval : 80 % interval of ``seconds``.
    quality : published relative loss of quality, the sum over techniques; ``None`` when one is unknown.
    losses : what each technique spends of it, with its source.
    constraints : demand / limit by name; legal up to 1.
    gain : tokens per sequence that the timed pass makes; 1 without speculation.
    extra_terms : terms of further passes (prefill), by name.
    power : average power by what draws it, of all devices with their nodes and the facility [kW].
    interruptions : failures and checkpoints of a training run; seconds, bytes, and shares of the expected time.
    pools : of a service whose prompts and decodes run apart, the plan of each pool, ``prefill`` and ``decode``.
    """

    columns: Mapping[str, Any]
    degrees: tuple[Degree, ...]
    summary: tuple[str, ...]
    devices: int
    seconds: float
    metrics: Mapping[str, float | None]
    terms: tuple[TermRow, ...]
    timed_seconds: float
    bound_seconds: float
    ledgers: tuple[StageLedger, ...]
    bottleneck: str
    interval: Interval
    quality: float | None = 0.0
    losses: tuple[Spent, ...] = ()
    constraints: Mapping[str, float] | None = None
    gain: float = 1.0
    extra_terms: Mapping[str, tuple[TermRow, ...]] | None = None
    power: Mapping[str, float] | None = None
    interruptions: Mapping[str, float] | None = None
    pools: Mapping[str, EvaluatedPlan] | None = None

    @property
    def beside(self) -> float:
        """Seconds per step or token that the timed terms do not hold: prefills of other requests [s]."""
        return self.seconds - self.timed_seconds / self.gain

    @property
    def legal(self) -> bool:
        """Whether every constraint is met."""
        return all(ratio <= 1.0 + 1e-9 for ratio in (self.constraints or {}).values())


class Rival(NamedTuple):
    """A legal plan that lost: how much slower by the objective, and the terms it loses on."""

    plan: EvaluatedPlan
    score_ratio: float
    loses_on: tuple[tuple[str, float], ...]
    """(term, seconds more than the best plan), largest first; when serving, seconds of one device per output token."""


class Rejected(NamedTuple):
    """The best plan that one constraint alone rejects."""

    constraint: str
    ratio: float
    plan: EvaluatedPlan
    plans: int
    remedy: str


class ScalingRow(NamedTuple):
    """The best plan of one device count."""

    devices: int
    seconds: float
    efficiency: float
    """Work per device relative to the best count [1]."""
    chosen: bool


class ParetoPoint(NamedTuple):
    """A plan that no other beats on both axes; (x, y) named by the answer's ``pareto_axes``."""

    x: float
    y: float
    plan: Mapping[str, Any]


class Placement(NamedTuple):
    """What solving for the shares found.

    Parameters
    ----------
    programmes : linear programmes solved, one for every choice of the other columns that was tried.
    grid_seconds : decode pass of the best plan on the grid of shares; NaN where the grid holds no legal plan [s].
    pass_seconds : decode pass of the plan chosen [s].
    dual_seconds : no shares make a decode pass of its other columns quicker [s].
    """

    programmes: int
    grid_seconds: float
    pass_seconds: float
    dual_seconds: float


class Certificate(NamedTuple):
    """What the search did."""

    candidates: int
    """Plans in the mesh."""
    left_out: int
    """Tuples that techniques left out of joint axes as illegal or redundant."""
    legal: int
    timed: int
    """Plans whose time was evaluated; constraints, or a bound on their time, decide about the others."""
    rejected: Mapping[str, int]
    rejected_alone: Mapping[str, int]
    axes: tuple[tuple[str, int], ...]
    exhaustive: bool
    objective: str
    runner_up_gap: float | None
    """Score of the runner-up over the best, minus 1."""
    win_probability: float | None
    """Share of draws of the uncertain constants in which the best plan stays best among those kept."""
    regret: float | None
    """Mean loss from choosing it when another would have been best [1]."""
    seconds: float
    """Wall time of the search [s]."""
    placement: Placement | None = None
    """Shares over memory tiers and engines, where there were any to solve for."""


class LengthGroups(NamedTuple):
    """Groups of ranks chosen for each batch of unlike sequences, against one size for all, under the best plan."""

    seconds: float
    """Micro-batches of a step, groups chosen for each [s]."""
    static_seconds: float
    """The same sequences on groups of the one size that holds the longest and is quickest [s]."""
    static_degree: int
    bound_seconds: float
    """No choice of groups for the same rounds is quicker [s]."""
    rounds: int
    degrees: tuple[tuple[int, int], ...]
    """(ranks of a group, groups of that size over all rounds)."""
    tokens_per_rank: float
    """What the memory of a rank holds [token]."""
    trading: int
    """Most ranks of a group that trade tokens for heads; wider groups are rings of such parts."""


@dataclass(frozen=True)
class Answer:
    """The answer for one workload.

    Parameters
    ----------
    phase : ``training`` or ``serving``.
    workload : its name.
    best : the plan to use, ``None`` when none is legal.
    runners_up : next best plans that differ in more than a detail, best first.
    rejected : nearest plans that a constraint alone rejects, most attractive first.
    scaling : best plan per device count (training), empty when the count was given.
    pareto : front of (``pareto_axes``).
    certificate : what the search did.
    assumptions : (what was assumed, the flag that changes it).
    provenance : what the numbers stand on: (quantity, kind, source).
    """

    phase: str
    workload: str
    best: EvaluatedPlan | None
    runners_up: tuple[Rival, ...]
    rejected: tuple[Rejected, ...]
    scaling: tuple[ScalingRow, ...]
    pareto: tuple[ParetoPoint, ...]
    pareto_axes: tuple[str, str]
    certificate: Certificate
    assumptions: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str, str], ...]
    possible_with: tuple[str, ...] = ()
    """When no plan is legal: changes of the question that were tried and do make one possible."""
    other_arrangement: Rival | None = None
    """Serving: the best plan of the arrangement that was not chosen, prefill and decode together or apart."""
    sizing: Any = None
    """Serving a trace: replicas over its time (:class:`perfmodel.insight.traffic.Sizing`)."""
    by_length: LengthGroups | None = None
    """Training on sequences of unlike lengths: what choosing groups for each batch would gain."""

    @property
    def feasible(self) -> bool:
        """Whether a legal plan exists."""
        return self.best is not None
