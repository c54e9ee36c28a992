"""``perfmodel scale``: the best training plan of every size of a machine."""

from __future__ import annotations

from pathlib import Path

import typer

from perfmodel.cli.plan import FRAMEWORK, HARDWARE, JSON, MODEL, PIN, SET, SET_WORKLOAD, USE, WIDTH

__all__ = ["EPILOG", "command"]

EPILOG = "Example: perfmodel scale --model llama-3.1-405b --hw frontier --devices 64-75264 --step quarters"


def command(
    model: str | None = MODEL,
    hw: str | None = HARDWARE,
    workload: str = typer.Option("pretrain", "--workload", "-w", help="Workload: a name or a YAML file."),
    devices: str | None = typer.Option(
        None, "--devices", "-n", metavar="SIZES", help="A range, 64-75264, or sizes, 64,128,192; by default all."
    ),
    step: str = typer.Option(
        "doubling", "--step", help="Sizes of a range: doubling, quarters (four per doubling) or nodes (every number)."
    ),
    pin: list[str] = PIN,
    use: list[str] = USE,
    set_: list[str] = SET,
    set_workload: list[str] = SET_WORKLOAD,
    framework: str | None = FRAMEWORK,
    json: bool = JSON,
    csv: Path | None = typer.Option(None, "--csv", metavar="FILE.csv", help="Also write the table."),
    width: int | None = WIDTH,
) -> None:
    """Find the best plan of every size: time, efficiency, MFU, cost and goodput."""
    from perfmodel.cli import options, output

    model, hw = options.required("--model", model), options.required("--hw", hw)
    output.check_report(csv, "--csv")
    page = None if json else output.page(width)
    sizes = options.sizes("--devices", devices)

    from perfmodel import studies

    found = studies.scale(
        model, hw, workload, devices=sizes, step=step, pin=options.pins(pin) or None, use=options.techniques(use),
        changes=options.pairs("--set", set_) or None,
        workload_changes=options.workload_changes(set_workload) or None, framework=framework,
    )  # fmt: skip
    from perfmodel.report import scaling as report

    if csv is not None:
        output.write_report(csv, report.as_csv(found))
    if json:
        output.print_json(report.data(found))
    else:
        output.print_lines(report.lines(found, page or output.page(None)))
