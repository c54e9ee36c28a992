"""A question, and the built machine, network, techniques and space that answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perfmodel.errors import SpecError, UnknownName
from perfmodel.machine.build import Machine, build_machine
from perfmodel.network.build import build_network
from perfmodel.network.topology import Network
from perfmodel.serving.open_pools import POOLS
from perfmodel.solver.problems import OBJECTIVES, ServingProblem, TrainingProblem
from perfmodel.solver.space import Space, build_space
from perfmodel.specs.framework import Framework, ServingFramework, TrainingFramework
from perfmodel.specs.model import Model
from perfmodel.specs.system import System
from perfmodel.specs.workload import TrainingWorkload, Workload, revise
from perfmodel.techniques import asked_for, techniques_for
from perfmodel.techniques.base import Situation

POOLING = ("either", "together", "apart")
"""Whether prefill and decode share replicas."""

__all__ = ["POOLING", "Question", "Setting", "longest_request", "make_setting", "position_limit", "within_positions"]


@dataclass(frozen=True)
class Question:
    """What is asked, apart from machine, model and workload.

    Parameters
    ----------
    objective : ``time``, ``throughput``, ``cost`` or ``energy``; ``None`` takes the phase's default.
    devices : number of devices, ``None`` to choose it.
    pinned : plan columns held fixed (a value, or values to search).
    use : techniques asked for by name although they change the numerics.
    max_quality_loss : largest published relative loss of quality a plan may spend.
    pools : serving: prefill and decode on the same replicas (``together``), on pools of their own (``apart``), or
        ``either``, whichever is better where requests come at random.
    """

    objective: str | None = None
    devices: int | None = None
    pinned: Mapping[str, Any] | None = None
    use: tuple[str, ...] = ()
    max_quality_loss: float | None = None
    pools: str = "either"

    @property
    def common_pins(self) -> dict[str, Any]:
        """Columns held for every replica: all but those of one pool, ``prefill.tp``."""
        return {n: v for n, v in (self.pinned or {}).items() if "." not in n}

    def pool_pins(self, pool: str) -> dict[str, Any]:
        """Columns held for the replicas of one pool, those for all among them."""
        own = {n.partition(".")[2]: v for n, v in (self.pinned or {}).items() if n.startswith(pool + ".")}
        return {**self.common_pins, **own}


@dataclass(frozen=True)
class Setting:
    """A model on a machine under a workload, built and ready to search."""

    model: Model
    system: System
    workload: Workload
    framework: Framework
    question: Question
    problem: TrainingProblem | ServingProblem
    space: Space
    machine: Machine
    network: Network

    @property
    def phase(self) -> str:
        """``training`` or ``serving``."""
        return self.workload.kind


def make_setting(model: Model, system: System, workload: Workload, framework: Framework, question: Question) -> Setting:
    """Build machine, network, techniques and space for a question.

    Raises
    ------
    PerfmodelError
        If the question contradicts itself, the machine or the model.
    """
    _check(model, workload, question)
    machine = build_machine(system, framework.kernels, framework.covers, framework.stand_in, tuned=framework.tuned)
    if question.objective == "energy" and not machine.main.draw.limit:
        raise SpecError(
            f"{system.accelerator.name} states no power, so that its energy is unknown", field="objective",
            found="energy", allowed="the others; or add power: {limit: …} to the device file",
        )  # fmt: skip
    network = build_network(system.cluster, sums=framework.all_reduce)
    devices = machine.devices if question.devices is None else question.devices
    if devices > machine.devices:
        raise SpecError(
            "more devices than the machine has", field="devices", found=devices, allowed=f"1 to {machine.devices}"
        )
    asked = asked_for(question.use)
    chosen = tuple((name, values) for name, values in asked.items() if values)
    situation = Situation(
        workload.kind, model.architecture, machine, workload, int(devices), frozenset(asked), chosen,
        question.max_quality_loss,
    )  # fmt: skip
    lossy = question.max_quality_loss is not None and question.max_quality_loss > 0
    techniques = techniques_for(workload.kind, lossy=lossy, use=question.use)
    pinned = question.common_pins
    if workload.kind == "training" and question.devices is not None:
        pinned.setdefault("devices", question.devices)
    constants = framework.constants
    if isinstance(framework, ServingFramework):
        constants = framework.on(system.accelerator.family, machine.main.capacity)
    if isinstance(framework, TrainingFramework) and isinstance(workload, TrainingWorkload):
        constants = framework.on(system.accelerator.family, workload.recipe.compute)
    common = (techniques, situation, machine, network, constants)
    objective = question.objective or ("time" if workload.kind == "training" else "throughput")
    kind = TrainingProblem if workload.kind == "training" else ServingProblem
    problem = kind(*common, objective, question.max_quality_loss)
    space = build_space(techniques, situation, pinned)
    return Setting(model, system, workload, framework, question, problem, space, machine, network)


def _check(model: Model, workload: Workload, question: Question) -> None:
    if question.objective is not None and question.objective not in OBJECTIVES:
        raise SpecError("unknown objective", field="objective", found=question.objective, allowed=", ".join(OBJECTIVES))
    if question.pools not in POOLING:
        raise SpecError("unknown arrangement", field="pools", found=question.pools, allowed=", ".join(POOLING))
    for name in question.pinned or {}:
        pool, dot, _ = name.partition(".")
        if dot and (pool not in POOLS or workload.kind == "training"):
            raise UnknownName("pool", pool, POOLS, remedy="write prefill.tp=2 or decode.tp=4, of a service")
    if question.devices is not None and question.devices < 1:
        raise SpecError("at least one device is needed", field="devices", found=question.devices)
    loss = question.max_quality_loss
    if loss is not None and not 0.0 <= loss <= 1.0:
        raise SpecError("a share is needed", field="max_quality_loss", found=loss, allowed="0 to 1, e.g. 0.03 or 3%")
    longest = position_limit(model)
    wanted = workload.sequence if workload.kind == "training" else workload.prompt + workload.output
    if longest is not None and wanted > longest:
        raise SpecError(
            f"{model.name} has learned positions for {longest} tokens",
            field="workload.sequence" if workload.kind == "training" else "workload.prompt",
            found=wanted,
            allowed=f"up to {longest} tokens; --set-workload sequence={longest}",
        )


def position_limit(model: Model) -> int | None:
    """Longest context of a model whose positions are a learned table that ends (GPT-2, OPT); ``None`` for formulas."""
    learned = model.architecture.family in ("gpt2", "opt", "gpt_bigcode", "gpt_neo")
    return model.architecture.max_positions if learned else None


def longest_request(model: Model) -> int | None:
    """Most tokens of a request: what the model has positions for, or what its configuration declares."""
    return position_limit(model) or model.architecture.max_positions


def within_positions(workload: Workload, model: Model) -> Workload:
    """The workload, its sequences cut to the model's learned positions where those are fewer."""
    longest = position_limit(model)
    if longest is None:
        return workload
    if workload.kind == "training":
        return revise(workload, {"sequence": longest}) if workload.sequence > longest else workload
    if workload.prompt + workload.output <= longest:
        return workload
    output = min(workload.output, longest // 2)
    return revise(workload, {"output": output, "prompt": longest - output})
