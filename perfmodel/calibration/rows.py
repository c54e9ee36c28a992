"""Measurement tables: from CSV files to groups of rows that share their constants."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from perfmodel.calibration.model import Group, Key, OperatorModel
from perfmodel.calibration.operators import OPERATOR_MODELS
from perfmodel.calibration.subjects import Unpredictable, own_file
from perfmodel.errors import SpecError

__all__ = ["Table", "files_of", "header_of", "origin_of", "read_tables"]


@dataclass
class Table:
    """Contents of one file.

    Parameters
    ----------
    file : path as given.
    model : operator class; ``None`` where no class reads these columns.
    rows : rows in the file.
    groups : rows that can be predicted.
    skipped : other rows, counted by (source, framework, device, format) and reason.
    """

    file: str
    model: OperatorModel | None
    rows: int
    groups: list[Group] = field(default_factory=list)
    skipped: dict[tuple[str, str, str, str], Counter[str]] = field(default_factory=dict)


def read_tables(paths: Iterable[str | Path], *, own: str | Path | None = None) -> list[Table]:
    """Read measurement files, and those of folders.

    Parameters
    ----------
    paths : CSV files or folders.
    own : a device or cluster file that stands for the rows whose device or system is one of its names.

    Raises
    ------
    SpecError
        If a path does not exist or is no table.
    """
    names = {} if own is None else _names(own)
    return [table for path in files_of(paths) for table in _tables(path, names)]


def _names(own: str | Path) -> dict[str, str]:
    """What the rows may call a device or a machine, and the file that describes it."""
    found = own_file(own)
    return {_folded(label): str(found.path) for label in found.labels}


def _folded(label: str) -> str:
    return label.casefold().replace("_", "-").replace(" ", "-")


def files_of(paths: Iterable[str | Path]) -> list[Path]:
    """The files that are named, and the tables of folders that are named."""
    return list(_files(paths))


def header_of(path: Path) -> frozenset[str]:
    """Columns of a table; none where it cannot be read, which reading it will say."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            return frozenset(next(csv.reader(lines), ()))
    except (OSError, UnicodeDecodeError, csv.Error):
        return frozenset()


def _files(paths: Iterable[str | Path]) -> Iterator[Path]:
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = sorted(path.rglob("*.csv"))
            if not found:
                raise SpecError("the folder holds no .csv file", file=str(path))
            yield from found
        else:
            yield path


def _tables(path: Path, names: Mapping[str, str]) -> Iterator[Table]:
    """Contents of a file, operator by operator where a column ``operator`` says whose rows they are."""
    header, rows = _rows(path)
    if "operator" not in header:
        yield _table(path, next((m for m in OPERATOR_MODELS if m.matches(header)), None), rows, names)
        return
    kinds: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for line, row in rows:
        kinds.setdefault(row["operator"] or "", []).append((line, row))
    for kind, members in kinds.items():
        found = (m for m in OPERATOR_MODELS if m.name == kind and m.matches(header))
        yield _table(path, next(found, None), members, names)


def _table(
    path: Path, model: OperatorModel | None, rows: list[tuple[int, dict[str, str]]], names: Mapping[str, str]
) -> Table:
    table = Table(str(path), model, len(rows))
    if model is not None:
        _sort(table, model, rows, names)
    return table


def _rows(path: Path) -> tuple[frozenset[str], list[tuple[int, dict[str, str]]]]:
    """Names of the columns, and every row with its line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, restkey="", restval="")
            header = frozenset(reader.fieldnames or ())
            if not header:
                raise SpecError("the file is empty; the first line names the columns", file=str(path))
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(reason, file=str(path)) from error
    return header, rows


def _sort(table: Table, model: OperatorModel, rows: list[tuple[int, dict[str, str]]], names: Mapping[str, str]) -> None:
    """Sort rows into groups; count those that have no prediction."""
    found: dict[tuple[Key, str, str, str], list[tuple[int, Mapping[str, float], float]]] = {}
    for line, row in rows:
        label, origin = row.get(model.label, ""), origin_of(row.get("source", ""))
        framework = row.get("framework") or row.get("timing") or row.get("backend") or ""
        dtype = row.get("dtype", "")
        try:
            identity, sizes = model.read(row)
            if not all(math.isfinite(size) for size in sizes.values()):
                raise ValueError("a size is not finite")
            framework = identity.framework
            variant = "/".join(part for part in (identity.framework, identity.kernel) if part)
            device = names.get(_folded(label)) or model.subject.find(label)
            model.check(device, sizes)
            key = Key(model.name, device, identity.format, variant, origin)
            seconds = _positive(row["time_us"], "time_us") * 1e-6
        except Unpredictable as reason:
            counts = table.skipped.setdefault((origin, framework, label, dtype), Counter())
            counts[str(reason)] += 1
        except (ArithmeticError, ValueError, KeyError, TypeError):
            counts = table.skipped.setdefault((origin, framework, label, dtype), Counter())
            counts["a size or the time is missing or not a number"] += 1
        else:
            shown = identity.dtype or identity.format
            found.setdefault((key, framework, label, shown), []).append((line, sizes, seconds))
    for (key, framework, label, shown), members in found.items():
        columns = {name: np.array([sizes[name] for _, sizes, _ in members]) for name in members[0][1]}
        times = np.array([seconds for _, _, seconds in members])
        lines = tuple(line for line, _, _ in members)
        group = Group(key, table.file, key.origin, framework, label, shown, columns, times, lines)
        table.groups.append(group)


def _positive(text: str, name: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(name)
    return value


def origin_of(source: str) -> str:
    """Short name of who measured: what stands in front of the path inside a repository.

    Examples
    --------
    >>> origin_of("aiconfigurator:h100_sxm/gemm")
    'aiconfigurator'
    """
    return re.split(r"[:@(#]", source, maxsplit=1)[0].strip() or "unnamed"
