"""``perfmodel estimate``: one given plan."""

from __future__ import annotations

from pathlib import Path

import typer

from perfmodel.cli.plan import FRAMEWORK, HARDWARE, JSON, MODEL, SET, SET_WORKLOAD, USE, WIDTH

__all__ = ["EPILOG", "command"]

EPILOG = (
    "Example: perfmodel estimate --model llama70b --hw dgx-h100 --workload pretrain --devices 64 --pin tp=8 --pin pp=4"
)


def command(
    model: str | None = MODEL,
    hw: str | None = HARDWARE,
    workload: str = typer.Option("pretrain", "--workload", "-w", help="Workload: a name or a YAML file."),
    pin: list[str] = typer.Option([], "--pin", metavar="COLUMN=VALUE", help="A column of the plan, e.g. tp=8."),
    devices: int | None = typer.Option(
        None, "--devices", "-n", help="Devices of a training plan; by default the product of the degrees."
    ),
    use: list[str] = USE,
    set_: list[str] = SET,
    set_workload: list[str] = SET_WORKLOAD,
    framework: str | None = FRAMEWORK,
    timeline: Path | None = typer.Option(
        None,
        "--timeline",
        metavar="FILE",
        help="Also draw one training step: FILE.svg, or FILE.json for a trace viewer.",
    ),
    json: bool = JSON,
    width: int | None = WIDTH,
) -> None:
    """Evaluate one given plan; what is not pinned stays switched off. An illegal plan is shown with what it breaks."""
    from perfmodel.cli import options, output
    from perfmodel.errors import SpecError

    model, hw = options.required("--model", model), options.required("--hw", hw)
    columns = options.pins(pin)
    for name, value in columns.items():
        if isinstance(value, tuple):
            raise SpecError("one plan has one value", field="--pin", found=f"{name}={value}", allowed="perfmodel plan")
    output.check_report(timeline, "--timeline", (".svg", ".json"))
    page = None if json else output.page(width)
    changes, fields = options.pairs("--set", set_), options.workload_changes(set_workload)
    if options.asks_for_images(model, workload):
        from perfmodel.cli import images

        asked = images.Asked(model, hw, workload, columns, options.techniques(use), changes, fields, devices, framework)
        return images.estimate(asked, timeline, page)

    from perfmodel import api

    found = api.estimate(
        model, hw, workload, columns=columns, devices=devices, use=options.techniques(use),
        changes=changes or None, workload_changes=fields or None, framework=framework,
    )  # fmt: skip
    if timeline is not None:
        from perfmodel.report import timeline as drawing

        drawn = api.timeline(found.request, found.model, found.system, found.plan, found.workload)
        draw = drawing.as_svg if timeline.suffix == ".svg" else drawing.as_json
        output.write_report(timeline, draw(drawn))
    if json:
        from perfmodel.report import jsonable

        output.print_json(jsonable.estimate(found))
        return
    from perfmodel.report import screen

    output.print_lines(screen.estimate(found, page or output.page(None)))
