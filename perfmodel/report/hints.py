"""Commands that work as printed: how to ask the same again, and what to ask next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from perfmodel.api import Request
from perfmodel.report.words import View, pins
from perfmodel.solver.result import Answer, EvaluatedPlan

__all__ = ["command_of", "estimate_command", "hints", "what_if_name"]


def command_of(request: Request, *more: str) -> str:
    """Write the command that asks ``request``."""
    q = request.question
    words = ["perfmodel", "plan", "--model", str(request.model), "--hw", str(request.hw)]
    for flag, value in (
        ("--workload", request.workload),
        ("--objective", q.objective),
        ("--devices", q.devices),
        ("--max-quality-loss", q.max_quality_loss),
        ("--framework", request.framework),
    ):
        if value is not None:
            words += [flag, str(value)]
    for name, value in (q.pinned or {}).items():
        several = value if isinstance(value, (list, tuple)) else (value,)
        words += ["--pin", f"{name}=" + ",".join(f"{v:g}" if isinstance(v, (int, float)) else str(v) for v in several)]
    for name in q.use:
        words += ["--use", name]
    if q.pools != "either":
        words += ["--pools", q.pools]
    for flag, changes in (("--set", request.changes), ("--set-workload", request.workload_changes)):
        for name, value in (changes or {}).items():
            words += [flag, f"{name}={'none' if value is None else value}"]
    return shlex.join([*words, *more])


def estimate_command(view: View, plan: EvaluatedPlan, *more: str) -> str:
    """Write the command that evaluates exactly this plan."""
    request = view.request
    words = ["perfmodel", "estimate", "--model", str(request.model), "--hw", str(request.hw)]
    words += ["--workload", str(request.workload or view.workload.name)]
    if view.workload.kind == "training":
        words += ["--devices", str(plan.devices)]
    if request.framework is not None:
        words += ["--framework", str(request.framework)]
    for pin in pins(plan.columns, view.workload.kind):
        words += ["--pin", pin]
    for name in (*request.question.use, *_unasked(plan, request.question.use)):
        words += ["--use", name]
    for flag, changes in (("--set", request.changes), ("--set-workload", request.workload_changes)):
        for name, value in (changes or {}).items():
            words += [flag, f"{name}={'none' if value is None else value}"]
    return shlex.join([*words, *more])


def _unasked(plan: EvaluatedPlan, use: Sequence[str]) -> list[str]:
    """Techniques that a quality budget brought into the plan, as ``--use`` takes them."""
    from perfmodel.techniques import TECHNIQUES, asked_for

    found = []
    for t in TECHNIQUES:
        on = any(n in plan.columns and plan.columns[n] != v for n, v in t.neutral.items())
        if t.opt_in and on and t.name not in asked_for(use):
            found.append(t.name if t.choice is None else f"{t.name}={plan.columns[t.choice]}")
    return found


def what_if_name(view: View) -> str:
    """Return a short name worth doubling on this machine: its NICs, else its memory bandwidth."""
    kinds = [level.kind for level in view.system.cluster.levels.values()]
    return "nic_bandwidth" if "nic" in kinds else "hbm_bandwidth"


def hints(asked: Sequence[tuple[View, Answer]]) -> list[str]:
    """What to ask next, most useful first."""
    view, request = asked[0][0], asked[0][0].request
    slug = "-".join(Path(str(n)).stem for n in (request.model, request.hw)).replace(" ", "-")
    found = [command_of(request, "--report", f"{slug}.md")]
    if not request.changes:
        found.append(command_of(request, "--set", f"{what_if_name(view)}=x2"))
    found += [estimate_command(v, a.best) for v, a in asked if a.best is not None and a.best.pools is None][:1]
    found.append(shlex.join(["perfmodel", "specs", "show", str(request.hw)]))
    return found
