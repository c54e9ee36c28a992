"""Prompts in pieces beside decodes: what a prompt costs the others, and how long its own tokens take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from perfmodel.elementwise import Scalar, ceil, maximum, minimum, where
from perfmodel.operators.layers import Sizes
from perfmodel.phases.compose import Slot, add_up
from perfmodel.techniques.base import Term
from perfmodel.techniques.settled import Settled
from perfmodel.units import Seconds

__all__ = ["Chunks", "chunks_of", "mixed_sizes", "pieces_of"]


UNCUT = 2.0**40
"""Tokens of a pass where an engine has no budget."""


class Chunks(NamedTuple):
    """A prompt cut into pieces that passes hold, beside decodes where the framework mixes them.

    Parameters
    ----------
    count : pieces of a prompt.
    stall : what all pieces of one prompt add to the passes of the decodes [s].
    own : from the first pass with a piece of a prompt to the end of the last, what is fetched before included [s].
    link : for which one prompt keeps the link to a store busy [s].
    further : what a second prompt adds to a pass that holds one already: its tokens find no idle units left [s].
    """

    count: Scalar
    stall: Seconds
    own: Seconds
    link: Seconds = 0.0
    further: Seconds = 0.0


def pieces_of(tokens: Scalar, framework: Mapping[str, float], budget: Scalar = UNCUT) -> Scalar:
    """Pieces into which a prompt is cut evenly, by the budget of the framework or a technique's, the smaller."""
    return ceil(tokens / minimum(framework.get("chunk_tokens", UNCUT), budget))


def mixed_sizes(prefill: Sizes, count: Scalar, beside: Scalar, *, crowded: bool) -> dict[str, Sizes]:
    """Passes that hold a piece of a prompt beside decoded tokens, and a second whole prompt where asked for."""
    piece = prefill.queries / count

    def of(tokens: Scalar) -> Sizes:
        return replace(
            prefill, sequences=tokens + beside, queries=1.0, context=1.0, unread=0.0, compared=0.0, pieces=0.0
        )

    found = {"mixed": of(piece)}
    return {**found, "crowded": of(2.0 * piece)} if crowded else found


def chunks_of(
    terms: Mapping[str, Sequence[Term]], settled: Mapping[str, Settled], framework: Mapping[str, float], host: Seconds
) -> Chunks:
    """What the pieces of a prompt cost the decodes they share passes with, and how long they take."""
    s, prompt = settled["decode"], settled["prefill"]
    joined, passes = framework.get("mixed_batches", 1.0), float(s.architecture.prompt_passes)
    cut = pieces_of(prompt.sizes.queries, framework, s.layout.chunk_tokens)
    count = cut
    tokens = {n: Slot(tuple(t for t in terms[n] if t.slot == "layer" and not t.core)) for n in terms if n != "prefill"}
    cores = {n: add_up([t.seconds for t in terms[n] if t.core]) for n in ("decode", "prefill")}
    beside, whole = tokens["decode"].elapsed(), tokens["mixed"].elapsed()
    added = maximum(whole - joined * beside, 0.0)  # passes with prompts run on the device, others perhaps elsewhere
    above = s.layers - prompt.layers
    stall = passes * prompt.layers * (count * added + cores["prefill"])
    own = passes * prompt.layers * (count * (whole + joined * cores["decode"]) + cores["prefill"])
    if above:
        own = own + passes * above * count * joined * (beside + cores["decode"])
    count = passes * count
    fetch = [t for t in terms["prefill"] if t.slot == "fetch"]
    if fetch:
        own = own + Slot(tuple(fetch)).elapsed()
        stall = stall + add_up([t.seconds for t in fetch if t.lane == "main"])
    link = add_up([t.seconds for t in fetch if t.lane != "main"])
    stall, own = stall + count * (1.0 - joined) * host, own + count * host
    if "crowded" not in tokens:
        return Chunks(count, stall, own, link, stall)
    second = passes * prompt.layers * (tokens["crowded"].elapsed() - whole + cores["prefill"])
    return Chunks(count, stall, own, link, where(cut > 1.0, stall, maximum(second, 0.0)))
