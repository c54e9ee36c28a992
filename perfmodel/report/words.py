"""The words of a report: devices, degrees, techniques, resources, and numbers as a person says them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from perfmodel.api import Answers, Estimate, Request
from perfmodel.solver.result import Degree, EvaluatedPlan
from perfmodel.specs.model import Model
from perfmodel.specs.system import System
from perfmodel.specs.workload import ServingWorkload, TrainingWorkload, Workload
from perfmodel.techniques.base import Technique
from perfmodel.techniques.sharding import ALL
from perfmodel.units import (
    format_bandwidth,
    format_bytes,
    format_count,
    format_number,
    format_rate,
    format_seconds,
)

__all__ = [
    "GIB",
    "View",
    "apportion",
    "columns_text",
    "degrees_text",
    "device_label",
    "devices_text",
    "dollars",
    "headline",
    "machine_line",
    "percent",
    "quantity",
    "resource_text",
    "shares",
    "spaced",
    "techniques",
    "techniques_text",
    "views",
    "workload_line",
]

GIB = 2.0**30
_OWN_NOUNS = ("GCD", "GPU", "NPU", "TPU", "CPU", "PIM", "IPU")
_CLASS_NOUNS = {"dataflow": "device", "storage": "drive"}
"""Classes that are no acronym."""
DEGREES = {"tensor": "tp", "context": "cp", "expert": "ep", "data": "dp", "stage": "pp", "region": "regions"}
_IN_DEGREES = ("tp", "ulysses", "cp", "ep", "pp", "regions")
_RESOURCES = {
    "compute": "compute",
    "network": "network",
    "idle": "waiting",
    "main": "sharing compute",
    "launch": "kernel launch",
    "host": "host memory",
    "host cpu": "host CPU",
}


class View(NamedTuple):
    """One workload of an answer with everything its sentences need."""

    model: Model
    system: System
    request: Request
    workload: Workload

    @property
    def label(self) -> str:
        """The accelerator's name as one writes it."""
        return device_label(self.system.accelerator.name)

    @property
    def noun(self) -> str:
        """What one of them is called: GPU, GCD, NPU."""
        last = self.label.rpartition(" ")[2]
        kind = self.system.accelerator.device_class
        return last if last in _OWN_NOUNS else _CLASS_NOUNS.get(kind, kind.upper())

    @property
    def counted(self) -> str:
        """Name and noun together, as a count wants them."""
        return self.label if self.noun in self.label.split() else f"{self.label} {self.noun}"

    @property
    def per_node(self) -> int:
        """Accelerators of a node."""
        return self.system.cluster.node.accelerator.count

    @property
    def devices(self) -> int:
        """Accelerators of the machine."""
        return round(self.system.cluster.nodes.value) * self.per_node


def views(found: Answers | Estimate) -> tuple[View, ...]:
    """Return one view per workload."""
    if isinstance(found, Estimate):
        return (View(found.model, found.system, found.request, found.asked),)
    return tuple(View(found.model, found.system, found.request, w) for w in found.workloads)


def device_label(name: str) -> str:
    """Write a shipped device's name as people do; names of one's own stay.

    Examples
    --------
    >>> device_label("mi250x-gcd"), device_label("My device")
    ('MI250X GCD', 'My device')
    """
    return name.upper().replace("-", " ") if re.fullmatch(r"[a-z0-9.-]+", name) else name


def plural(count: float, noun: str) -> str:
    """``'1 node'``, ``'64 nodes'``."""
    return f"{count:,.0f} {noun}" + ("" if round(count) == 1 else "s")


def devices_text(view: View, count: int) -> str:
    """Say how many devices, and how many nodes that is where it comes out whole."""
    text = plural(count, view.counted)
    if view.per_node > 1 and count % view.per_node == 0:
        text += f" ({plural(count // view.per_node, 'node')})"
    return text


def percent(share: float, decimals: int = 0) -> str:
    """``'58 %'``; shares that would vanish are said to be small."""
    smallest = 0.5 * 10.0 ** (-decimals)
    if 0 < abs(share) * 100 < smallest:
        return f"< {10.0**-decimals:g} %"
    return f"{share * 100:.{decimals}f} %"


