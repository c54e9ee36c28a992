"""``perfmodel fleet``: training on groups of unlike machines."""

from __future__ import annotations

import typer

from perfmodel.cli.plan import FRAMEWORK, JSON, MODEL, SET_WORKLOAD

__all__ = ["EPILOG", "command"]

EPILOG = "Example: perfmodel fleet --model gpt-3.6b --hw holmes-hybrid --set-workload sequence=2048 --pin tp=1"


def command(
    model: str | None = MODEL,
    hw: str = typer.Option(..., "--hw", help="Fleet: a name or a YAML file with `groups` and a `link`."),
    workload: str = typer.Option("pretrain", "--workload", "-w", help="Training workload: a name or a YAML file."),
    pin: list[str] = typer.Option(
        [], "--pin", metavar="NAME=VALUE", help="tp, pp, dp, micro_batch, recompute or kind."
    ),
    set_workload: list[str] = SET_WORKLOAD,
    framework: str | None = FRAMEWORK,
    json: bool = JSON,
) -> None:
    """Plan training on unlike groups: which layers go to which group, or how they share the batch."""
    from perfmodel.cli import options, output

    model = options.required("--model", model)
    from perfmodel import studies

    found = studies.fleet(
        model, hw, workload, pin=options.pins(pin), framework=framework,
        workload_changes=options.workload_changes(set_workload) or None,
    )  # fmt: skip
    if json:
        from perfmodel.report import jsonable

        output.print_json(jsonable.fleet(found))
        return
    from perfmodel.report import fleet as text

    output.print_text("\n".join(text.lines(found)))
