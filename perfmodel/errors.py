"""Errors a user can cause. Each prints as one message; the command line turns them into exit code 2.

::

    PerfmodelError
    ├── SpecError       a file says something that is wrong (file, line, field, found, allowed)
    ├── UnknownName     no device, cluster, model, workload, technique or field of that name
    └── Conflict        two choices exclude each other

A plan that is impossible is *not* an error: it is an answer (see ``perfmodel.solver``).
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Conflict", "PerfmodelError", "SpecError", "UnknownName", "nearest"]


class PerfmodelError(Exception):
    """Base of every error that the user's input can cause."""


class SpecError(PerfmodelError):
    """A specification that cannot be used.

    Parameters
    ----------
    message : what is wrong and what would be right.
    file : the file it stands in, if any.
    line : 1-based line, if known.
    field : dotted path of the field, if any.
    found : the offending text or value.
    allowed : what would be accepted.
    more : further mistakes of the same file, one short line each.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
        found: object = None,
        allowed: str | None = None,
        more: tuple[str, ...] = (),
    ) -> None:
        self.message, self.file, self.line, self.field = message, file, line, field
        self.found, self.allowed, self.more = found, allowed, more
        super().__init__(message)

    def __str__(self) -> str:
        place = ":".join(str(p) for p in (self.file, self.line) if p is not None)
        parts = [p for p in (place, self.field) if p]
        text = ": ".join([*parts, self.message])
        if self.found is not None:
            text += f"; found {_clip(self.found)}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        return "\n  ".join([text, *self.more])


class UnknownName(PerfmodelError):
    """A name that is not in the list it was looked up in; the message offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, remedy: str = "") -> None:
        self.kind, self.name = kind, name
        self.candidates = nearest(name, known)
        text = f"unknown {kind} {_clip(name)}"
        if self.candidates:
            text += "; nearest: " + ", ".join(self.candidates)
        if remedy:
            text += f"; {remedy}"
        super().__init__(text)


class Conflict(PerfmodelError):
    """Two choices that exclude each other, both named."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to ``count`` known names closest to ``name`` by spelling."""
    import difflib

    folded = {k.casefold(): k for k in sorted(known, reverse=True)}
    hits = difflib.get_close_matches(name.casefold(), list(folded), n=count, cutoff=0.5)
    if len(hits) < count:
        hits += [k for k in folded if name and name.casefold() in k and k not in hits][: count - len(hits)]
    return [folded[h] for h in hits]


def _clip(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
