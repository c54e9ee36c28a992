"""A plan for a fleet of unlike groups as lines of text."""

from __future__ import annotations

from perfmodel.insight.fleet import FleetAnswer, FleetPlan
from perfmodel.report.words import headline, percent, workload_line
from perfmodel.units import format_bandwidth, format_number, format_seconds

__all__ = ["lines"]

KINDS = {"pipeline": "one pipeline through the groups", "replicas": "whole replicas on every group"}
POLICIES = ("no recomputation", "selective recomputation", "full recomputation")


def lines(found: FleetAnswer) -> list[str]:
    """The fleet, the better arrangement with its stages, where its time goes, and the other arrangement."""
    link = found.joined.fleet.link
    groups = ", ".join(
        f"{n}: {s.cluster.nodes.value:,.0f} × {s.cluster.node.accelerator.count} {s.accelerator.name}"
        for n, s in found.joined.systems.items()
    )
    text = [headline(found.model), f"{found.joined.fleet.name} · {groups}; joined by "
            f"{format_bandwidth(link.bandwidth.value)} per node", "", workload_line(found.workload)]  # fmt: skip
    if found.best is None:
        return [*text, "No arrangement fits this fleet: none of the layouts holds the model or divides the batch."]
    text += _plan(found.best)
    if found.other is not None:
        more = found.other.seconds / found.best.seconds - 1.0
        text += [
            "",
            f"otherwise  {KINDS[found.other.kind]}: {format_seconds(found.other.seconds)}/step (+{percent(more)})",
        ]
    return [*text, "", f"search     {found.considered:,} layouts in {format_seconds(found.search_seconds)}"]


def _plan(plan: FleetPlan) -> list[str]:
    m = plan.metrics
    text = [
        f"Use {KINDS[plan.kind]}: {format_seconds(plan.seconds)}/step, "
        f"{format_number(m['tokens_per_second_per_device'])} tokens/s/device, MFU {percent(m['mfu'])}, "
        f"{format_seconds(m['run_days'] * 86400)}.",
        "",
    ]
    for g in plan.groups:
        stages = ", ".join(f"{n} ({format_seconds(s)})" for n, s in zip(g.layers, g.stage_seconds, strict=True))
        share = "" if plan.kind == "pipeline" else f", {percent(g.batch_share)} of the batch"
        zero = ", ZeRO-1" if g.optimizer_sharded else ""
        text.append(
            f"{g.group:<10} {g.devices} × {g.device}: tp {g.tp} × pp {g.pp} × dp {g.dp}, "
            f"{g.micro_batches} micro-batches of {g.micro_batch}{share}{zero}, {POLICIES[g.recompute]}; layers {stages}"
        )
    text.append("")
    text += [
        f"{r.name:<28} {format_seconds(r.seconds):>9}  {percent(r.share, 1):>6}" for r in plan.terms if r.share > 1e-3
    ]
    if plan.bound_seconds:
        text.append(
            f"partition proven best for its layouts by exact dynamic programme; "
            f"{format_number(plan.seconds / plan.bound_seconds)} × the bound of freely flowing layers"
        )
    return text
