"""A small module beside the feed-forward of every layer: a token passes the one, the other, or neither.

What a token skips is not multiplied. What a pass reads is both modules as soon as any token takes each, so a batch
washes the saved traffic out and leaves the saved operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from perfmodel.elementwise import Scalar, where
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.layers import product_call
from perfmodel.specs.architecture import Architecture, Linear, Mlp
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

SMALL = 1.0 / 8.0
"""Width of the small module over that of the feed-forward; assumed [1]."""
WIDTH = 2.0
"""Bytes per weight of the small module [B]."""
SHARES = ((1.0, 0.0), (0.75, 0.25), (0.5, 0.5), (0.5, 0.25), (0.25, 0.75))
"""Shares of the tokens that pass the feed-forward and the small module."""


def _small(architecture: Architecture) -> list[tuple[Linear, float]]:
    """Matrices of the small modules of an average layer, each with its share of the layers."""
    found = []
    for run in architecture.runs:
        ffn = run.layer.ffn
        if isinstance(ffn, Mlp):
            small = Mlp(ffn.hidden, max(round(ffn.width * SMALL), 1), ffn.gated)
            found += [(linear, run.count / architecture.layers) for linear in small.linears]
    return found


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Shares of the tokens, for models with plain feed-forwards."""
    values = SHARES if _small(situation.architecture) else SHARES[:1]
    return (Axis(("through_large", "through_small"), values),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Tokens that pass the feed-forward; no loss of quality is published as a number."""
    del situation
    loss = where(x.through_large < 1.0, float("nan"), 0.0)
    return {"through_mlp": x.through_large, "quality_loss": loss}


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Products of the tokens that pass the small module."""
    del net
    sizes = replace(s.sizes, weight_bytes=WIDTH, format="bf16", kernels="")
    tokens = s.sizes.tokens * where(x.through_small > 0.0, x.through_small, 1.0)
    seconds: Scalar = 0.0
    for linear, share in _small(s.architecture):
        seconds = seconds + share * kernel_time(product_call(linear, tokens, sizes, "mlp").work, machine.main).seconds
    used = where(x.through_small > 0.0, seconds, 0.0)
    return [Term("small modules", slot, machine.main.tier, n * used, memory=n * used) for slot, n in s.slots]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Weights of the small modules."""
    held = sum(share * linear.parameters for linear, share in _small(s.architecture))
    size = WIDTH * held * s.first_layers / s.sizes.weight_split
    return [Line("small modules", machine.main.tier, where(x.through_large < 1.0, size, 0.0))]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """No token passes both."""
    del s, situation
    return {"one module a token": x.through_large + x.through_small}


def describe(x: Plan) -> str:
    """Shares of the tokens."""
    if x.through_large == 1.0:
        return ""
    return f"{x.through_large:.0%} of the tokens through the feed-forward, {x.through_small:.0%} through a small module"


TECHNIQUE = Technique(
    name="adaptive_modules",
    summary="tokens pass the feed-forward of a layer, a small module beside it, or neither",
    source="K. Alizadeh et al. (Duo-LLM), arXiv:2410.10846",
    phases=frozenset({"serving"}),
    neutral={"through_large": 1.0, "through_small": 0.0},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    describe=describe,
    opt_in=True,
)
