"""Layers that share keys and values: less cache and fewer projections, read by as many layers as before.

The published patterns and any map of layer to source are values of one column. A model has to be trained for its map,
so nothing is known of the quality of another model's; models that declare one have it without this technique.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.specs.sharing import PATTERNS, attention_layers, map_of
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]

OFF = "none"
"""Every layer as the model has it."""
NAME = "cross_layer_kv"


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, and the patterns or maps that were named; all patterns where the technique was named alone."""
    layers = attention_layers(situation.architecture)
    named = situation.choices(NAME)
    if named and not layers:
        raise SpecError(
            "the model has no keys and values per head to share", field=f"use.{NAME}", found=named[0]
        )  # fmt: skip
    wanted = named or (PATTERNS if NAME in situation.excused and layers else ())
    for text in wanted:
        map_of(text, layers)
    return (Axis.of("cross_layer_kv", (OFF, *wanted), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Who reads whose; nobody published what it costs a given model."""
    if x.cross_layer_kv == OFF:
        return {}
    return {
        "kv_map": map_of(x.cross_layer_kv, attention_layers(situation.architecture)),
        "quality_loss": float("nan"),
    }


def describe(x: Plan) -> str:
    """The pattern; nothing where every layer is as the model has it."""
    return "" if x.cross_layer_kv == OFF else f"keys and values shared across layers ({x.cross_layer_kv})"


TECHNIQUE = Technique(
    name=NAME,
    summary="layers that share keys and values: pairs, halves, or nearly all of them",
    source="Y. Wu et al., arXiv:2410.14442; W. Brandon et al. (CLA), arXiv:2405.12981; Y. Sun et al. (YOCO), "
    "arXiv:2405.05254; H. Wu, K. Tu (LCKV), arXiv:2405.10637",
    phases=frozenset({"serving"}),
    neutral={"cross_layer_kv": OFF},
    axes=axes,
    layout=layout,
    opt_in=True,
    describe=describe,
    choice="cross_layer_kv",
    telling=("cross_layer_kv",),
)
