"""What an answer assumes, and what its numbers stand on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from perfmodel.insight.kernels import KernelUse, told
from perfmodel.insight.links import borrowed_libraries
from perfmodel.insight.setting import Setting, position_limit
from perfmodel.insight.turning import Turning, turning_points
from perfmodel.machine.price import price_of
from perfmodel.phases.serving import weight_format
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.specs.hardware import Cluster
from perfmodel.specs.workload import ServingWorkload
from perfmodel.techniques.record import Layout
from perfmodel.techniques.settled import Plan

__all__ = ["EFFICIENT", "FULL", "assumptions", "provenance"]

EFFICIENT = 0.9
"""Where the device count is free, the largest that keeps this share of the best per-device efficiency is chosen."""

FULL = 0.875
"""Share of the device's memory above which an allocator may stall a training step; 80 GB devices, measured."""


def assumptions(
    setting: Setting, best: EvaluatedPlan | None, uses: Mapping[str, KernelUse] = MappingProxyType({})
) -> tuple[tuple[str, str], ...]:
    """What was assumed, each with the flag that changes it; ``uses`` are the kernels of the best plan."""
    workload, found = setting.workload, []
    if position_limit(setting.model) in (getattr(workload, "sequence", 0), getattr(workload, "prompt", 0)):
        found.append((f"sequence cut to the {position_limit(setting.model):,} positions of the model", "--workload"))
    if workload.kind == "training":
        batch = workload.global_batch / workload.sequence
        found.append(
            (f"{workload.name}: {batch:,.0f} sequences of {workload.sequence:,} tokens per step", "--workload")
        )
        if workload.lengths is not None:
            shortest, longest = workload.documents[0], workload.documents[-1]
            text = f"packed from sequences of unlike lengths: {shortest[1]:.0%} of the tokens in those of about "
            text += f"{shortest[0]:,.0f}, {longest[1]:.0%} in those of about {longest[0]:,.0f}"
            found.append((text, "--set-workload lengths.median=…"))
        r = workload.recipe
        states = f"{r.weights:g} + {r.gradients:g} + {r.optimizer_bytes:g} B per parameter"
        found.append((f"{r.name} ({states} for weights, gradients, optimizer)", "--set-workload recipe=…"))
        if setting.question.devices is None and setting.problem.objective == "time":
            found.append(
                (f"device count: the largest that keeps {EFFICIENT:.0%} of the best per-device speed", "--devices")
            )
    else:
        slo = [f"{limit.name} ≤ {limit.seconds:g} s" for limit in workload.slo.limits]
        limits = ", ".join(slo) or "no latency limit"
        found.append(
            (f"{workload.name}: {workload.prompt:,} prompt + {workload.output:,} output tokens, {limits}", "--workload")
        )
        load = "as many requests as the limits allow" if workload.rate is None else f"{workload.rate:g} requests/s"
        found.append((f"{load}, {_arrivals(workload)}", "--set-workload rate=…"))
        found.append(
            (f"weights {_served_format(setting)}, KV cache {workload.kv_format}", "--set-workload kv_format=…")
        )
    name, version = setting.framework.name, setting.framework.version
    found.append((f"software behaves like {name} {version}", "--framework"))
    if price_of(setting.system).basis == "ownership":
        found.append((_owning(setting.system.cluster), "--set ownership.lifetime=… or price=…"))
    libraries = borrowed_libraries(setting.system)
    if libraries:
        found.append((libraries, "--hw"))
    if uses:
        found.append((told(uses, setting.framework.kernels), "--framework"))
    if best is not None and setting.phase == "training":
        found += _nearly_full(best, setting.machine.main.tier)
    if best is not None:
        x = Plan(**best.columns)
        found += [said for t in setting.problem.techniques for said in t.assumes(x, setting.problem.situation)]
        found += [_turning(point) for point in turning_points(setting, x)]
    if best is not None and best.quality is None:
        found.append(("quality of a technique in use is unknown for this model", "--max-quality-loss"))
    return tuple(found)


def _owning(cluster: Cluster) -> str:
    """How a purchase became a price per hour."""
    terms = cluster.ownership
    if terms is None or terms.lifetime is None or terms.electricity is None:
        return "bought"
    text = f"bought, written off over {terms.lifetime.text}, {terms.electricity.text} of power at its limit"
    return f"{text}; parts without a price, network and staff not counted"


def _turning(point: Turning) -> tuple[str, str]:
    """How far a technique pays."""
    words, flag = point.technique.replace("_", " "), f"--pin {point.column}=…"
    gain = f"{words} makes {point.gain:.2f} × the tokens of a decode pass at {point.column} {point.now:g}"
    if point.loss_at is None:
        return f"{gain}, and still pays at the largest {point.column}", flag
    if not point.until:
        return f"{gain}; it pays at no {point.column}", flag
    return f"{gain}; it pays up to {point.column} {point.until:g} and no more at {point.loss_at:g}", flag


def _arrivals(workload: ServingWorkload) -> str:
    """How requests come, and how long they are."""
    lengths = "mean lengths" if not workload.length_variation else f"lengths vary by {workload.length_variation:.0%}"
    if not workload.random_arrivals:
        return f"steady state, {lengths}"
    return f"at random (Poisson), {lengths}, room for the peak of 99% of the time"


def _nearly_full(best: EvaluatedPlan, tier: str) -> list[tuple[str, str]]:
    """A warning where the plan needs nearly all memory: measured runs there took 5 to 9 times as long."""
    share = max((ledger.totals[tier] / ledger.capacities[tier] for ledger in best.ledgers), default=0.0)
    if share <= FULL:
        return []
    text = f"no stall of the allocator at {share:.0%} of {tier}: above {FULL:.1%} some runs take several times as long"
    return [(text, "--pin")]


def _served_format(setting: Setting) -> str:
    stored = setting.model.architecture.weight_format
    used = weight_format(setting.problem.situation, Layout())
    return used if used == stored else f"{used} (checkpoint: {stored}, which this device does not run)"


def provenance(
    setting: Setting, uses: Mapping[str, KernelUse] = MappingProxyType({})
) -> tuple[tuple[str, str, str], ...]:
    """The facts that decide most, with kind and source; ``uses`` are the kernels of the best plan."""
    device, cluster = setting.system.accelerator, setting.system.cluster
    rows: list[tuple[str, str, str]] = []
    wanted = setting.machine.main.compute_format("bf16")
    rate = device.peak.matrix.get(wanted) or device.peak.vector.get(wanted)
    if rate is not None:
        rows.append((f"{wanted} peak {rate.text}", rate.kind, device.sources.get(rate.source, rate.source)))
    last = device.memory[device.holding]
    if last.bandwidth is not None:
        text = f"memory {last.capacity.text} at {last.bandwidth.text}"
        rows.append((text, last.bandwidth.kind, device.sources.get(last.bandwidth.source, last.bandwidth.source)))
    gemm = setting.machine.main.constant("gemm", wanted)
    rows.append((f"sustained matrix share {gemm.compute_fraction:.0%}", gemm.kind, gemm.basis))
    rows += [
        (f"{use.group} kernels within {use.spread:.0%}", "fitted", use.basis)
        for use in sorted(uses.values(), key=lambda u: -u.seconds)
        if use.group in ("experts", "attention")
    ]
    for name, level in cluster.levels.items():
        fact = level.efficiency
        rows.append((f"{name} links reach {fact.value:.0%}", fact.kind, cluster.sources.get(fact.source, fact.source)))
    return tuple(rows)
