"""Published claims against predictions: lines, Markdown and data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perfmodel.report.jsonable import plain
from perfmodel.units import format_number

if TYPE_CHECKING:
    from perfmodel.calibration.claims import ClaimResult

__all__ = ["data", "lines", "render"]

CLAIMS = "perfmodel.claims/1"


def data(results: Sequence[ClaimResult]) -> dict[str, Any]:
    """Results as plain data."""
    held = sum(1 for r in results if r.holds)
    return {"schema": CLAIMS, "claims": len(results), "hold": held, "results": plain(list(results))}


def _row(r: ClaimResult) -> tuple[str, str, str, str, str, str]:
    error = "" if not r.published else f"{(r.predicted / r.published - 1) * 100:+.1f} %"
    verdict = "holds" if r.holds else "FAILS"
    return (
        r.id,
        format_number(r.published, 4),
        format_number(r.predicted, 4),
        error,
        f"{r.tolerance * 100:g} %",
        verdict,
    )


HEAD = ("claim", "published", "predicted", "difference", "tolerance", "verdict")


def lines(results: Sequence[ClaimResult]) -> list[str]:
    """One line per claim and the sum."""
    rows = [HEAD, *(_row(r) for r in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    texts = [
        f"{row[0]:<{widths[0]}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return [*texts, _sum(results)]


def _sum(results: Sequence[ClaimResult]) -> str:
    held = sum(1 for r in results if r.holds)
    return f"{held} of {len(results)} claims hold."


def render(results: Sequence[ClaimResult]) -> str:
    """Return the Markdown report."""
    text = ["# Published claims", "", _sum(results), "", _table_row((*HEAD, "setting", "read in", "note"))]
    text.append(_table_row(("---",) * (len(HEAD) + 3)))
    for r in results:
        text.append(_table_row((*_row(r), str(r.setting), str(r.read_in), str(r.note))))
    return "\n".join(text) + "\n"


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"