def spaced(text: str) -> str:
    """Write percentages of a text as everywhere else: ``90 %``."""
    return re.sub(r"(?<=[0-9])%", " %", text)


def quantity(value: float, dimension: str) -> str:
    """Write a base-unit value with the prefix a person would choose."""
    if dimension == "B":
        return format_bytes(value, 4)
    if dimension == "s":
        return format_seconds(value, 4)
    if dimension == "USD/s":
        return f"{dollars(value * 3600)}/h"
    if dimension == "USD":
        return dollars(value)
    if dimension == "kg/J":
        return f"{format_number(value * 3.6e6)} kg/kWh"
    if dimension in ("B/s", "FLOP/s", "W", "Hz"):
        return format_rate(value, dimension, 4)
    return f"{value:,.6g}"


def dollars(amount: float) -> str:
    """Money with cents where they matter, and fractions of a cent where cents would round them away.

    Examples
    --------
    >>> dollars(0.0123456), dollars(0.05), dollars(3.5), dollars(1234.5)
    ('$0.0123', '$0.0500', '$3.50', '$1,234')
    """
    if 0 < amount < 0.1:
        return f"${amount:.{2 - math.floor(math.log10(amount))}f}"
    if amount < 100:
        return f"${amount:,.2f}"
    return f"${amount:,.0f}" if amount < 1e6 else f"${format_count(amount)}"


def shares(ratio: float) -> str:
    """Difference of a ratio from one, as a signed percentage.

    Examples
    --------
    >>> shares(1.0202), shares(0.97), shares(1.00001)
    ('+2.0 %', '-3.0 %', '+0.0 %')
    """
    return f"{(ratio - 1) * 100:+.1f} %" if ratio < 10 else f"{format_number(ratio)} ×"


def apportion(values: Sequence[float], decimals: int) -> list[str]:
    """Round parts so that they add up to their rounded sum (largest remainders).

    Examples
    --------
    >>> apportion([0.34, 0.33, 0.33], 1)
    ['0.4', '0.3', '0.3']
    """
    scale = 10**decimals
    floors = [math.floor(v * scale) for v in values]
    missing = round(sum(values) * scale) - sum(floors)
    order = sorted(range(len(values)), key=lambda i: floors[i] - values[i] * scale)
    for i in order[: max(missing, 0)]:
        floors[i] += 1
    return [f"{f / scale:,.{decimals}f}" for f in floors]


def degrees_text(degrees: Iterable[Degree], *, levels: bool = True, product: bool = True) -> str:
    """Show the factors of the device count, nearest first, and what they multiply to.

    Examples
    --------
    >>> degrees_text([Degree("tensor", 4, "node"), Degree("data", 8, "group")])
    'tp 4 (node) × dp 8 (group) = 32'
    """
    kept = [d for d in degrees if d.degree > 1]
    if not kept:
        return "one device, no parallelism"
    words = [DEGREES.get(d.name, d.name) + f" {d.degree}" + (f" ({d.level})" if levels else "") for d in kept]
    total = f" = {math.prod(d.degree for d in kept):,}" if product and len(kept) > 1 else ""
    return " × ".join(words) + total


def techniques(plan: EvaluatedPlan) -> tuple[str, ...]:
    """Name the techniques beyond the degrees, one entry each."""
    words: list[str] = []
    for entry in plan.summary:
        name, colon, values = entry.partition(": ")
        if not colon:
            words.append(entry)
            continue
        for value in values.split(", "):
            column, _, number = value.rpartition(" ")
            if column not in _IN_DEGREES:
                words.append(_technique(name, column, number))
    return tuple(words)


def _technique(name: str, column: str, number: str) -> str:
    said = {
        "micro batch": f"micro-batch {number}",
        "batch": f"batch {number}",
        "virtual": f"{number} virtual stages",
        "optimizer host": "optimizer on the host",
        "local steps": f"{number} local steps",
        "attention engine": f"decode attention on {number}",
        "sub batches": f"{number} sub-batches",
    }
    return said.get(column, name if number == "1" else f"{column} {number}")


