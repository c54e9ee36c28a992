"""``perfmodel validate`` and ``perfmodel calibrate``: predictions against measurements, and constants from them."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["calibrate_command", "command"]


def command(
    paths: list[str] = typer.Argument(..., metavar="PATH...", help="Measurement tables (.csv) or folders of them."),
    hw: str | None = typer.Option(
        None, "--hw", metavar="FILE", help="A device or cluster file written by `calibrate`."
    ),
    held_out: str | None = typer.Option(
        None, "--held-out", metavar="rows|device", help="Use constants that have not seen the row, or the device."
    ),
    worst: int = typer.Option(0, "--worst", metavar="N", min=0, help="Show the N rows of every group that miss most."),
    json: bool = typer.Option(False, "--json", help="Print JSON only."),
    report: Path | None = typer.Option(None, "--report", metavar="FILE.md", help="Also write a Markdown report."),
) -> None:
    """Predict measured rows and report the errors by source, framework, device and format."""
    from perfmodel.cli import output

    output.check_report(report)
    from perfmodel.calibration.validate import validate
    from perfmodel.report import accuracy

    found = [r.data() for r in validate(paths, device=hw, held_out=held_out, worst=worst or 3)]
    if report is not None:
        output.write_report(report, accuracy.render(found, output.command_line()))
    if json:
        output.print_json(found)
    else:
        output.print_text("\n".join(accuracy.lines(found, worst)))


def calibrate_command(
    measurements: list[str] = typer.Argument(..., metavar="MEASUREMENTS.csv...", help="Tables of measured kernels."),
    hw: str | None = typer.Option(
        None, "--hw", metavar="FILE", help="Device, or cluster for collectives, they were measured on."
    ),
    out: Path = typer.Option(
        ...,
        "-o",
        "--output",
        metavar="FILE.yaml",
        help="File to write; a folder for all devices or frameworks.",
    ),
    date: str | None = typer.Option(None, "--date", metavar="YYYY-MM-DD", help="Day to state; today by default."),
) -> None:
    """Fit constants to measurements and write files that hold them: kernels of a device, or training frameworks."""
    import datetime

    from perfmodel.calibration import shipping
    from perfmodel.calibration.rows import header_of
    from perfmodel.calibration.serving_fit import fit_serving
    from perfmodel.calibration.serving_validate import holds_runs
    from perfmodel.calibration.training_fit import fit_frameworks
    from perfmodel.calibration.training_validate import is_training
    from perfmodel.cli import output
    from perfmodel.report import accuracy

    day = date or datetime.date.today().isoformat()
    if all(holds_runs(header_of(Path(m))) for m in measurements):
        output.print_text("\n".join(accuracy.serving_lines(fit_serving([Path(m) for m in measurements], out))))
        return
    if all(is_training(header_of(Path(m))) for m in measurements):
        output.print_text("\n".join(accuracy.framework_lines(fit_frameworks([Path(m) for m in measurements], out))))
        return
    if hw is None:
        fits = shipping.calibrate_all(measurements, out, date=day)
    else:
        output.check_report(out)
        text, fits = shipping.calibrate(measurements, hw, out.stem, date=day)
        output.write_report(out, text)
    output.print_text("\n".join(accuracy.fit_lines(f.group for f in fits)))
