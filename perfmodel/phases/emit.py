"""Operator calls to terms: the same for training and serving."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from perfmodel.elementwise import Scalar, is_symbol
from perfmodel.machine.build import Machine
from perfmodel.machine.engine import Engine, KernelTime
from perfmodel.machine.kernels import kernel_constants, kernel_lower_bound, kernel_time
from perfmodel.operators.layers import DECODE_OPERATORS, Call
from perfmodel.phases.compose import add_up
from perfmodel.techniques.base import Term

__all__ = ["call_terms", "gathered", "resource_of", "uncovered"]


def resource_of(kernel: KernelTime, engine: Engine) -> str:
    """Resource that binds a kernel: compute units, memory or launch; the engine where it varies over a mesh."""
    parts = (kernel.compute, kernel.memory, kernel.overhead)
    if any(isinstance(p, np.ndarray) for p in parts) or is_symbol(*parts):
        return engine.name
    names = ("compute", engine.tier, "launch")
    binding = max(zip(parts, names, strict=True))[1]
    return binding if engine.name == "main" else f"{engine.name} {binding}"


def uncovered(calls: Sequence[Call], machine: Machine, core_engine: str = "main") -> list[Call]:
    """Calls without what the attention kernel of the framework does besides, where it is that kernel that runs."""
    if not machine.main.covers:
        return list(calls)
    cores = [call.work for call in calls if call.region == "attention core"]
    engine = machine.engine(core_engine if any(w.operator in DECODE_OPERATORS for w in cores) else "main")
    measured = all(kernel_constants(work, engine).tier == "framework" for work in cores)
    return [call for call in calls if not (measured and call.part in machine.main.covers)]


def call_terms(
    calls: Iterable[Call],
    slot: str,
    machine: Machine,
    *,
    replayed: bool = False,
    scale: Scalar = 1.0,
    streams: Scalar = 1.0,
    factor: Callable[[Call], Scalar] | None = None,
    core_engine: str = "main",
) -> list[Term]:
    """Terms of operator calls on the engines that run them.

    Parameters
    ----------
    calls : operators of an average layer.
    slot : where they are paid.
    replayed : recomputation repeats them.
    scale : multiplies every time (e.g. both passes of a head).
    streams : multiplies streaming operators: memory passes a framework makes beyond the fused minimum.
    factor : what a framework's kernels take over those the device was measured with, call by call.
    core_engine : engine of the attention core; another engine than ``main`` is a lane of its own.
    """
    terms = []
    for call in calls:
        core = call.component == "attention core" and call.work.operator in DECODE_OPERATORS
        engine = machine.engine(core_engine if core else "main")
        kernel = kernel_time(call.work, engine)
        times = call.share * scale * (streams if call.component == "elementwise" else 1.0)
        if factor is not None:
            times = times * factor(call)
        terms.append(
            Term(
                name=call.name,
                slot=slot,
                resource=resource_of(kernel, engine),
                seconds=kernel.seconds * times,
                lane="main" if engine.name == "main" else engine.name,
                replayed=replayed,
                bound=kernel_lower_bound(call.work, engine) * call.share * scale,
                core=call.region == "attention core",
                compute=kernel.compute * times if engine.name == "main" else 0.0,
                memory=kernel.memory * times if engine.name == "main" else 0.0,
                of_weights=call.of_weights,
            )
        )
    return terms


def gathered(
    terms: Iterable[Term], expand: Callable[[Any], Any], *, power: bool = False, split: bool = False
) -> list[Term]:
    """Terms that composition cannot tell apart added up, their names and bounds dropped: what a mesh needs of them.

    Parameters
    ----------
    terms : of distinct sizes.
    expand : from distinct sizes to the mesh.
    power : keep how busy compute units and memory are, too.
    split : keep weight gradients apart from the rest of the backward pass.
    """
    sums: dict[Term, list[Term]] = {}
    for term in terms:
        of_weights = split and term.of_weights
        kind = term._replace(name="", seconds=0.0, bound=0.0, compute=0.0, memory=0.0, of_weights=of_weights)
        sums.setdefault(kind, []).append(term)
    fields = ("seconds", "compute", "memory") if power else ("seconds",)
    return [
        kind._replace(**{f: expand(add_up([getattr(t, f) for t in alike])) for f in fields})
        for kind, alike in sums.items()
    ]
