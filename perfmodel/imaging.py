"""The library for images by diffusion: the best plan, or one given plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfmodel.insight.images import ImageAnswer, image_problem, plan_images, single_plan
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.specs.images import ImageModel, ImageWorkload, load_image_model, load_image_workload, revise_images
from perfmodel.specs.overrides import override
from perfmodel.specs.system import System, load_system

__all__ = ["ImageEstimate", "image_estimate", "images"]


def images(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "image",
    *,
    objective: str | None = None,
    devices: int | None = None,
    pin: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    max_quality_loss: float | None = None,
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> ImageAnswer:
    """Find the best plan to make images with a diffusion model.

    Parameters
    ----------
    model : name, or path of a model file or of a denoiser's ``config.json``.
    workload : name or path of a workload of kind ``image``.
    objective : ``time`` of a batch (the default) or ``throughput``.
    framework : serving framework whose host times steps and launches take; none: software costs nothing.
    hw, devices, pin, use, max_quality_loss, changes, workload_changes : as in :func:`perfmodel.plan`.

    Raises
    ------
    PerfmodelError
        If a name is unknown or a file cannot be used.
    """
    found, system, asked = _image_parts(model, hw, workload, changes, workload_changes)
    return plan_images(
        found, system, asked, pin=pin, objective=objective, devices=devices, use=tuple(use),
        max_quality_loss=max_quality_loss, framework=framework,
    )  # fmt: skip


@dataclass(frozen=True)
class ImageEstimate:
    """One given plan to make images, evaluated."""

    model: ImageModel
    system: System
    workload: ImageWorkload
    plan: EvaluatedPlan


def image_estimate(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "image",
    *,
    columns: Mapping[str, Any] | None = None,
    devices: int | None = None,
    use: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> ImageEstimate:
    """Evaluate one given plan to make images; arguments as in :func:`images`, ``columns`` as in :func:`estimate`.

    Raises
    ------
    UnknownName
        If a column belongs to no technique of images.
    """
    found, system, asked = _image_parts(model, hw, workload, changes, workload_changes)
    problem = image_problem(found, system, asked, devices=devices, use=tuple(use), framework=framework)
    return ImageEstimate(found, system, asked, single_plan(problem, columns or {}))


def _image_parts(
    model: str | Path, hw: str | Path, workload: str | Path, changes: Mapping[str, Any] | None,
    workload_changes: Mapping[str, Any] | None,
) -> tuple[ImageModel, System, ImageWorkload]:  # fmt: skip
    """Model, machine and workload, with what is to be changed."""
    system = load_system(hw)
    if changes:
        system = override(system, {k: v if isinstance(v, str) else float(v) for k, v in changes.items()})
    asked = load_image_workload(workload)
    return load_image_model(model), system, revise_images(asked, workload_changes) if workload_changes else asked
