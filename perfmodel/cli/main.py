"""The command ``perfmodel``: parse, call the library, print. Everything heavy is imported by the command that needs it.

Exit codes: 0 an answer, also where the answer is that no plan is possible or that a published claim does not hold;
2 a mistake in what was asked; 70 a defect of perfmodel; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence

import typer

import perfmodel
from perfmodel.cli import (
    bounds,
    claims,
    compare,
    estimate,
    fleet,
    measure,
    plan,
    roofline,
    scale,
    simulate,
    specs,
    validate,
)
from perfmodel.errors import PerfmodelError

__all__ = ["app", "main"]

USAGE, DEFECT, INTERRUPTED = 2, 70, 130

app = typer.Typer(
    name="perfmodel",
    help="How fast, how much memory, how much money, and why: plan AI training and serving on any machine.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("plan", epilog=plan.EPILOG)(plan.command)
app.command("estimate", epilog=estimate.EPILOG)(estimate.command)
app.command("fleet", epilog=fleet.EPILOG)(fleet.command)
app.command("compare", epilog=compare.EPILOG)(compare.command)
app.command("scale", epilog=scale.EPILOG)(scale.command)
app.command("roofline", epilog=roofline.EPILOG)(roofline.command)
app.command("simulate", epilog=simulate.EPILOG)(simulate.command)
app.add_typer(bounds.app, name="bounds")
app.add_typer(specs.app, name="specs")
app.command("claims")(claims.command)
app.command("measure", epilog=measure.EPILOG)(measure.command)
app.command("validate")(validate.command)
app.command("calibrate")(validate.calibrate_command)

UsageError: type[Exception] = typer.BadParameter.__mro__[2]
"""The root of what the parser raises; it lives in another package from one release of typer to the next."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"perfmodel {perfmodel.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    del version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code.

    The collector of reference cycles rests, and the process ends without taking its objects apart: a process of a
    second makes hundreds of thousands of objects that it keeps, and both would take a tenth of its time.
    """
    gc.disable()
    code = run(arguments)
    with contextlib.suppress(BrokenPipeError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; mistakes become one message on standard error."""
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False, prog_name="perfmodel")
        sys.stdout.flush()
    except PerfmodelError as error:
        return _fail(str(error), USAGE)
    except UsageError as error:
        return _usage(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if os.environ.get("PERFMODEL_DEBUG"):
            raise
        kind = type(error).__name__
        return _fail(
            f"perfmodel has a defect ({kind}: {error}); please report it with the command; "
            "PERFMODEL_DEBUG=1 shows where",
            DEFECT,
        )
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> int:
    text = str(getattr(error, "format_message", lambda: error)())
    code = int(getattr(error, "exit_code", USAGE))
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(text)
        return USAGE
    return _fail(f"{text.rstrip('.')}; see --help", code or USAGE)


def _fail(message: str, code: int) -> int:
    typer.echo(f"error: {message}", err=True)
    return code
