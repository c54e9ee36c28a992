"""Images by diffusion: every step is a pass of the denoiser; the decoder makes the image at the end.

Steps come in three kinds: the first ones, in which ranks that share an image wait for each other; the usual ones; and
the last ones, in which guidance and cross-attention may rest. All run the same parts with other sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from perfmodel.elementwise import Scalar, is_nothing, maximum, minimum
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Dim, Group, Network, group_along
from perfmodel.operators.denoiser import ImageSizes, denoiser_calls, kept_bytes
from perfmodel.operators.formats import storage
from perfmodel.phases.compose import Node, Serial, Slot, Times
from perfmodel.phases.emit import call_terms
from perfmodel.phases.judge import legality, memory_ratios
from perfmodel.phases.settle import declare
from perfmodel.specs.diffusion import Denoiser
from perfmodel.techniques.base import Line, Situation, Technique, Term
from perfmodel.techniques.record import Layout
from perfmodel.techniques.settled import Plan
from perfmodel.units import Seconds

__all__ = ["ImagePass", "Images", "check_images", "evaluate_images", "settle_steps"]

KINDS = ("first", "step", "last")
"""Kinds of steps, and the slots in which their terms are paid."""


NO_SOFTWARE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class ImagePass:
    """One kind of step, settled: what a technique may read.

    Parameters
    ----------
    kind : ``first``, ``step`` or ``last``.
    count : steps of that kind.
    synchronous : ranks that share an image wait for what others send.
    sizes : of the pass on one rank.
    """

    situation: Situation
    network: Network
    layout: Layout
    dims: tuple[Dim, ...]
    kind: str
    count: Scalar
    synchronous: bool
    sizes: ImageSizes

    @property
    def denoiser(self) -> Denoiser:
        """The model."""
        denoiser = self.situation.architecture
        assert isinstance(denoiser, Denoiser)  # noqa: S101 - narrows the type: the phase of images
        return denoiser

    def along(self, name: str) -> Group:
        """Group of the ranks that differ only in dimension ``name``."""
        return group_along(self.network, self.dims, frozenset({name}))


@dataclass(frozen=True)
class Images:
    """Images made together by one replica; every number may be an array over the mesh.

    Parameters
    ----------
    passes : the kinds of steps.
    tree : composition of the whole latency.
    seconds : from the start to the images [s].
    devices : devices of the replica.
    ledgers, ratios : memory lines, and demand / limit of every constraint.
    """

    passes: tuple[ImagePass, ...]
    tree: Node
    seconds: Seconds
    devices: Scalar
    ledgers: Mapping[str, tuple[Line, ...]]
    ratios: Mapping[str, Scalar]


def settle_steps(
    x: Plan, techniques: Sequence[Technique], situation: Situation, network: Network
) -> tuple[ImagePass, ...]:
    """Sizes and counts of every kind of step."""
    workload = situation.workload
    denoiser: Any = situation.architecture
    dims, layout, _ = declare(techniques, x, situation)
    copies = 2.0 / layout.guidance_split if workload.guidance else 1.0
    sizes = ImageSizes(
        samples=layout.images * copies,
        height=workload.height / denoiser.side,
        width=workload.width / denoiser.side,
        split=layout.image_split,
        seen=layout.others_seen + (1.0 - layout.others_seen) / layout.image_split,
        text=float(denoiser.text_tokens),
    )
    steps = 1.0 * workload.steps
    first = minimum(layout.first_steps, steps)
    last = maximum(minimum(steps - layout.rests_after, steps - first), 0.0)
    gated = replace(sizes, samples=layout.images, cross=False)
    whole = replace(sizes, seen=1.0)
    kinds = zip(KINDS, (first, steps - first - last, last), (whole, sizes, gated), strict=True)
    return tuple(
        ImagePass(situation, network, layout, dims, kind, count, kind == "first" or not layout.stale, s)
        for kind, count, s in kinds
    )


def _decoder(p: ImagePass, machine: Machine) -> Slot:
    """The decoder, image by image on one rank of each; the ranks that share an image do not share it."""
    if not p.situation.workload.decode:
        return Slot(())
    form = next(f for f in (*p.denoiser.vae_formats, p.sizes.format) if f in machine.main.matrix)
    width = storage(form).bytes if form != "tf32" else 4.0
    sizes = replace(p.sizes, samples=p.layout.images, split=1.0, seen=1.0, cross=True, format=form, element_bytes=width)
    terms = call_terms(denoiser_calls(p.denoiser.vae, sizes), "decoder", machine)
    return Slot(tuple(term._replace(name="image decoder") for term in terms))


def _step(
    p: ImagePass, x: Plan, techniques: Sequence[Technique], machine: Machine, framework: Mapping[str, float]
) -> Node:
    """Steps of one kind: the denoiser, of which a share may be remembered, beside what techniques add.

    Software takes host time before a step, and launches operations beside it.
    """
    calls = denoiser_calls(p.denoiser.parts, p.sizes)
    own = call_terms(calls, p.kind, machine, scale=p.layout.refreshed)
    added = [t for technique in techniques for t in technique.terms(x, p, machine, p.network)]
    terms: list[Term] = [*own, *(t for t in added if t.slot == p.kind)]
    launch = framework.get("launch_per_operation", 0.0) * sum(c.share for c in calls) * p.layout.refreshed
    if not is_nothing(launch):
        terms.append(Term("host launch", p.kind, "host cpu", launch, "launch", prefetch=True))
    host = framework.get("host_per_iteration", 0.0)
    if host:
        terms.append(Term("host per step", p.kind, "host cpu", host))
    return Times(p.count, Slot(tuple(terms)))


def _ledger(p: ImagePass, machine: Machine, lines: Sequence[Line]) -> tuple[Line, ...]:
    tier, width = machine.main.tier, p.sizes.element_bytes
    decoder = 2.0 if p.denoiser.vae_formats[0] == "bf16" else 4.0
    return (
        Line("weights", tier, width * p.denoiser.parameters + decoder * p.denoiser.vae_parameters),
        Line("activations", tier, kept_bytes(p.denoiser, p.sizes)),
        *lines,
    )


def _legal(x: Plan, p: ImagePass, techniques: Sequence[Technique], situation: Situation) -> dict[str, Scalar]:
    return legality(x, p, techniques, situation, {"device count": _devices(p.dims) / situation.devices})  # type: ignore[arg-type]


def _devices(dims: Sequence[Dim]) -> Scalar:
    devices: Scalar = 1.0
    for dim in dims:
        devices = devices * dim.degree
    return devices


def check_images(x: Plan, techniques: Sequence[Technique], situation: Situation, network: Network) -> dict[str, Scalar]:
    """How well formed a plan is."""
    return _legal(x, settle_steps(x, techniques, situation, network)[1], techniques, situation)


def evaluate_images(
    x: Plan, techniques: Sequence[Technique], situation: Situation, machine: Machine, network: Network,
    framework: Mapping[str, float] = NO_SOFTWARE,
) -> Images:  # fmt: skip
    """Evaluate one replica plan, or a whole mesh of plans at once; without a framework software costs nothing."""
    passes = settle_steps(x, techniques, situation, network)
    usual = passes[1]
    tree = Serial((*(_step(p, x, techniques, machine, framework) for p in passes), _decoder(usual, machine)))
    lines = [line for technique in techniques for line in technique.memory(x, usual, machine)]
    ledgers = {"only": _ledger(usual, machine, lines)}
    seconds = tree.elapsed()
    ratios = {**_legal(x, usual, techniques, situation), **memory_ratios(ledgers, machine)}
    if situation.workload.latency is not None:
        ratios["latency"] = seconds / situation.workload.latency
    return Images(passes, tree, seconds, _devices(usual.dims), ledgers, ratios)
