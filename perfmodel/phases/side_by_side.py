"""Parts of a pass that run side by side on one device: work on different resources overlaps, on the same it adds up.

An ideal: kernels that share a device are taken not to slow each other but through the memory they both read.
"""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.elementwise import Scalar
from perfmodel.phases.compose import Slot, add_up
from perfmodel.techniques.base import Term

__all__ = ["mixed_slot", "overlapped"]


def overlapped(terms: Sequence[Term], parts: Scalar) -> Slot:
    """A slot of ``parts`` parts: attention over the cache, exchanges and the rest are lanes of their own.

    Parameters
    ----------
    terms : of one part.
    parts : in flight at the same time.
    """
    return Slot(tuple(map(_apart, terms)), items=parts, one_memory=True)


def _apart(term: Term) -> Term:
    if term.resource == "network":
        return term._replace(lane="network")
    return term._replace(lane="attention") if term.core and term.lane == "main" else term


def mixed_slot(
    mixed: Sequence[Term], decode: Sequence[Term], prefill: Sequence[Term], pieces: Scalar, parts: Scalar
) -> Slot:
    """One layer of a pass with a piece of a prompt beside decodes, cut into ``parts``.

    Parameters
    ----------
    mixed : terms of all tokens of the pass, attention aside.
    decode : terms of one part of the decodes: its attention, and the weights that every part reads again.
    prefill : terms of a whole prompt, of whose attention a piece has its share.
    pieces : of the prompt.
    parts : of the pass.
    """
    again = add_up([t.memory for t in decode if not t.core]) * (parts - 1.0) / parts
    terms = [_scaled(t, 1.0 / parts) for t in mixed if not t.core]
    terms += [t for t in decode if t.core]
    terms += [_scaled(t, 1.0 / (pieces * parts)) for t in prefill if t.core]
    terms.append(Term("weights read again", "layer", "memory", 0.0, memory=again))
    return overlapped(terms, parts)


def _scaled(term: Term, factor: Scalar) -> Term:
    fields = ("seconds", "bound", "compute", "memory")
    return term._replace(**{f: getattr(term, f) * factor for f in fields})
