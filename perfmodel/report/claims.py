"""Published claims against predictions: lines, Markdown and data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Protocol

from perfmodel.report.jsonable import plain
from perfmodel.units import format_number

__all__ = ["data", "lines", "render"]

SETTING = 44
"""Characters of a setting on the screen; reports and JSON have all of it."""


class ClaimResult(Protocol):
    """What is shown of one claim; see ``perfmodel.calibration.claims``."""

    @property
    def id(self) -> str:
        """Name of the claim."""
        ...

    @property
    def setting(self) -> str:
        """Where it was published to hold."""
        ...

    @property
    def published(self) -> float:
        """The published number."""
        ...

    @property
    def predicted(self) -> float:
        """The number of this model."""
        ...

    @property
    def unit(self) -> str:
        """Unit of both."""
        ...

    @property
    def tolerance(self) -> float:
        """Relative difference that is accepted [1]."""
        ...

    @property
    def side(self) -> str:
        """``both``, or ``at_most`` and ``at_least`` where the published number is a limit."""
        ...

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance."""
        ...

    @property
    def read_in(self) -> str:
        """Where in the publication it stands."""
        ...

    @property
    def note(self) -> str:
        """What to know about it."""
        ...


def data(results: Sequence[ClaimResult]) -> list[Any]:
    """Results as plain data, one entry per published number."""
    return [plain(result) for result in results]


_LIMIT = {"both": "", "at_most": "≤ ", "at_least": "≥ "}


def _row(r: ClaimResult) -> tuple[str, ...]:
    error = "" if not r.published else f"{(r.predicted / r.published - 1) * 100:+.1f} %"
    numbers = [f"{format_number(v, 4)} {r.unit}".rstrip() for v in (r.published, r.predicted)]
    numbers[0] = _LIMIT[r.side] + numbers[0]
    return (r.id, r.setting, *numbers, error, f"{r.tolerance * 100:.3g} %", "holds" if r.holds else "FAILS")


HEAD = ("claim", "setting", "published", "predicted", "difference", "tolerance", "verdict")


def lines(results: Sequence[ClaimResult]) -> list[str]:
    """One line per claim and the sum."""
    rows = [
        HEAD,
        *((row[0], textwrap.shorten(row[1], SETTING, placeholder=" …"), *row[2:]) for row in map(_row, results)),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    texts = []
    for row in rows:
        words = [f"{c:<{w}}" for c, w in zip(row[:2], widths[:2], strict=True)]
        numbers = [f"{c:>{w}}" for c, w in zip(row[2:], widths[2:], strict=True)]
        texts.append("  ".join((*words, *numbers)))
    return [*texts, _sum(results)]


def _sum(results: Sequence[ClaimResult]) -> str:
    held = sum(1 for r in results if r.holds)
    return f"{held} of {len(results)} claims hold."


def render(results: Sequence[ClaimResult], command: str) -> str:
    """Return the Markdown report; its first lines say which command made it."""
    text = [
        "# Published claims",
        "",
        f"Made by `{command}`.",
        "",
        _sum(results),
        "",
        _table_row((*HEAD, "read in", "note")),
    ]
    text.append(_table_row(("---",) * (len(HEAD) + 2)))
    for r in results:
        text.append(_table_row((*_row(r), str(r.read_in), str(r.note))))
    return "\n".join(text) + "\n"


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"
