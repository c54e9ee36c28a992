"""``perfmodel roofline``: every operator of a model under the roofs of a machine."""

from __future__ import annotations

from enum import StrEnum

import typer

from perfmodel.cli.plan import FRAMEWORK, HARDWARE, MODEL, SET, SET_WORKLOAD, WIDTH

__all__ = ["EPILOG", "command"]

EPILOG = "Example: perfmodel roofline --model llama70b --hw h100 --phase decode --pin tp=8 --pin batch=64"


class Phase(StrEnum):
    """A pass of a model."""

    prefill = "prefill"
    decode = "decode"
    training = "training"


def command(
    model: str | None = MODEL,
    hw: str | None = HARDWARE,
    workload: str | None = typer.Option(
        None, "--workload", "-w", help="Workload: a name or a YAML file; by default chat, or pretrain for training."
    ),
    phase: Phase | None = typer.Option(None, "--phase", help="One pass; by default every one of the workload."),
    pin: list[str] = typer.Option([], "--pin", metavar="COLUMN=VALUE", help="A column of the plan: tp=8, batch=64."),
    devices: int | None = typer.Option(None, "--devices", "-n", help="Devices of a training plan."),
    set_: list[str] = SET,
    set_workload: list[str] = SET_WORKLOAD,
    framework: str | None = FRAMEWORK,
    json: bool = typer.Option(False, "--json", help="Print JSON only (docs/json.md)."),
    width: int | None = WIDTH,
) -> None:
    """Show the intensity, the roof, and the predicted and bound time of every operator on one device."""
    from perfmodel.cli import options, output
    from perfmodel.errors import SpecError

    model, hw = options.required("--model", model), options.required("--hw", hw)
    columns = options.pins(pin)
    for name, value in columns.items():
        if isinstance(value, tuple):
            raise SpecError("one plan has one value", field="--pin", found=f"{name}={value}")
    page = None if json else output.page(width)
    chosen = workload or ("pretrain" if phase is Phase.training else "chat")

    from perfmodel import studies

    found = studies.roofline(
        model, hw, chosen, phase=None if phase is None else phase.value, columns=columns, devices=devices,
        changes=options.pairs("--set", set_) or None,
        workload_changes=options.workload_changes(set_workload) or None, framework=framework,
    )  # fmt: skip
    from perfmodel.report import roofline as report

    if json:
        output.print_json(report.roofline_data(found))
    else:
        output.print_lines(report.lines(found, page or output.page(None)))
