"""The two planning problems: a training run, and a serving deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perfmodel.elementwise import Scalar, ceil
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.phases.memo import Memo
from perfmodel.phases.serving import check_passes
from perfmodel.phases.training import Step, check_training, evaluate_training, least_seconds, spend_training
from perfmodel.serving.steady import Replica, evaluate_serving
from perfmodel.solver.running import device_power, serving_power, training_power
from perfmodel.solver.search import Judged, Spent
from perfmodel.specs.slo import LATENCIES
from perfmodel.techniques.base import Situation, Technique, Term, acting
from perfmodel.techniques.record import Layout
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["OBJECTIVES", "ServingProblem", "TrainingProblem", "is_budget", "quality_ratio"]

OBJECTIVES = ("time", "throughput", "cost", "energy")
"""What a search may minimise: time, device time, money, energy."""


def is_budget(name: str) -> bool:
    """Whether a constraint is spent (memory, latency, quality, load) rather than a matter of form."""
    latency = name.split(" p")[0] in LATENCIES.values()
    return name.endswith("memory") or latency or name in ("quality", "rate", "prompts", "number format")


def quality_ratio(layout: Layout, budget: float | None) -> Mapping[str, Scalar]:
    """Quality spent over the budget; a loss that nobody published (NaN) is over any budget."""
    loss = layout.quality_loss
    if isinstance(loss, (int, float)) and loss == 0.0:
        return {}
    return {"quality": loss / max(budget or 0.0, 1e-12)}


@dataclass
class TrainingProblem:
    """Judge training plans.

    Parameters
    ----------
    techniques, situation, machine, network, framework : as in :func:`perfmodel.phases.training.evaluate_training`.
    objective : one of :data:`OBJECTIVES`.
    quality_budget : largest published loss that a plan may spend, ``None`` for none.
    """

    techniques: Sequence[Technique]
    situation: Situation
    machine: Machine
    network: Network
    framework: Mapping[str, float]
    objective: str = "time"
    quality_budget: float | None = None
    memo: Memo[list[Term]] = field(default_factory=Memo)
    wants_front: bool = False

    def evaluate(self, x: Plan) -> Step:
        """Full evaluation of one plan or a block."""
        power = self.objective == "energy"
        return evaluate_training(
            x,
            acting(self.techniques, x),
            self.situation,
            self.machine,
            self.network,
            self.framework,
            self.memo,
            power=power,
        )

    def form(self, x: Plan) -> Mapping[str, Scalar]:
        """Whether counts and divisions come out whole."""
        return check_training(x, acting(self.techniques, x), self.situation, self.network, self.framework)[1]

    def judge(self, x: Plan) -> Judged:
        """Score, device count and constraints of a block."""
        step = self.evaluate(x)
        budget, form = self._sorted(step.settled, step.ratios)
        return Judged(self._score(step, x.devices), x.devices, step.seconds, budget, form)

    def spent(self, x: Plan) -> Spent:
        """Memory and quality over their limits, and the form of a block: no constraint of training needs a time."""
        settled, _, ratios = spend_training(
            x, acting(self.techniques, x), self.situation, self.machine, self.network, self.framework
        )
        if self.objective == "energy":
            return Spent(*self._sorted(settled, ratios))
        seconds = least_seconds(settled, self.machine, self.memo)
        return Spent(*self._sorted(settled, ratios), seconds if self.objective == "time" else x.devices * seconds)

    def _sorted(self, settled: Settled, ratios: Mapping[str, Scalar]) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
        """Constraints that spend something, and those of form."""
        every = {**ratios, **quality_ratio(settled.layout, self.quality_budget)}
        budget = {n: r for n, r in every.items() if is_budget(n)}
        return budget, {n: r for n, r in every.items() if n not in budget}

    def _score(self, step: Step, devices: Scalar) -> Scalar:
        if self.objective == "time":
            return step.seconds
        if self.objective == "energy":
            power = device_power(self.machine, training_power(self.machine, step))
            return devices * step.seconds * power
        return devices * step.seconds


@dataclass
class ServingProblem:
    """Judge serving replicas: how many devices, at which latency, for which rate."""

    techniques: Sequence[Technique]
    situation: Situation
    machine: Machine
    network: Network
    framework: Mapping[str, float]
    objective: str = "throughput"
    quality_budget: float | None = None
    memo: Memo[list[Term]] = field(default_factory=Memo)
    wants_front: bool = True

    def evaluate(self, x: Plan) -> Replica:
        """Full evaluation of one replica plan or a block."""
        power = self.objective == "energy"
        return evaluate_serving(
            x,
            acting(self.techniques, x),
            self.situation,
            self.machine,
            self.network,
            self.framework,
            self.memo,
            power=power,
        )

    def form(self, x: Plan) -> Mapping[str, Scalar]:
        """Whether counts and divisions come out whole."""
        found = check_passes(x, acting(self.techniques, x), self.situation, self.network, self.framework)
        return {n: r for n, r in found.items() if not is_budget(n)}

    def spent(self, x: Plan) -> None:
        """Latency limits need times."""
        del x

    def replicas(self, replica: Replica) -> Scalar:
        """Replicas that carry the wanted rate; one where no rate is wanted."""
        rate = self.situation.workload.rate
        return 1.0 if rate is None else ceil(rate / replica.rate)

    def judge(self, x: Plan) -> Judged:
        """Score, device count and constraints of a block."""
        replica = self.evaluate(x)
        replicas = self.replicas(replica)
        devices = replicas * replica.devices
        ratios = {**replica.ratios, **quality_ratio(replica.settled.layout, self.quality_budget)}
        budget = {n: r for n, r in ratios.items() if is_budget(n)}
        concurrency = self.situation.workload.concurrency
        if concurrency is not None:
            flying = x.batch if replica.tails is None else x.batch * replica.tails.peak / replica.settled.batch
            budget["concurrency"] = flying * replicas / concurrency
        budget["machine size"] = devices / self.situation.devices
        form = {n: r for n, r in ratios.items() if not is_budget(n)}
        return Judged(self._score(replica, devices), replica.devices, replica.tpot, budget, form)

    def _score(self, replica: Replica, devices: Scalar) -> Scalar:
        if self.objective == "time":
            return replica.ttft + (self.situation.workload.output - 1.0) * replica.tpot
        return self.per_request(replica, devices)

    def per_request(self, replica: Replica, devices: Scalar | None = None) -> Scalar:
        """Device seconds of a request, or joules where energy is asked for; of equal plans the quicker is better."""
        wanted = self.situation.workload.rate
        devices = self.replicas(replica) * replica.devices if devices is None else devices
        served = replica.rate if wanted is None else wanted
        each = devices / served
        if self.objective == "energy":
            load = 1.0 if wanted is None else wanted / (self.replicas(replica) * replica.rate)
            return each * device_power(self.machine, serving_power(self.machine, replica, load))
        return each * (1.0 + 1e-6 * (replica.tpot if replica.prompts is None else replica.tpot + replica.ttft))
