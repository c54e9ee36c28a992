"""``perfmodel claims``: published results against predictions."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["command"]


def command(
    ids: list[str] | None = typer.Argument(None, metavar="[ID]...", help="Claims to run; all if none is named."),
    json: bool = typer.Option(False, "--json", help="Print JSON only."),
    report: Path | None = typer.Option(None, "--report", metavar="FILE.md", help="Also write a Markdown report."),
) -> None:
    """Run published claims through the model; one that does not hold is a result, and stays in the report."""
    from perfmodel.cli import output

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
