"""Every operator of a pass under the roofs of the engine that runs it: compute, and each memory with a bandwidth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from perfmodel.errors import SpecError
from perfmodel.insight.setting import Setting
from perfmodel.machine.build import Machine
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_lower_bound, kernel_time
from perfmodel.operators.backward import backward_of
from perfmodel.operators.layers import SAMPLED_LOGIT_BYTES, Call, embedding_calls, head_calls, layer_calls
from perfmodel.phases.emit import part_of, resource_of, uncovered
from perfmodel.phases.serving import settle_passes
from perfmodel.phases.settle_training import settle_training
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["PHASES", "OperatorRow", "Roof", "Roofline", "call_engine", "pass_calls", "rooflines"]

PHASES = {"training": ("training",), "serving": ("prefill", "decode")}
"""Phases of each kind of workload."""


class Roof(NamedTuple):
    """One memory of an engine, seen from the compute units.

    ``capacity`` is that of one of its ``parts``: what an operator can keep. Traffic into it comes from ``source`` at
    ``bandwidth`` (``None`` where no figure exists).
    """

    memory: str
    source: str
    capacity: float
    bandwidth: float | None


class OperatorRow(NamedTuple):
    """One operator of a pass, all its calls together.

    Parameters
    ----------
    operator, sizes : what it is.
    format, engine : number format, and which engine runs it.
    calls : how often the pass runs it.
    flops : operations [FLOP].
    intensity : operations per byte into each memory [FLOP/B].
    roof : what binds at full rates: ``compute`` or the memory read.
    attainable : rate under that roof [FLOP/s].
    limited_by : what binds in the kernel model: compute, a memory, or the launch.
    seconds : predicted [s].
    bound_seconds : no implementation is faster [s].
    share : of the predicted time of the pass.
    """

    operator: str
    sizes: str
    format: str
    engine: str
    calls: float
    flops: float
    intensity: Mapping[str, float]
    roof: str
    attainable: float
    limited_by: str
    seconds: float
    bound_seconds: float
    share: float


@dataclass(frozen=True)
class Roofline:
    """Operators of one pass on one device; communication is not among them.

    Parameters
    ----------
    phase : prefill, decode or training.
    what : what the pass is.
    device : of the main engine.
    peaks : rates by format in use [FLOP/s].
    roofs : memories, nearest first.
    rows : operators, longest first.
    seconds, bound_seconds : of all rows [s].
    """

    phase: str
    what: str
    device: str
    peaks: Mapping[str, float]
    roofs: tuple[Roof, ...]
    rows: tuple[OperatorRow, ...]
    seconds: float
    bound_seconds: float


def rooflines(setting: Setting, x: Plan, phase: str | None = None) -> tuple[Roofline, ...]:
    """Put the operators of a plan's passes under the roofs; both passes of a replica if no phase is named."""
    known = PHASES[setting.phase]
    if phase is not None and phase not in known:
        raise SpecError(
            f"the workload {setting.workload.name} has no such phase",
            field="--phase",
            found=phase,
            allowed=", ".join(known),
        )
    return tuple(_pass(setting, x, name) for name in known if phase in (None, name))


def pass_calls(setting: Setting, x: Plan, phase: str) -> tuple[list[tuple[Call, float]], Settled, Machine, str]:
    """Calls of one pass of a plan and how often each is run; its record, the machine, and what the pass is."""
    problem = setting.problem
    arguments = (problem.techniques, problem.situation, problem.network, problem.framework)
    if phase == "training":
        s, machine = settle_training(x, *arguments)[0], problem.machine.under_load()
        calls, what = _training_calls(s, problem.framework), "forward and backward of one micro-batch"
    else:
        s, machine = settle_passes(x, *arguments)[phase], problem.machine
        calls = _serving_calls(s, machine)
        what = "one prompt" if phase == "prefill" else "one token for every sequence of the batch"
    return calls, s, machine, what


def _pass(setting: Setting, x: Plan, phase: str) -> Roofline:
    calls, s, machine, what = pass_calls(setting, x, phase)
    rows = _merged(calls, s, machine)
    seconds = sum(r.seconds for r in rows)
    rows = [r._replace(share=r.seconds / seconds) for r in rows]
    engine = machine.main
    peaks = {f: float(engine.peak(f)) for f in dict.fromkeys(r.format for r in rows if _on_matrix(r.operator))}
    return Roofline(
        phase, f"{what}, {_tokens(s)}", engine.device, {**peaks, "vector": float(engine.vector_peak())}, _roofs(engine),
        tuple(sorted(rows, key=lambda r: -r.seconds)), seconds, sum(r.bound_seconds for r in rows),
    )  # fmt: skip


def _tokens(s: Settled) -> str:
    sizes = s.sizes
    count = float(sizes.sequences)
    many = "sequence" if count == 1 else "sequences"
    return f"{count:,g} {many} × {float(sizes.queries):,g} new tokens over {float(sizes.context):,g} keys"


