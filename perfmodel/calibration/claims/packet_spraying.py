"""Gradient exchange under several routings of the same leaf."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from perfmodel.calibration.claims.run import Run
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.specs.locate import find_hardware

__all__ = ["hashed_8_8", "hashed_16_16", "hashed_64_16", "routed", "split_over_spray", "whole_12_8", "whole_24_16"]


def routed(run: Run, routing: str, flows: int, paths: int, plan: str | None = None) -> EvaluatedPlan:
    """A plan of the claim on its machine with that routing, flows and paths of a leaf."""
    facts: Mapping[str, int] = {"flows": flows, "paths": paths}
    lines = [f"      routing: {routing}"]
    lines += [f"      {n}: {{value: {v}, kind: assumed, source: parts}}" for n, v in facts.items()]
    asked = run.asked(plan)
    written = find_hardware(str(asked.hw)).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "routed.yaml"
        path.write_text(
            written.replace("    switching:\n", "    switching:\n" + "\n".join(lines) + "\n"), encoding="utf-8"
        )
        return run.evaluate(asked, hw=path)


def _exchange(found: EvaluatedPlan) -> float:
    return sum(row.busy_seconds for row in found.terms if row.name == "gradient sync")


def _over_spray(run: Run, routing: str, flows: int, paths: int) -> float:
    return _exchange(routed(run, routing, flows, paths)) / _exchange(routed(run, "spray", flows, paths))


def split_over_spray(run: Run) -> float:
    """The worst ratio."""
    return max(_over_spray(run, "split", flows, paths) for flows in (8, 12, 24, 48, 64) for paths in (8, 16))


hashed_16_16 = partial(_over_spray, routing="ecmp", flows=16, paths=16)
hashed_8_8 = partial(_over_spray, routing="ecmp", flows=8, paths=8)
hashed_64_16 = partial(_over_spray, routing="ecmp", flows=64, paths=16)
whole_12_8 = partial(_over_spray, routing="single", flows=12, paths=8)
whole_24_16 = partial(_over_spray, routing="single", flows=24, paths=16)
