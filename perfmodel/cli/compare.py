"""``perfmodel compare``: one question on several machines, side by side."""

from __future__ import annotations

import typer

from perfmodel.cli.plan import FRAMEWORK, JSON, MODEL, PIN, SET_WORKLOAD, USE, WIDTH

__all__ = ["EPILOG", "command"]

EPILOG = "Example: perfmodel compare --model mixtral-8x7b --hw duplex-4x --hw h100-4x --workload batch"


def command(
    model: str | None = MODEL,
    hw: list[str] = typer.Option([], "--hw", help="Machines, each with its own --hw; the first is the reference."),
    workload: str = typer.Option("chat", "--workload", "-w", help="Workload: a name or a YAML file."),
    objective: str | None = typer.Option(None, "--objective", help="time, throughput, cost or energy."),
    pin: list[str] = PIN,
    use: list[str] = USE,
    max_quality_loss: str | None = typer.Option(
        None, "--max-quality-loss", metavar="SHARE", help="Published loss of quality that may be spent: 3% or 0.03."
    ),
    set_workload: list[str] = SET_WORKLOAD,
    framework: str | None = FRAMEWORK,
    json: bool = JSON,
    width: int | None = WIDTH,
) -> None:
    """Put the best plans of several machines side by side: speed, energy, cost, what binds, and how near the bound."""
    from perfmodel.cli import options, output

    model = options.required("--model", model)
    options.required("--hw", hw[0] if hw else None)
    page = None if json else output.page(width)

    from perfmodel import studies

    found = studies.across(
        model, hw, workload, objective=objective, pin=options.pins(pin) or None, use=options.techniques(use),
        max_quality_loss=options.share("--max-quality-loss", max_quality_loss),
        workload_changes=options.workload_changes(set_workload) or None, framework=framework,
    )  # fmt: skip
    from perfmodel.report import machines as report

    if json:
        output.print_json(report.data(found))
    else:
        output.print_lines(report.lines(found, page or output.page(None)))
