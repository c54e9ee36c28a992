"""Prompts computed in chunks beside decodes: no decode waits for a whole prompt, every chunk costs a pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.elementwise import where
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]

BUDGETS = (256, 512, 1024, 2048, 4096, 8192)
"""Prompt tokens of a pass that are searched; engines ship 512 to 8192."""
NAME = "chunked_prefill"


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Budgets below the prompt, where a limit on the time between tokens makes them worth it, or asked for by name."""
    workload = situation.workload
    if NAME in situation.excused:
        return (Axis.of("chunk", (0, *BUDGETS)),)
    if not any(limit.quantity == "tbt" for limit in workload.slo.limits):
        return (Axis.of("chunk", (0,)),)
    return (Axis.of("chunk", (0, *(n for n in BUDGETS if n < workload.prompt - workload.shared_prefix))),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """The budget of a pass; 0 leaves the engine's own."""
    del situation
    return {"chunk_tokens": where(x.chunk > 0.0, x.chunk, 2.0**40)}


def describe(x: Plan) -> str:
    """Tokens of a chunk."""
    return f"prompts in chunks of {x.chunk:,.0f}" if x.chunk else ""


TECHNIQUE = Technique(
    name=NAME,
    summary="prompts are cut into chunks that share passes with decodes, each pass within a budget of tokens",
    source="A. Agrawal et al. (SARATHI), arXiv:2308.16369; (Sarathi-Serve), arXiv:2403.02310; DeepSpeed-FastGen",
    phases=frozenset({"serving"}),
    neutral={"chunk": 0},
    axes=axes,
    layout=layout,
    describe=describe,
)
