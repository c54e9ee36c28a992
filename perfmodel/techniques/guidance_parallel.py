"""The two predictions that guidance needs, with and without the prompt, on two ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_gather
from perfmodel.network.topology import Dim, Network
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Both on one rank, or one each where there are two predictions."""
    several = situation.workload.guidance and situation.devices > 1
    return (Axis.of("guidance_ranks", (1, 2) if several else (1,)),)


def dims(x: Plan) -> Sequence[Dim]:
    """Ranks that make the same images, placed outside those that share one."""
    return (Dim("guidance", x.guidance_ranks, frozenset({"batch"}), 1.0),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Predictions per rank."""
    del situation
    return {"guidance_split": x.guidance_ranks}


def terms(x: Plan, s: Any, machine: Machine, net: Network) -> Sequence[Term]:
    """Both predictions meet at the end of every step; where guidance rests there is nothing to send."""
    del machine
    if s.kind == "last":
        return []
    sizes = s.sizes
    latent = s.layout.images * s.denoiser.channels * sizes.pixels(1) / sizes.split * sizes.element_bytes
    seconds = all_gather(net, s.along("guidance"), x.guidance_ranks * latent)
    return [Term("predictions together", s.kind, "network", seconds)]


TECHNIQUE = Technique(
    name="guidance_parallel",
    summary="the predictions with and without the prompt on two devices",
    source="J. Ho, T. Salimans, 'Classifier-free diffusion guidance', arXiv:2207.12598; M. Li et al. (DistriFusion), "
    "arXiv:2402.19481",
    phases=frozenset({"image"}),
    neutral={"guidance_ranks": 1},
    axes=axes,
    dims=dims,
    layout=layout,
    terms=terms,
)
