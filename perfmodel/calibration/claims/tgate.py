"""Multiply-adds of diffusion models whose guidance and cross-attention rest."""

from __future__ import annotations

from typing import Any

from perfmodel.calibration.claims.distrifusion import images
from perfmodel.calibration.claims.run import Run
from perfmodel.insight.images import image_problem
from perfmodel.operators.denoiser import product_flops
from perfmodel.specs.images import load_image_model, load_image_workload, revise_images
from perfmodel.specs.system import load_system
from perfmodel.techniques.settled import Plan

__all__ = ["fewer", "multiply_adds"]


def multiply_adds(run: Run, plan: str) -> float:
    """Products and convolutions of all steps [T]."""
    asked = run.asked(plan)
    model, work = load_image_model(str(asked.model)), load_image_workload(str(asked.workload))
    changed = revise_images(work, asked.workload_changes)
    problem = image_problem(model, load_system(str(asked.hw)), changed, use=asked.use)
    x: dict[str, Any] = dict(images(run, plan).columns)
    passes = problem.evaluate(Plan(**x)).passes
    return float(sum(p.count * product_flops(model.denoiser.parts, p.sizes, cores=False) for p in passes)) / 2e12


def fewer(run: Run, plan: str, against: str) -> float:
    """Multiply-adds of another plan over those of a plan."""
    return multiply_adds(run, against) / multiply_adds(run, plan)
