"""``perfmodel measure``: time operators on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

__all__ = ["EPILOG", "command"]

EPILOG = (
    "Example: perfmodel measure -o mine.csv; then perfmodel calibrate mine.csv --hw mine.base.yaml -o mine.yaml, and "
    "perfmodel validate mine.csv --hw mine.yaml. Interrupt it at will: the same command goes on where it was."
)
USUAL, QUICK = 90.0, 30.0


def command(
    out: Path = typer.Option(..., "-o", "--output", metavar="FILE.csv", help="Table to write, or to go on with."),
    backend: str = typer.Option("", "--backend", metavar="numpy|torch", help="Library to time; numpy by default."),
    device: str = typer.Option("cpu", "--device", metavar="cpu|cuda", help="Device; cuda means AMD with ROCm too."),
    dtype: str = typer.Option("", "--dtype", metavar="F,F…", help="Number formats: fp32, bf16, fp16."),
    operators: str = typer.Option("", "--operators", metavar="O,O…", help="Only these operators."),
    threads: int = typer.Option(0, "--threads", metavar="N", help="Threads; by default one per core."),
    ranks: int = typer.Option(0, "--ranks", metavar="N", help="Time collectives between N processes (torch)."),
    time_limit: float | None = typer.Option(None, "--time-limit", "--budget", metavar="S", help="Seconds; 90."),
    quick: bool = typer.Option(False, "--quick", help="A third of the shapes, in 30 seconds."),
    describe: Path | None = typer.Option(
        None, "--describe", metavar="FILE.yaml", help="Device file to write; by default beside the table."
    ),
    name: str = typer.Option("", "--name", metavar="NAME", help="Name of the device; that of the processor."),
    quiet: bool = typer.Option(False, "-q", "--quiet", help="Print nothing but errors."),
    json: bool = typer.Option(False, "--json", help="Print JSON only."),
) -> None:
    """Time matrix products, attention, copies and norms on this machine, as a table that `calibrate` reads."""
    import datetime

    from perfmodel.cli import output
    from perfmodel.measure.session import Request, session
    from perfmodel.report import measured

    request = Request(
        out=out, backend=backend, device=device, dtypes=_listed(dtype), operators=_listed(operators),
        threads=threads, limit=time_limit if time_limit is not None else QUICK if quick else USUAL, quick=quick,
        describe=describe, name=name, ranks=ranks,
    )  # fmt: skip
    day = datetime.date.today().isoformat()
    with output.Progress(patience=0.0, what="timing") as bar:
        result = session(request, date=day, progress=None if quiet or json else _shown(bar))
    if result is None:  # a process of a launcher that only took part
        return
    if json:
        output.print_json(result.data())
    elif not quiet:
        output.print_text("\n".join(measured.lines(result.data(), result.rows)))
    if result.outcome.interrupted:
        raise typer.Exit(130)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _shown(bar: Any) -> Any:
    return lambda done, total, what: bar("rows", done, total, what)
