"""Plans for image generation: the machine built, the space searched, the best plan explained beside its rivals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from perfmodel.errors import SpecError, UnknownName
from perfmodel.machine.build import build_machine
from perfmodel.network.build import build_network
from perfmodel.solver.images import IMAGE_OBJECTIVES, ImageProblem, evaluate_image_plan
from perfmodel.solver.outcome import Candidate
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.solver.search import search
from perfmodel.solver.space import build_space, column_value
from perfmodel.specs.framework import ServingFramework, load_framework
from perfmodel.specs.images import ImageModel, ImageWorkload
from perfmodel.specs.system import System
from perfmodel.techniques import asked_for, techniques_for
from perfmodel.techniques.base import Situation
from perfmodel.techniques.settled import Plan

__all__ = ["ImageAnswer", "ImageRejected", "image_problem", "plan_images", "single_plan"]

RIVALS = 3
ASSUMPTIONS = (
    "products run as those of language models do: no constants were fitted to diffusion",
    "the text encoder is left out; the decoder of the latent runs on one device",
)
FREE = "software costs nothing: kernels are launched in time [--framework]"


class ImageRejected(NamedTuple):
    """The best plan that one constraint alone rejects, and by how much."""

    constraint: str
    ratio: float
    plan: EvaluatedPlan


@dataclass(frozen=True)
class ImageAnswer:
    """The best plan for images on a machine, those beside it, and what almost was.

    Parameters
    ----------
    best : ``None`` where nothing fits.
    others : plans of other shapes, best first.
    rejected : what single constraints keep out.
    candidates, legal : plans judged, and those without fault.
    seconds : of the search.
    """

    model: ImageModel
    system: System
    workload: ImageWorkload
    objective: str
    best: EvaluatedPlan | None
    others: tuple[EvaluatedPlan, ...]
    rejected: tuple[ImageRejected, ...]
    candidates: int
    legal: int
    seconds: float
    assumptions: tuple[str, ...]


def image_problem(
    model: ImageModel,
    system: System,
    workload: ImageWorkload,
    *,
    objective: str | None = None,
    devices: int | None = None,
    use: tuple[str, ...] = (),
    max_quality_loss: float | None = None,
    framework: str | Path | None = None,
) -> ImageProblem:
    """Build machine, network and techniques for a question about images.

    Raises
    ------
    PerfmodelError
        If sizes do not suit the model, or a name is unknown.
    """
    multiple = model.denoiser.multiple
    for field in ("height", "width"):
        if getattr(workload, field) % multiple:
            raise SpecError(
                f"must be a multiple of {multiple} pixels", field=f"workload.{field}", found=getattr(workload, field)
            )
    if objective is not None and objective not in IMAGE_OBJECTIVES:
        raise SpecError("unknown objective", field="objective", found=objective, allowed=", ".join(IMAGE_OBJECTIVES))
    software = None if framework is None else load_framework(framework)
    if software is not None and not isinstance(software, ServingFramework):
        raise SpecError(
            f"{software.name} is a {software.kind} framework", field="framework", found=str(framework),
            allowed="a serving framework, whose host times are those of the steps",
        )  # fmt: skip
    machine = build_machine(system) if software is None else build_machine(system, software.kernels, software.covers)
    network = build_network(system.cluster)
    constants = {} if software is None else software.on(system.accelerator.family, machine.main.capacity)
    count = round(float(machine.devices)) if devices is None else devices
    if not 1 <= count <= machine.devices:
        raise SpecError(
            "more devices than the machine has", field="devices", found=count, allowed=f"1 to {machine.devices}"
        )
    asked = asked_for(use)
    chosen = tuple((name, values) for name, values in asked.items() if values)
    situation = Situation("image", model.denoiser, machine, workload, count, frozenset(asked), chosen)  # type: ignore[arg-type]
    lossy = max_quality_loss is not None and max_quality_loss > 0
    techniques = techniques_for("image", lossy=lossy, use=use)
    return ImageProblem(techniques, situation, machine, network, constants, objective or "time", max_quality_loss)


def assumed(framework: str | Path | None) -> tuple[str, ...]:
    """What is taken for granted."""
    software = FREE if framework is None else f"software behaves like {framework} serving a language model"
    return (*ASSUMPTIONS, software)


def single_plan(problem: ImageProblem, columns: Mapping[str, Any]) -> EvaluatedPlan:
    """Evaluate one given plan; what is not named stays neutral.

    Raises
    ------
    UnknownName
        If a column belongs to no technique of the phase.
    """
    x: dict[str, Any] = {}
    for technique in problem.techniques:
        x.update({n: float(v) if isinstance(v, (int, float)) else v for n, v in technique.neutral.items()})
        for axis in technique.axes(problem.situation):
            for i, name in enumerate(axis.columns):
                if name in columns:
                    column_value(axis, i, columns[name])
    for name, value in columns.items():
        if name not in x:
            raise UnknownName("plan column", name, x, remedy="it may belong to a technique that needs --use")
        x[name] = float(value) if isinstance(value, (int, float)) else value
    return evaluate_image_plan(problem, Plan(**x))


def plan_images(
    model: ImageModel, system: System, workload: ImageWorkload, *, pin: Mapping[str, Any] | None = None, **question: Any
) -> ImageAnswer:
    """Search every plan; the question as in :func:`image_problem`."""
    problem = image_problem(model, system, workload, **question)
    started = time.perf_counter()
    outcome = search(build_space(problem.techniques, problem.situation, dict(pin or {})), problem)
    elapsed = time.perf_counter() - started
    plans = [evaluate_image_plan(problem, c.plan) for c in _distinct(outcome.best)]
    near = sorted(outcome.near.values(), key=lambda miss: miss.candidate.score)
    rejected: dict[str, ImageRejected] = {}
    for miss in near:
        if miss.constraint not in rejected:
            plan = evaluate_image_plan(problem, miss.candidate.plan)
            rejected[miss.constraint] = ImageRejected(miss.constraint, miss.ratio, plan)
    if not plans and outcome.closest is not None:
        ratio, name, candidate = outcome.closest
        rejected.setdefault(name, ImageRejected(name, ratio, evaluate_image_plan(problem, candidate.plan)))
    return ImageAnswer(
        model, system, workload, problem.objective, plans[0] if plans else None, tuple(plans[1 : 1 + RIVALS]),
        tuple(rejected.values()), outcome.cells, outcome.legal, elapsed, assumed(question.get("framework")),
    )  # fmt: skip


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Best first, one of every shape of ranks."""
    found: dict[tuple[Any, ...], Candidate] = {}
    for candidate in candidates:
        x = vars(candidate.plan)
        key = tuple(v for n, v in sorted(x.items()) if n != "images")
        found.setdefault(key, candidate)
    return list(found.values())
