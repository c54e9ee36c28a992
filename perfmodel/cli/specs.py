"""``perfmodel specs``: what is shipped, what a file says, whether it can be used."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

__all__ = ["app"]

app = typer.Typer(help="List, show and check specifications.", no_args_is_help=True, rich_markup_mode=None)

JSON = typer.Option(False, "--json", help="Print JSON only (docs/json.md).")


class Kind(StrEnum):
    """What is shipped."""

    models = "models"
    clusters = "clusters"
    devices = "devices"
    workloads = "workloads"
    diffusion = "diffusion"
    images = "images"
    frameworks = "frameworks"
    techniques = "techniques"


@app.command("list")
def list_(
    kind: Kind | None = typer.Argument(None, help="One kind; all if left out."),
    json: bool = JSON,
) -> None:
    """List the names that are shipped, with their aliases."""
    from perfmodel.cli import output
    from perfmodel.report import listing

    found = listing.listing(None if kind is None else kind.value)
    if json:
        output.print_json({"schema": listing.LIST, **found})
    else:
        output.print_text("\n".join(listing.list_lines(found)))


@app.command("show")
def show(
    name: str = typer.Argument(..., metavar="NAME_OR_PATH", help="A shipped name, or a YAML or JSON file."),
    kind: Kind | None = typer.Option(None, "--kind", help="Which one, where a name means several things."),
    json: bool = JSON,
) -> None:
    """Show one model, machine, workload, framework or technique with everything its file says."""
    from perfmodel.cli import output
    from perfmodel.report import spec_lines, specs

    found = specs.described(name, None if kind is None else kind.value)
    if json:
        output.print_json({"schema": specs.SPEC, **found})
    else:
        output.print_text("\n".join(spec_lines.show_lines(found)))


@app.command("formats")
def formats(json: bool = JSON) -> None:
    """List the formats of weights and of the KV cache: bits, products, what they are."""
    from perfmodel.cli import output
    from perfmodel.report import listing

    found = listing.format_entries()
    if json:
        output.print_json({"schema": listing.LIST, "formats": found})
    else:
        output.print_text("\n".join(listing.format_lines(found)))


@app.command("fields")
def fields(
    kind: str = typer.Argument(..., metavar="KIND", help="device, cluster, fleet, serving-workload, …"),
    json: bool = typer.Option(False, "--json", help="Print a JSON Schema, for editors that complete and check YAML."),
) -> None:
    """List every field that a file may have: form, what may be left out, meaning."""
    from perfmodel.cli import output
    from perfmodel.report import fields as report

    if json:
        output.print_json(report.schema_of(kind))
    else:
        output.print_text("\n".join(report.field_lines(kind)))


@app.command("check")
def check(paths: list[Path] = typer.Argument(..., metavar="PATH...", help="Files, or folders of files.")) -> None:
    """Check files; exit code 2 if one cannot be used."""
    from perfmodel.cli import output
    from perfmodel.errors import PerfmodelError
    from perfmodel.report import specs

    bad = 0
    for path in specs.files_in(paths):
        try:
            output.print_text(f"OK     {path}: {specs.checked(path)}")
        except PerfmodelError as error:
            bad += 1
            typer.echo(f"error: {error}" if str(path) in str(error) else f"error: {path}: {error}", err=True)
    if bad:
        raise typer.Exit(2)
