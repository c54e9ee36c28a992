"""Images made together: how many a replica takes through its steps at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Powers of two up to 64."""
    del situation
    return (Axis.of("images", (1, 2, 4, 8, 16, 32, 64)),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Images of a replica."""
    del situation
    return {"images": x.images}


TECHNIQUE = Technique(
    name="image_batch",
    summary="several images pass the denoiser together",
    source="R. Rombach et al. (latent diffusion), arXiv:2112.10752",
    phases=frozenset({"image"}),
    neutral={"images": 1},
    axes=axes,
    layout=layout,
)
