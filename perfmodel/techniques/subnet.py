"""A part of the model: fewer layers, narrower ones, or neighbours that share their weights.

Layers that share weights run as often as before: they save memory, and traffic only where a layer stays in the cache of
the device from one run to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.operators.state import layer_parameters
from perfmodel.specs.quality.formats import format_loss
from perfmodel.specs.quality.loss import Loss
from perfmodel.specs.records import OFF
from perfmodel.specs.subnets import reduced, subnet, subnets
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]

NAME = "subnet"
PLAIN_BYTES = 2.0
"""Width at which a layer has to fit the cache to be read once [B]."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, and the reductions that were named; all for the bare name."""
    named = situation.choices(NAME)
    for name in named:
        subnet(name)
    return (Axis.of("subnet", (OFF, *(named or subnets())), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """The layers that run, the weights that are stored and read, and the published loss for this model."""
    if x.subnet == OFF:
        return {}
    record, found = subnet(x.subnet), quality(x, situation)
    model = reduced(situation.architecture, record.removed, record.width)
    stored, cache = record.stored(model.layers), situation.machine.main.cache
    counts = layer_parameters(model)
    layer = PLAIN_BYTES * (sum(counts.split.values()) + counts.experts)
    return {
        "shape": (record.removed, record.width),
        "weights_stored": stored,
        "weights_read": stored if record.shared > 1 and layer <= cache else 1.0,
        "quality_loss": float("nan") if found is None else found.value,
    }


def quality(x: Plan, situation: Situation) -> Loss | None:
    """What is published for the reduction of this model; no loss without one."""
    return Loss(0.0, "", "") if x.subnet == OFF else format_loss(subnet(x.subnet).quality, 16.0, situation.architecture)


def describe(x: Plan) -> str:
    """The reduction by its title; nothing without one."""
    return "" if x.subnet == OFF else subnet(x.subnet).title


TECHNIQUE = Technique(
    name=NAME,
    summary="fewer or narrower layers, or layers that share weights",
    source="Y. Fu et al. (AmoebaLLM), arXiv:2411.10606; S. Liu et al. (FoldGPT), arXiv:2407.00928; "
    "X. Men et al. (ShortGPT), arXiv:2403.03853",
    phases=frozenset({"serving"}),
    neutral={"subnet": OFF},
    axes=axes,
    layout=layout,
    opt_in=True,
    by_name=True,
    describe=describe,
    choice="subnet",
    quality=quality,
    telling=("subnet",),
)