def _serving_calls(s: Settled, machine: Machine) -> list[tuple[Call, float]]:
    """Calls of one pass through every layer, and how often each is run."""
    counted = uncovered(layer_calls(s.architecture, s.sizes), machine, s.layout.attention_engine)
    layers = [(c, c.share * s.layers) for c in counted]
    head = head_calls(
        s.architecture,
        s.sizes,
        rows=s.sizes.tokens if s.sizes.decode else s.sizes.sequences,
        logit_bytes=SAMPLED_LOGIT_BYTES,
    )
    return [*layers, *((c, 1.0) for c in [*embedding_calls(s.architecture, s.sizes), *head])]


def _training_calls(s: Settled, framework: Mapping[str, float]) -> list[tuple[Call, float]]:
    """Forward and backward calls; streaming operators as many times as the framework makes passes."""
    streams = framework.get("elementwise_scale", 1.0)
    forward = layer_calls(s.architecture, s.sizes)
    backward = [_backward(b) for c in forward for b in backward_of(c)]
    calls = [
        (c, c.share * s.layers * (streams if c.component == "elementwise" else 1.0)) for c in [*forward, *backward]
    ]
    head = head_calls(s.architecture, s.sizes, rows=s.sizes.tokens, logit_bytes=framework.get("logit_bytes", 10.0))
    ends = [*embedding_calls(s.architecture, s.sizes), *head]
    ends += [_backward(b) for c in ends if c.work.operator == "gemm" for b in backward_of(c)]
    return [*calls, *((c, 1.0) for c in ends)]


def _backward(call: Call) -> Call:
    return call if call.component == "elementwise" else call._replace(name=f"{_name(call)}, backward")


def _merged(calls: Sequence[tuple[Call, float]], s: Settled, machine: Machine) -> list[OperatorRow]:
    """One row for calls of one name and size; streaming operators in one."""
    groups: dict[tuple[str, str], list[tuple[Call, float]]] = {}
    for call, count in calls:
        if count > 0.0:
            groups.setdefault((_name(call), _sizes(call)), []).append((call, count))
    return [_row(name, sizes, group, call_engine(group[0][0], s, machine)) for (name, sizes), group in groups.items()]


def call_engine(call: Call, s: Settled, machine: Machine) -> Engine:
    """Engine that runs a call, or most of it."""
    place = s.layout.on(part_of(call))
    return machine.engine(place.engine if place.share > 0.5 else "main")


def _name(call: Call) -> str:
    """Name matrices by the part of the model they belong to; attention and what stands in its place are the mixer."""
    part = "mixer" if call.component == "attention" else call.component
    return call.name if call.name != "matrix multiply" else f"{part} weights"


def _sizes(call: Call) -> str:
    """Sizes of a product or of attention: ``m × n × k``, with how many there are."""
    if call.component == "elementwise":
        return ""
    m, n, k, batch = (round(float(v)) for v in call.work.shape)
    many = f"{batch:,} × " if batch > 1 else ""
    return f"{many}{m:,} × {n:,} × {k:,}"


def _on_matrix(operator: str) -> bool:
    return operator not in ("elementwise", "state space")


def _roofs(engine: Engine) -> tuple[Roof, ...]:
    pairs = zip(engine.memories, engine.memories[1:], strict=False)
    found = tuple(Roof(m.name, b.name, m.capacity / m.parts, b.bandwidth) for m, b in pairs)
    return found or (Roof("on chip", engine.memories[-1].name, float(engine.cache), engine.bandwidth),)


def _row(name: str, sizes: str, group: Sequence[tuple[Call, float]], engine: Engine) -> OperatorRow:
    flops = seconds = bound = 0.0
    traffic: dict[str, float] = {}
    limits: dict[str, float] = {}
    roofs = _roofs(engine)
    for call, count in group:
        kernel = kernel_time(call.work, engine)
        flops += float(call.work.flops) * count
        seconds += float(kernel.seconds) * count
        bound += float(kernel_lower_bound(call.work, engine)) * count
        limit = resource_of(kernel, engine)
        limits[limit] = limits.get(limit, 0.0) + float(kernel.seconds) * count
        for roof in roofs:
            moved = float(call.work.traffic(roof.capacity)) * count
            traffic[roof.memory] = traffic.get(roof.memory, 0.0) + moved
    work: Any = group[0][0].work
    peak = float(engine.peak(work.format) if _on_matrix(name) else engine.vector_peak())
    times = {r.source: traffic[r.memory] / r.bandwidth for r in roofs if r.bandwidth}
    slowest = max(times, key=lambda source: times[source], default="")
    binds = slowest if times.get(slowest, 0.0) > flops / peak else "compute"
    return OperatorRow(
        operator=name,
        sizes=sizes,
        format=work.format,
        engine=engine.name,
        calls=sum(count for _, count in group),
        flops=flops,
        intensity={memory: flops / size for memory, size in traffic.items()},
        roof=binds,
        attainable=peak if binds == "compute" else flops / times[slowest],
        limited_by=max(limits, key=lambda limit: limits[limit]),
        seconds=seconds,
        bound_seconds=bound,
        share=0.0,
    )
