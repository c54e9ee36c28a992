"""Saving a simulation that is under way, and going on with it."""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.serving.simulation import Run

__all__ = ["Saver", "load_run"]

SECONDS = 20.0
"""Time between saves [s]."""
_KNOWN = {
    ("builtins", "set"), ("array", "array"), ("array", "_array_reconstructor"), ("collections", "deque"),
    ("collections", "OrderedDict"), ("copyreg", "_reconstructor"), ("builtins", "object"),
}  # fmt: skip


class _Reader(pickle.Unpickler):
    """Builds plain data and the classes of a simulation, and refuses to call anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN or (module.startswith("perfmodel.serving.") and name.lstrip("_")[:1].isupper()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong here")


@contextmanager
def _without_tables(run: Run) -> Iterator[None]:
    """Tables are made again from the same question: they are not saved."""
    kept = [replica.tables for replica in run.everyone]
    for replica in run.everyone:
        del replica.tables
    try:
        yield
    finally:
        for replica, tables in zip(run.everyone, kept, strict=True):
            replica.tables = tables


class Saver:
    """Writes a run to a file, not more often than every :data:`SECONDS` unless asked to."""

    def __init__(self, path: Path, signature: str, seconds: float = SECONDS) -> None:
        self.path, self.signature, self.seconds = path, _digest(signature), seconds
        self.latest = time.monotonic()

    def __call__(self, run: Run, *, now: bool = False) -> None:
        """Save, if it is time."""
        if not now and time.monotonic() - self.latest < self.seconds:
            return
        with _without_tables(run):
            data = pickle.dumps((self.signature, run), protocol=5)
        beside = self.path.with_name(self.path.name + ".tmp")
        try:
            beside.write_bytes(data)
            beside.replace(self.path)
        except OSError as error:
            raise SpecError(error.strerror or str(error), field="--checkpoint", found=str(self.path)) from error
        self.latest = time.monotonic()


def load_run(path: Path, signature: str, fresh: Run) -> Run:
    """Return the saved run, or the fresh one if there is no file.

    Raises
    ------
    SpecError
        If the file is none of perfmodel's, or of another question.
    """
    if not path.exists():
        return fresh
    try:
        found = _Reader(io.BytesIO(path.read_bytes())).load()
        saved, run = found
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, IndexError) as error:
        raise SpecError("not a saved simulation; remove it to begin anew", file=str(path)) from error
    if saved != _digest(signature) or not isinstance(run, Run):
        raise SpecError("the saved simulation is one of another question; remove it to begin anew", file=str(path))
    for replica, other in zip(run.everyone, fresh.everyone, strict=True):
        replica.tables = other.tables
    return run


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
