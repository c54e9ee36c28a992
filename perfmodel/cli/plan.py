"""``perfmodel plan``: the best plan for a model on a machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from perfmodel.api import Answers, Comparison

__all__ = ["EPILOG", "command"]

EPILOG = (
    "Exit code 0 is an answer, also where no plan is possible; 2 is a mistake in what was asked. "
    "Example: perfmodel plan --model llama70b --hw frontier --set nic_bandwidth=x2"
)

MODEL = typer.Option(None, "--model", "-m", help="Model: a shipped name, a YAML file, or a HuggingFace config.json.")
HARDWARE = typer.Option(None, "--hw", help="Machine: a shipped cluster or device, or a YAML file.")
PIN = typer.Option([], "--pin", metavar="COLUMN=VALUE", help="Hold a plan column: tp=8, or search only pp=2,4.")
USE = typer.Option([], "--use", metavar="NAME[=VALUE]", help="Allow a technique that changes the numerics.")
SET = typer.Option(
    [], "--set", metavar="FACT=VALUE", help="What-if on the machine: nic_bandwidth=x2, hbm_capacity='96 GiB'."
)
SET_WORKLOAD = typer.Option(
    [], "--set-workload", metavar="FIELD=VALUE", help="Change the workload: sequence=8192, slo.tpot='30 ms'."
)
FRAMEWORK = typer.Option(None, "--framework", help="Software stack: a shipped name or a YAML file.")
JSON = typer.Option(False, "--json", help="Print JSON only (docs/json.md).")
WIDTH = typer.Option(None, "--width", help="Columns of the screen; by default those of the terminal, 100 in a pipe.")


def command(
    model: str | None = MODEL,
    hw: str | None = HARDWARE,
    workload: str | None = typer.Option(
        None, "--workload", "-w", help="Workload: a name or a YAML file; by default pretrain and chat."
    ),
    objective: str | None = typer.Option(None, "--objective", help="time, throughput, cost or energy."),
    devices: int | None = typer.Option(None, "--devices", "-n", help="Number of devices; chosen if left out."),
    pin: list[str] = PIN,
    use: list[str] = USE,
    max_quality_loss: str | None = typer.Option(
        None, "--max-quality-loss", metavar="SHARE", help="Published loss of quality that may be spent: 3% or 0.03."
    ),
    trace: Path | None = typer.Option(
        None, "--trace", metavar="FILE", help="Size a service for these requests (CSV or .jsonl), hour by hour."
    ),
    rate_scale: float = typer.Option(1.0, "--rate-scale", help="Let the trace come so many times as fast."),
    window: str = typer.Option("1 h", "--window", metavar="TIME", help="Time for which a number of replicas stays."),
    pools: str = typer.Option("either", "--pools", help="Prefill and decode: together, apart, or either."),
    set_: list[str] = SET,
    set_workload: list[str] = SET_WORKLOAD,
    framework: str | None = FRAMEWORK,
    json: bool = JSON,
    report: Path | None = typer.Option(None, "--report", metavar="FILE.md", help="Also write a Markdown report."),
    width: int | None = WIDTH,
) -> None:
    """Find the best plan: parallelism, memory, time, cost, and why."""
    from perfmodel.cli import options, output

    model, hw = options.required("--model", model), options.required("--hw", hw)
    output.check_report(report)
    pins, fields = options.pins(pin), options.workload_changes(set_workload)
    changes = options.pairs("--set", set_)
    loss = options.share("--max-quality-loss", max_quality_loss)
    page = None if json else output.page(width)
    if options.asks_for_images(model, workload):
        from perfmodel.cli import images

        asked = images.Asked(model, hw, workload, pins, options.techniques(use), changes, fields, devices, framework)
        return images.plan(asked, objective, loss, report, page)
    chosen = options.kind_of(workload, framework, pins, fields)
    seconds = options.duration("--window", window)

    from perfmodel import api

    def ask(changed: dict[str, str] | None, progress: api.Progress) -> Answers:
        what = partial(_for_trace, trace, rate_scale, seconds) if trace is not None else api.plan
        return what(
            model, hw, chosen, objective=objective, devices=devices, pin=pins or None, use=options.techniques(use),
            max_quality_loss=loss, changes=changed or None, workload_changes=fields or None, framework=framework,
            pools=pools, progress=progress,
        )  # fmt: skip

    with output.Progress() as progress:
        found = ask(changes, progress)
        compared = api.Comparison(ask(None, progress), found) if changes else None
    if report is not None:
        from perfmodel.report import markdown

        output.write_report(report, markdown.render(found, output.command_line(), compared))
    if json:
        from perfmodel.report import jsonable

        output.print_json(jsonable.plan(found, compared))
        return
    _show(found, compared, report, page)


def _for_trace(trace: Path, rate_scale: float, window: float, *args: Any, **asked: Any) -> Answers:
    """Plan for the requests of a file."""
    from perfmodel import services
    from perfmodel.cli.output import Progress
    from perfmodel.cli.simulate import requests_of

    model, hw, workload = args
    arrivals, _, _, total = requests_of(trace, None, rate_scale, None)
    with Progress(what="requests of") as reading:
        return services.plan_trace(
            model, hw, arrivals, workload or "chat", window=window,
            read=lambda done: reading(trace.name, done, max(total, done)), **asked,
        )  # fmt: skip


def _show(found: Answers, compared: Comparison | None, report: Path | None, page: object) -> None:
    from perfmodel.cli import output
    from perfmodel.report import screen

    width = page if isinstance(page, screen.Page) else output.page(None)
    lines = screen.plan(found, width) if compared is None else screen.comparison(compared, width)
    if report is not None:
        lines = [*lines, screen.Line("written", str(report), "quiet")]
    output.print_lines(lines)
