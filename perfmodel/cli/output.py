"""Printing and writing: colours on a terminal only, JSON alone on its stream, files whole or not at all."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmodel.errors import SpecError

if TYPE_CHECKING:
    from perfmodel.report.screen import Line, Page

__all__ = ["Progress", "check_report", "page", "print_json", "print_lines", "print_text", "write_report"]

NARROWEST, WIDEST, PIPED = 60, 110, 100
STYLES = {"title": "1", "verdict": "1;32", "bad": "1;31", "quiet": "2", "bar": "36"}
ASCII = str.maketrans(
    {
        "×": "x",
        "·": "-",
        "–": "-",
        "≤": "<=",
        "≥": ">=",
        "→": "->",
        "µ": "u",
        "…": "...",
        "█": "#",
        "∞": "inf",
        "−": "-",
    }
)


def _unicode() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("-", "") in ("utf8", "utf16", "utf32")


def page(width: int | None) -> Page:
    """Return the page to lay out for: as wide as the terminal, within reason, and 100 columns in a pipe."""
    from perfmodel.report.screen import Page

    terminal = sys.stdout.isatty()
    if width is None:
        width = min(shutil.get_terminal_size((PIPED, 40)).columns, WIDEST) if terminal else PIPED
    if width < NARROWEST:
        raise SpecError("too narrow", field="--width", found=width, allowed=f"{NARROWEST} columns or more")
    return Page(width, "█", "·") if terminal and _unicode() else Page(width, "#", ".")


def print_lines(lines: Sequence[Line]) -> None:
    """Print a screen, in colour where a person reads it."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    print_text("\n".join(_coloured(line) if colour else line.plain for line in lines))


def _coloured(line: Line) -> str:
    if not line.text:
        return ""
    label = f"\033[1m{line.prefix}\033[0m" if line.label else line.prefix
    if not line.label and line.style == "title":
        return f"\033[1m{line.plain}\033[0m"
    code = STYLES.get(line.style)
    return label + (f"\033[{code}m{line.text}\033[0m" if code and line.text else line.text)


def print_text(text: str) -> None:
    """Print on standard output whatever characters it can show."""
    if not _unicode():
        text = text.translate(ASCII).encode(sys.stdout.encoding or "ascii", "replace").decode(sys.stdout.encoding)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(data: Any) -> None:
    """Print one JSON document."""
    import json

    sys.stdout.write(json.dumps(data, indent=1, ensure_ascii=True, allow_nan=False) + "\n")
    sys.stdout.flush()


def check_report(path: Path | None, flag: str = "--report", suffixes: Sequence[str] = ()) -> None:
    """Refuse a path that cannot be written, or of none of the ``suffixes``, before any work is done."""
    if path is None:
        return
    if suffixes and path.suffix not in suffixes:
        raise SpecError(
            "not a kind of file that can be written", field=flag, found=str(path), allowed=" or ".join(suffixes)
        )
    if path.is_dir():
        raise SpecError("is a folder; give the name of a file in it", field=flag, found=str(path))
    parent = path.parent
    if not parent.is_dir():
        raise SpecError(f"the folder {parent} does not exist", field=flag, found=str(path))
    if not os.access(parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise SpecError("may not be written", field=flag, found=str(path))


def write_report(path: Path, text: str) -> None:
    """Write a file whole: readers see the old one or the new one."""
    check_report(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SpecError(error.strerror or str(error), field="--report", found=str(path)) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Progress:
    """A bar on standard error, only where a person waits for more than a second."""

    def __init__(self, patience: float = 1.0, what: str = "plans for") -> None:
        self.started, self.patience, self.what = time.monotonic(), patience, what
        self.shown = sys.stderr.isatty()
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}

    def __call__(self, workload: str, done: int, total: int, now: str = "") -> None:
        """Report plans judged, or other things done, and what comes now."""
        if not self.shown or (self.bar is None and time.monotonic() - self.started < self.patience):
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import Progress as Bar

            self.bar = Bar(console=Console(stderr=True), transient=True)
            self.bar.start()
        if workload not in self.tasks:
            self.tasks[workload] = self.bar.add_task("", total=total)
        text = f"{self.what} {now or workload}"
        self.bar.update(self.tasks[workload], completed=done, total=total, description=text)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def command_line() -> str:
    """The command as the user typed it, for the first lines of a report."""
    return shlex.join(["perfmodel", *sys.argv[1:]])
