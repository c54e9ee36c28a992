"""``perfmodel claims``: published results against predictions."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["command"]

REPORT = Path("reports/claims.md")
"""Where a run of all claims is kept, if its folder is there."""


def command(
    ids: list[str] | None = typer.Argument(None, metavar="[ID]...", help="Claims to run; all if none is named."),
    json: bool = typer.Option(False, "--json", help="Print JSON only."),
    report: Path | None = typer.Option(
        None,
        "--report",
        metavar="FILE.md",
        help="Also write a Markdown report; a run of all writes reports/claims.md where that folder is.",
    ),
) -> None:
    """Run published claims through the model; one that does not hold is a result, and stays in the report."""
    from perfmodel.cli import output

    if report is None and not ids and not json and REPORT.parent.is_dir():
        report = REPORT
    output.check_report(report)
    from perfmodel.calibration.claims import run_claims
    from perfmodel.report import claims as tables

    results = run_claims(tuple(ids or ()))
    if report is not None:
        output.write_report(report, tables.render(results, output.command_line()))
    if json:
        output.print_json(tables.data(results))
    else:
        output.print_text("\n".join(tables.lines(results)))
        if report is not None:
            output.print_text(f"wrote {report}")
