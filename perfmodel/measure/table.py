"""The table of measurements: one row per call, appended whole; a file can be continued, never mixed up."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from perfmodel.errors import SpecError
from perfmodel.measure.jobs import Job

__all__ = ["COLUMNS", "Table"]

_ABOUT = ("operator", "device", "dtype", "framework", "version", "kernel")
_SIZES = (
    *("m", "n", "k", "includes_act_quant", "weight_fits_l2"),
    *("kv_dtype", "batch", "q_heads", "kv_heads", "head_dim", "q_len", "kv_len", "causal", "window", "kv_fits_l2"),
    *("op", "rows", "cols", "bytes_read", "bytes_written"),
    *("system", "kind", "ranks", "ranks_per_node", "bytes", "backend"),
)
_TIMES = ("time_us", "low_us", "high_us", "n_samples", "calls", "disturbed", "drift")
COLUMNS = (*_ABOUT, *_SIZES, *_TIMES, "threads", "blas", "date", "source")
"""Columns of the file: what ran where, sizes of every operator class (blank where they have no meaning), median and
quartiles of one call in microseconds, samples, calls per sample, samples thrown away, time of the reference product
relative to its first time, threads, BLAS, day, origin."""
_RESULTS = frozenset({"weight_fits_l2", "includes_act_quant", "kv_fits_l2", "kernel", "bytes_read", "bytes_written"})
_KEY = ("operator", "dtype", "framework", *(name for name in _SIZES if name not in _RESULTS))
_SAME = ("version", "blas", "threads")
"""What rows of one framework must have in common to be compared."""

Row = Mapping[str, object]


class Table:
    """A file of measurements, open for appending.

    Parameters
    ----------
    path : file; made if it does not exist.
    about : device, framework, version, blas and threads of the rows to come.

    Raises
    ------
    SpecError
        If the file cannot be written, has other columns, or holds rows of another device or version.
    """

    def __init__(self, path: Path, about: Row) -> None:
        self.path = path
        self.about = {name: str(about[name]) for name in ("device", "framework", *_SAME)}
        self.rows: list[dict[str, str]] = []
        self.dropped = 0
        new = not path.exists() or path.stat().st_size == 0
        if not new:
            self._read()
        self.done = {_key(row) for row in self.rows}
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise SpecError(error.strerror or str(error), field="--output", found=str(path)) from error
        if new:
            self._write(COLUMNS)

    def _read(self) -> None:
        """Read what is there; a last line that was cut off in the middle is taken out of the file."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise SpecError(f"cannot be continued: {reason}", file=str(self.path)) from error
        whole = text[: text.rfind("\n") + 1]
        lines = list(csv.reader(io.StringIO(whole)))
        if not lines or tuple(lines[0]) != COLUMNS:
            self._other_columns(lines[0] if lines else text.splitlines()[0].split(","))
        for number, cells in enumerate(lines[1:], 2):
            if len(cells) != len(COLUMNS):
                message = f"{len(cells)} cells where the first line names {len(COLUMNS)}"
                raise SpecError(f"{message}; correct the line or give another file", file=str(self.path), line=number)
            row = dict(zip(COLUMNS, cells, strict=True))
            self._check(row, number)
            self.rows.append(row)
        if whole != text:
            self.dropped = 1
            os.truncate(self.path, len(whole.encode()))

    def _other_columns(self, found: list[str]) -> None:
        missing = [name for name in COLUMNS if name not in found]
        other = [name for name in found if name not in COLUMNS]
        what = [f"{word} {', '.join(names[:4])}" for word, names in (("no", missing), ("unknown", other)) if names]
        message = f"was not written by this version of `measure` ({'; '.join(what) or 'other order of columns'})"
        raise SpecError(f"{message}; give another file with -o", file=str(self.path), line=1)

    def _check(self, row: Row, line: int) -> None:
        names = ("device", *_SAME) if row["framework"] == self.about["framework"] else ("device",)
        for name in names:
            if row[name] != self.about[name]:
                raise SpecError(
                    "the file holds measurements of something else; give another file with -o",
                    file=str(self.path),
                    line=line,
                    field=name,
                    found=row[name],
                    allowed=f"{self.about[name]}, what would be measured now",
                )

    def has(self, job: Job) -> bool:
        """Whether the job was timed already."""
        about = {"operator": job.operator, "dtype": job.dtype, "framework": self.about["framework"]}
        return _key({**about, **job.sizes}) in self.done

    def append(self, row: Row) -> None:
        """Add one row in a single write, so that a process that ends leaves whole rows."""
        full = {name: _cell(row.get(name, self.about.get(name, ""))) for name in COLUMNS}
        self._write([full[name] for name in COLUMNS])
        self.rows.append(full)
        self.done.add(_key(full))

    def _write(self, cells: object) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)  # type: ignore[arg-type]
        try:
            os.write(self._file, line.getvalue().encode())
        except OSError as error:
            raise SpecError(error.strerror or str(error), field="--output", found=str(self.path)) from error

    def close(self) -> None:
        """Put what was written on the disk and close the file."""
        os.fsync(self._file)
        os.close(self._file)


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(name, "")) for name in _KEY)


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
