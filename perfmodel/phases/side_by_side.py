"""Parts of a pass that run side by side on one device: work on different resources overlaps, on the same it adds up.

Kernels that share a device slow each other through the memory they both read and through its units: attention over the
cache needs as many as stream the memory, an exchange as many as its library runs on, and products have the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.elementwise import Scalar
from perfmodel.machine.engine import Engine
from perfmodel.phases.compose import Slot, add_up
from perfmodel.techniques.base import Term

__all__ = ["mixed_slot", "overlapped"]


EXCHANGE_UNITS = 20.0 / 132.0
"""Share of the units that an exchange runs on: 20 of 132 on H800 (DeepSeek-V3, arXiv:2412.19437); measured [1]."""


def overlapped(terms: Sequence[Term], parts: Scalar, engine: Engine) -> Slot:
    """A slot of ``parts`` parts: attention over the cache, exchanges and the rest are lanes of their own.

    Parameters
    ----------
    terms : of one part.
    parts : in flight at the same time.
    engine : whose units they share.
    """
    apart = [_apart(term) for term in terms]
    reading = add_up([t.memory for t in apart if t.lane == "attention"]) * engine.streaming_units
    sending = add_up([t.seconds for t in apart if t.lane == "network"]) * EXCHANGE_UNITS
    lent = Term("units lent to attention and exchanges", "layer", "compute units", reading + sending)
    return Slot((*apart, lent), items=parts, one_memory=True)


def _apart(term: Term) -> Term:
    if term.resource == "network":
        return term._replace(lane="network")
    return term._replace(lane="attention") if term.core and term.lane == "main" else term


def mixed_slot(
    mixed: Sequence[Term], decode: Sequence[Term], prefill: Sequence[Term], pieces: Scalar, parts: Scalar,
    engine: Engine,
) -> Slot:  # fmt: skip
    """One layer of a pass with a piece of a prompt beside decodes, cut into ``parts``.

    Parameters
    ----------
    mixed : terms of one part of the tokens of the pass, attention aside.
    decode : terms of one part of the decodes, of which its attention counts.
    prefill : terms of a whole prompt, of whose attention a piece has its share.
    pieces : of the prompt.
    parts : of the pass.
    engine : it runs on.
    """
    terms = [t for t in mixed if not t.core] + [t for t in decode if t.core]
    terms += [_scaled(t, 1.0 / (pieces * parts)) for t in prefill if t.core]
    return overlapped(terms, parts, engine)


def _scaled(term: Term, factor: Scalar) -> Term:
    fields = ("seconds", "bound", "compute", "memory")
    return term._replace(**{f: getattr(term, f) * factor for f in fields})