def techniques_text(plan: EvaluatedPlan, *, beside: EvaluatedPlan | None = None) -> str:
    """List the techniques; ``beside`` another plan only those it has not, or all if that leaves none."""
    words = techniques(plan)
    batches = plan.metrics.get("micro_batches")
    if beside is not None:
        return ", ".join(w for w in words if w not in techniques(beside))
    if batches:
        size = f"{plan.columns.get('micro_batch', 1):g}"
        words = (f"{batches:,.0f} micro-batches of {size}", *(w for w in words if not w.startswith("micro-batch")))
    return ", ".join(words)


def columns_text(columns: Mapping[str, Any]) -> str:
    """Name a plan by its columns that are not neutral, degrees first."""
    from perfmodel.techniques import TECHNIQUES

    order = ("tp", "ulysses", "cp", "ep", "pp", "regions", "batch", "micro_batch", "virtual")
    said = [f"{n} {columns[n]:g}" for n in order if n in columns and columns[n] != 1]
    said += [str(columns[n]) for t in TECHNIQUES for n in t.telling if _named(columns, t, n)]
    return " · ".join(said) or "one device"


def _named(columns: Mapping[str, Any], technique: Technique, name: str) -> bool:
    """Whether a column says by a name what a technique does."""
    value = columns.get(name, technique.neutral[name])
    return isinstance(value, str) and bool(value != technique.neutral[name])


def pins(columns: Mapping[str, Any], phase: str) -> list[str]:
    """Write the columns that are not neutral as ``--pin`` takes them."""
    from perfmodel.techniques import TECHNIQUES

    neutral = {n: v for t in TECHNIQUES if phase in t.phases for n, v in t.neutral.items()}
    return [f"{n}={_pin(v)}" for n, v in columns.items() if n in neutral and v != neutral[n]]


def _pin(value: Any) -> str:
    if isinstance(value, (int, float)):
        return "all" if value >= ALL else f"{value:g}"
    return str(value)


def resource_text(view: View, resource: str) -> str:
    """Say what a resource is; memories by name."""
    if resource in view.system.accelerator.memory:
        return f"{resource} bandwidth"
    return _RESOURCES.get(resource, resource)


def headline(model: Model) -> str:
    """Model and size."""
    text = f"{model.name} · {format_count(model.parameters, 4)} parameters"
    if model.active_parameters < model.parameters * 0.98:
        text += f", {format_count(model.active_parameters, 4)} active per token"
    return text


def machine_line(view: View) -> str:
    """Machine, devices and what one of them can do."""
    system, device = view.system, view.system.accelerator
    nodes = round(system.cluster.nodes.value)
    if view.devices == 1:
        text = f"1 × {view.label}"
    elif nodes == 1:
        text = f"{system.name} · {view.per_node} × {view.label}"
    else:
        text = f"{system.name} · {nodes:,} nodes × {view.per_node} = {view.devices:,} {view.counted}s"
    last = device.memory[device.holding]
    if last.bandwidth is not None:
        text += f", {format_bytes(last.capacity.value, 4)} at {format_bandwidth(last.bandwidth.value)}"
    rates = device.peak.matrix or device.peak.vector
    fmt = next((f for f in ("bf16", "fp16", "fp32") if f in rates), next(iter(rates)))
    return f"{text}, {format_rate(rates[fmt].value, 'FLOP/s', 4)} {fmt}"


def workload_line(workload: Workload) -> str:
    """What is asked for, in one line."""
    if isinstance(workload, TrainingWorkload):
        return (
            f"train on {format_count(workload.tokens)} tokens, {format_count(workload.global_batch)} per step "
            f"({workload.sequences:,} × {workload.sequence:,}), {workload.recipe.name}"
        )
    return f"serve {workload.prompt:,} prompt + {workload.output:,} output tokens{_limits(workload)}"


def _limits(workload: ServingWorkload) -> str:
    limits = [f"{limit.name} ≤ {format_seconds(limit.seconds, 2)}" for limit in workload.slo.limits]
    rate = "" if workload.rate is None else f", {workload.rate:g} request{'' if workload.rate == 1 else 's'}/s"
    return rate + (", " + ", ".join(limits) if limits else ", no latency limit")
