"""Prompts in pieces beside decodes: what a prompt costs the others, and how long its own tokens take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from perfmodel.elementwise import Scalar, ceil, floor, is_nothing, maximum, minimum, where
from perfmodel.operators.layers import Sizes
from perfmodel.phases.compose import Slot, add_up
from perfmodel.phases.side_by_side import mixed_slot, overlapped
from perfmodel.phases.unlike_lengths import unlike_lengths
from perfmodel.techniques.base import Term
from perfmodel.techniques.record import Layout
from perfmodel.techniques.settled import Settled
from perfmodel.units import Seconds

__all__ = ["Chunks", "chunks_of", "mixed_sizes", "pieces_of", "prompts_gathered", "prompts_held"]


UNCUT = 2.0**40
"""Tokens of a pass where an engine has no budget."""


class Chunks(NamedTuple):
    """A prompt cut into pieces that passes hold, beside decodes where the framework mixes them.

    Parameters
    ----------
    count : pieces of a prompt.
    stall : what all pieces of one prompt add to the passes of the decodes; its share where a pass holds several [s].
    own : from the first pass with a piece of a prompt to the end of the last, what is fetched before included [s].
    link : for which one prompt keeps the link to a store busy [s].
    further : what a second prompt adds to a pass that holds one already: its tokens find no idle units left [s].
    fill : prompts, or the part of one, that fill the budget of a pass; very many without a budget [1].
    gathered : prompts that a pass of their own holds [1].
    longer : mean time of a prompt of unlike ones over that of one of mean length [1].
    variation : coefficient of variation of what a prompt costs [1].
    """

    count: Scalar
    stall: Seconds
    own: Seconds
    link: Seconds = 0.0
    further: Seconds = 0.0
    fill: Scalar = UNCUT
    gathered: Scalar = 1.0
    longer: Scalar = 1.0
    variation: Scalar = 0.0


def pieces_of(tokens: Scalar, framework: Mapping[str, float], budget: Scalar = UNCUT) -> Scalar:
    """Pieces into which a prompt is cut evenly, by the budget of the framework or a technique's, the smaller."""
    return ceil(tokens / minimum(framework.get("chunk_tokens", UNCUT), budget))


def prompts_held(batch: Scalar, workload: Any, layout: Layout, framework: Mapping[str, float]) -> Scalar:
    """Prompts, or pieces of as many, that a pass holds: one, or all that a full batch brings.

    All where parts overlap, and where passes stream weights: they hide their prompts under them once, not each of them.
    """
    mixed = framework.get("mixed_batches", 1.0) and not workload.random_arrivals
    if not layout.side_by_side and (is_nothing(layout.weights_off) or not mixed):
        return 1.0
    return maximum(batch * layout.tokens_per_pass / (1.0 * workload.output), 1.0)


def prompts_gathered(batch: Scalar, workload: Any, layout: Layout, framework: Mapping[str, float]) -> Scalar:
    """Prompts in one prefill pass, where prompts run in passes of their own and each request follows another.

    The engine finds those that came since it last looked at the queue, up to what a pass holds.
    """
    least = 1.0 * workload.prompts_per_pass
    if workload.random_arrivals or framework.get("mixed_batches", 1.0):
        return least
    came = batch * layout.tokens_per_pass * framework.get("polling", 1.0) / (1.0 * workload.output)
    holds = minimum(framework.get("chunk_tokens", UNCUT), layout.chunk_tokens) / (1.0 * workload.prompt)
    return maximum(least, minimum(came, maximum(floor(holds), 1.0)))


def mixed_sizes(
    prefill: Sizes, count: Scalar, beside: Scalar, *, crowded: bool, held: Scalar = 1.0, parts: Scalar = 1.0
) -> dict[str, Sizes]:
    """Passes, or one of the ``parts`` they are cut into, that hold pieces of ``held`` prompts beside decoded tokens.

    A second prompt comes on top where asked for.
    """
    piece = held * prefill.queries / count

    def of(tokens: Scalar) -> Sizes:
        return replace(
            prefill, sequences=(tokens + beside) / parts, queries=1.0, context=1.0, unread=0.0, compared=0.0, pieces=0.0
        )

    found = {"mixed": of(piece)}
    return {**found, "crowded": of(2.0 * piece)} if crowded else found


def _unlike(prompt: Settled, products: Seconds, cores: Seconds) -> tuple[Scalar, Scalar, Scalar]:
    """Of prompts of unlike length: mean attention and mean cost over those of the mean one, variation of the cost.

    Parameters
    ----------
    prompt : the settled pass of a prompt of mean length.
    products, cores : of one of its layers: what grows with the tokens, and attention [s].
    """
    workload = prompt.situation.workload
    if is_nothing(workload.length_variation):
        return 1.0, 1.0, 0.0
    engine, format = prompt.situation.machine.main, prompt.sizes.cache_format
    lengths = unlike_lengths(prompt.architecture, 1.0 * workload.prompt, workload.length_variation, engine, format)
    mean = products + lengths.core * cores
    return lengths.core, mean / (products + cores), lengths.cost_variation(lengths.core * cores / mean)


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
    held = prompts_held(s.batch, s.situation.workload, s.layout, framework)
    added = maximum(whole - joined * beside, 0.0) / held  # these run on the device, others perhaps elsewhere
    core, longer, variation = _unlike(prompt, count * added, cores["prefill"])
    cores["prefill"] = core * cores["prefill"]
    above = s.layers - prompt.layers
    stall = passes * prompt.layers * (count * added + cores["prefill"])
    own = passes * prompt.layers * (count * (whole + joined * cores["decode"]) + cores["prefill"])
    parts = s.layout.side_by_side
    if parts:
        engine = s.situation.machine.main
        layer = {n: [t for t in terms[n] if t.slot == "layer"] for n in terms}
        alone = overlapped(layer["decode"], parts, engine).elapsed()
        both = mixed_slot(layer["mixed"], layer["decode"], layer["prefill"], count / held, parts, engine).elapsed()
        own = passes * prompt.layers * count * both
        stall = passes * prompt.layers * count / held * maximum(both - joined * alone, 0.0)
    if above:
        own = own + passes * above * count * joined * (beside + cores["decode"])
    count = passes * count
    fetch = [t for t in terms["prefill"] if t.slot == "fetch"]
    if fetch:
        own = own + Slot(tuple(fetch)).elapsed()
        stall = stall + add_up([t.seconds for t in fetch if t.lane == "main"])
    link = add_up([t.seconds for t in fetch if t.lane != "main"])
    stall, own = stall + count * (1.0 - joined) * host, own + count * host
    gathered = prompt.sizes.sequences
    stall, link = stall / gathered, link / gathered
    fill = minimum(framework.get("chunk_tokens", UNCUT), s.layout.chunk_tokens) / prompt.sizes.queries
    found = Chunks(count, stall, own, link, stall, fill, gathered, longer, variation)
    if "crowded" not in tokens:
        return found
    more = (tokens["crowded"].elapsed() - whole) * (parts or 1.0)
    second = passes * prompt.layers * (more + cores["prefill"])
    return found._replace(further=where(cut > 1.0, stall, maximum(second, 0.0)))
