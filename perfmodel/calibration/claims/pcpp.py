"""Gains and traffic of ranks that see a part of the others."""

from __future__ import annotations

from typing import Any

from perfmodel.calibration.claims.distrifusion import images, speedup
from perfmodel.calibration.claims.run import Run
from perfmodel.insight.images import image_problem
from perfmodel.operators.denoiser import halo_bytes, key_bytes
from perfmodel.specs.images import load_image_model, load_image_workload, revise_images
from perfmodel.specs.system import load_system
from perfmodel.techniques.settled import Plan

__all__ = ["sent", "speedup"]


def _bytes(run: Run, plan: str) -> float:
    """Keys, values and edges that one usual step exchanges [B]."""
    asked = run.asked(plan)
    model, work = load_image_model(str(asked.model)), load_image_workload(str(asked.workload))
    problem = image_problem(
        model, load_system(str(asked.hw)), revise_images(work, asked.workload_changes), use=asked.use
    )
    x: dict[str, Any] = dict(images(run, plan).columns)
    usual = problem.evaluate(Plan(**x)).passes[1]
    keys = sum(size * n for size, n in key_bytes(model.denoiser, usual.sizes)) * usual.layout.others_seen
    return float(keys + sum(size * n for size, _, n in halo_bytes(model.denoiser, usual.sizes)))


def sent(run: Run, plan: str, against: str) -> float:
    """Bytes of a step of a plan over those of another."""
    return _bytes(run, plan) / _bytes(run, against)
