"""Operator calls to terms: the same for training and serving."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any

import numpy as np

from perfmodel.elementwise import Scalar, is_symbol, maximum
from perfmodel.machine.build import Machine
from perfmodel.machine.engine import Engine, KernelTime
from perfmodel.machine.kernels import kernel_constants, kernel_lower_bound, kernel_time
from perfmodel.operators.layers import DECODE_OPERATORS, Call
from perfmodel.operators.work import Work
from perfmodel.phases.compose import add_up
from perfmodel.phases.memo import key_of
from perfmodel.techniques.base import Term
from perfmodel.techniques.record import Placed
from perfmodel.techniques.settled import Settled
from perfmodel.units import Seconds

__all__ = ["Known", "call_terms", "divided", "gathered", "lane_of", "part_of", "resource_of", "uncovered"]

SECOND = "second stream"
"""Lane of what runs beside the rest of a layer on the same device."""
Known = MutableMapping[Any, tuple[KernelTime, Seconds]] | None
"""Times and lower bounds by engine and work."""


def resource_of(kernel: KernelTime, engine: Engine) -> str:
    """Resource that binds a kernel: compute units, memory or launch; the engine where it varies over a mesh."""
    parts = (kernel.compute, kernel.memory, kernel.overhead)
    if any(isinstance(p, np.ndarray) for p in parts) or is_symbol(*parts):
        return engine.name
    names = ("compute", engine.tier, "launch")
    binding = max(zip(parts, names, strict=True))[1]
    return binding if engine.name == "main" else f"{engine.name} {binding}"


def lane_of(engine: Engine) -> str:
    """Lane of what an engine runs: its own, or that of the main engine where their accesses exclude each other."""
    return engine.name if engine.concurrent else "main"


def part_of(call: Call) -> str:
    """Part of the model that a placement moves with this call; empty for what moves with whole layers only."""
    if call.component == "attention core":
        return "attention" if call.work.operator in DECODE_OPERATORS else ""
    return "experts" if call.component == "experts" else ""


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
    placed: Sequence[Placed] = (),
    on: str = "main",
    known: Known = None,
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
    placed : parts that other engines run.
    on : engine that runs the rest.
    known : times and lower bounds of work that was seen before on these engines; what is new is added.
    """
    terms = []
    for call in calls:
        times = call.share * scale * (streams if call.component == "elementwise" else 1.0)
        if factor is not None:
            times = times * factor(call)
        part = part_of(call)
        place = next((p for p in placed if part and p.part == part), Placed(part, on))
        term = _term(call, machine.engine(place.engine), slot, times, place.share, known)
        if part and place.engine != on and not (isinstance(place.share, float) and place.share == 1.0):
            rest = _term(call, machine.engine(on), slot, times, 1.0 - place.share, known)
            term = _side_by_side(rest, term, machine.engine(place.engine))
        terms.append(term._replace(replayed=replayed, bound=term.bound * call.share * scale))
    return terms


def _timed(work: Work, engine: Engine, known: Known) -> tuple[KernelTime, Seconds]:
    """Time and lower bound of ``work``, remembered where the caller keeps them."""
    if known is None:
        return kernel_time(work, engine), kernel_lower_bound(work, engine)
    key = engine.name, key_of(work)
    if key not in known:
        known[key] = kernel_time(work, engine), kernel_lower_bound(work, engine)
    return known[key]


def _term(call: Call, engine: Engine, slot: str, times: Scalar, share: Scalar, known: Known) -> Term:
    """A call, or a share of it, on one engine; its bound for one of ``times`` calls."""
    work = call.work if isinstance(share, float) and share == 1.0 else call.work.portion(share)
    (kernel, bound), main = _timed(work, engine, known), engine.name == "main"
    return Term(
        name=call.name,
        slot=slot,
        resource=SECOND if main and call.beside else resource_of(kernel, engine),
        seconds=kernel.seconds * times,
        lane=lane_of(engine) if not main else SECOND if call.beside else "main",
        prefetch=main and call.beside,
        bound=bound,
        core=call.region == "attention core",
        compute=kernel.compute * times if main else 0.0,
        memory=kernel.memory * times if main else 0.0,
        joules=0.0 if main else kernel.seconds * times * (engine.draw.limit - engine.draw.idle),
        of_weights=call.of_weights,
    )


def _side_by_side(here: Term, there: Term, engine: Engine) -> Term:
    """One operator split between two engines: it ends when both have, one after the other where they exclude it."""
    joined = maximum if engine.concurrent else _sum
    return here._replace(
        name=f"{here.name} shared with {engine.name}",
        seconds=joined(here.seconds, there.seconds),
        bound=joined(here.bound, there.bound),
        joules=there.joules,
    )


def _sum(a: Scalar, b: Scalar) -> Scalar:
    return a + b


def divided(s: Settled, terms_on: Callable[[str], list[Term]]) -> list[Term]:
    """Terms of a pass whose layers are divided between the main engine and another; passes with prompts are not.

    Parameters
    ----------
    s : the settled pass.
    terms_on : engine -> terms of the pass as if it ran every layer.
    """
    own, place = terms_on("main"), s.layout.on("layers")
    if place.engine == "main" or not s.sizes.decode:
        return own
    here = [_scaled(t, 1.0 - place.share) if t.slot == "layer" else t for t in own]
    return here + [_scaled(t, place.share) for t in terms_on(place.engine)]


def _scaled(term: Term, share: Scalar) -> Term:
    return term._replace(
        seconds=term.seconds * share,
        bound=term.bound * share,
        compute=term.compute * share,
        memory=term.memory * share,
        joules=term.joules * share,
    )


def gathered(
    terms: Iterable[Term], expand: Callable[[Any], Any], *, power: bool = False, split: bool = False,
    bounds: bool = False,
) -> list[Term]:  # fmt: skip
    """Terms that composition cannot tell apart added up, their names dropped: what a mesh needs of them.

    Parameters
    ----------
    terms : of distinct sizes.
    expand : from distinct sizes to the mesh.
    power : keep how busy compute units and memory are and what other engines draw, too.
    split : keep weight gradients apart from the rest of the backward pass.
    bounds : keep lower bounds, too.
    """
    sums: dict[Term, list[Term]] = {}
    for term in terms:
        of_weights = split and term.of_weights
        kind = term._replace(
            name="", seconds=0.0, bound=0.0, compute=0.0, memory=0.0, joules=0.0, of_weights=of_weights
        )
        sums.setdefault(kind, []).append(term)
    fields = ("seconds", *(("compute", "memory", "joules") if power else ()), *(("bound",) if bounds else ()))
    return [
        kind._replace(**{f: expand(add_up([getattr(t, f) for t in alike])) for f in fields})
        for kind, alike in sums.items()
    ]
