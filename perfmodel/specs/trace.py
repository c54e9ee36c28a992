"""Traces of requests: CSV and JSON-lines files, read line by line so that a million requests take no memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from perfmodel.errors import SpecError, nearest

__all__ = ["HASHED_TOKENS", "Arrival", "prefix_hashes", "read_trace"]

HASHED_TOKENS = 512
"""Tokens of a block of prefix hashes in Mooncake's traces."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "arrival": ("arrival_s", "arrival", "timestamp", "arrived_at"),
    "prompt": ("prompt_tokens", "contexttokens", "input_length", "request tokens", "num_prefill_tokens", "input_toks"),
    "output": (
        "output_tokens", "generatedtokens", "output_length", "response tokens", "num_decode_tokens", "output_toks",
    ),
    "prefix": ("hash_ids", "prefix_hashes"),
}  # fmt: skip
"""What published traces call their columns, in lower case: own files, Azure's, Mooncake's, BurstGPT's, Vidur's."""

MILLISECONDS = {".jsonl"}
"""Kinds of files whose ``timestamp`` counts milliseconds (Mooncake)."""


class Arrival(NamedTuple):
    """One request.

    Parameters
    ----------
    seconds : when it comes, counted from the first [s].
    prompt, output : tokens.
    prefix : hashes of the leading whole blocks of the prompt, each standing for all up to its end.
    """

    seconds: float
    prompt: int
    output: int
    prefix: tuple[int, ...] = ()


def read_trace(
    path: str | Path, *, rate_scale: float = 1.0, limit: int | None = None,
    hashes: Mapping[int, tuple[int, ...]] | None = None,
) -> Iterator[Arrival]:  # fmt: skip
    """Yield the requests of a trace in their order.

    Parameters
    ----------
    path : a CSV file with a header, or a ``.jsonl`` file with one object per line.
    rate_scale : arrivals come so many times as fast.
    limit : stop after so many requests.
    hashes : prefix hashes by row, where they stand in a file of their own.

    Raises
    ------
    SpecError
        With the line: a missing column or value, what is no number, a negative number, a time before the previous one.
    """
    if rate_scale <= 0:
        raise SpecError("a positive number is needed", field="rate_scale", found=rate_scale)
    path = Path(path)
    scale = (1e-3 if path.suffix.lower() in MILLISECONDS else 1.0) / rate_scale
    origin, latest, count = 0.0, 0.0, 0
    with _opened(path) as file:
        rows = _objects(path, file) if path.suffix.lower() == ".jsonl" else _records(path, file)
        for line, values in rows:
            seconds = _time(path, line, values["arrival"])
            if not count:
                origin = latest = seconds
            if seconds < latest:
                raise SpecError("arrivals must not go back in time; sort the file by its first column", file=str(path),
                                line=line, field="arrival", found=values["arrival"])  # fmt: skip
            latest = seconds
            prefix = values.get("prefix") or (hashes or {}).get(count, ())
            yield Arrival(
                (seconds - origin) * scale, _tokens(path, line, "prompt", values["prompt"]),
                _tokens(path, line, "output", values["output"]), _ids(path, line, prefix),
            )  # fmt: skip
            count += 1
            if limit is not None and count >= limit:
                return
    if not count:
        raise SpecError("the trace holds no request", file=str(path))


def _opened(path: Path) -> IO[str]:
    if path.is_dir():
        raise SpecError("this is a directory; name a trace (CSV or .jsonl)", file=str(path))
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise SpecError(error.strerror or str(error), file=str(path)) from error


def _records(path: Path, file: IO[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines of a CSV file with what they say of arrival, prompt, output and prefix."""
    reader = csv.reader(file)
    try:
        header = next(reader, None)
        if not header:
            raise SpecError("the trace is empty", file=str(path))
        places = _places(path, [h.strip() for h in header])
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) <= max(i for n, i in places.items() if n != "prefix"):
                raise SpecError("the line is cut short", file=str(path), line=reader.line_num, found=",".join(row))
            yield reader.line_num, {name: row[i] if i < len(row) else "" for name, i in places.items()}
    except (csv.Error, UnicodeDecodeError) as error:
        raise SpecError(f"not a CSV file: {error}", file=str(path), line=reader.line_num + 1) from error


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Column of each value."""
    lower = [h.lower() for h in header]
    found = {}
    for name, known in COLUMNS.items():
        place = next((lower.index(k) for k in known if k in lower), None)
        if place is not None:
            found[name] = place
        elif name != "prefix":
            taken = {known for names in COLUMNS.values() for known in names}
            left = [h for h in header if h.lower() not in taken]
            near = nearest(known[0], left, 1)
            hint = f"; did you mean {near[0]!r} to be it?" if near else ""
            raise SpecError(f"no column for {name}{hint}", file=str(path), line=1, found=",".join(header),
                            allowed=", ".join(known))  # fmt: skip
    return found


def _objects(path: Path, file: IO[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines of a JSON-lines file."""
    line = 0
    try:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            data = json.loads(text)
            if not isinstance(data, dict):
                raise SpecError("an object per line is needed", file=str(path), line=line, found=text.strip())
            places = {n: next((k for k in data if k.lower() in names), None) for n, names in COLUMNS.items()}
            missing = [n for n, k in places.items() if k is None and n != "prefix"]
            if missing:
                raise SpecError(f"nothing says {missing[0]}", file=str(path), line=line, found=", ".join(data),
                                allowed=", ".join(COLUMNS[missing[0]]))  # fmt: skip
            yield line, {n: data[k] for n, k in places.items() if k is not None}
    except (ValueError, UnicodeDecodeError) as error:
        raise SpecError(f"not JSON: {error}", file=str(path), line=line or 1) from error


def _time(path: Path, line: int, value: Any) -> float:
    """Seconds, or a date and time of day."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        try:
            seconds = datetime.fromisoformat(str(value).strip()[:26]).timestamp()
        except ValueError:
            raise SpecError("a number or a date is needed", file=str(path), line=line, field="arrival",
                            found=value) from None  # fmt: skip
    if not 0.0 <= seconds < float("inf"):
        raise SpecError("a time from zero on is needed", file=str(path), line=line, field="arrival", found=value)
    return seconds


def _tokens(path: Path, line: int, field: str, value: Any) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0.0 <= number < 1e9 or number != int(number):
        raise SpecError("a whole number of tokens is needed", file=str(path), line=line, field=field, found=value)
    return int(number)


def _ids(path: Path, line: int, value: Any) -> tuple[int, ...]:
    """Hashes as a list, or as text between blanks."""
    if isinstance(value, tuple):
        return value
    parts = value if isinstance(value, list) else str(value).strip(" []").replace(",", " ").split()
    try:
        return tuple(int(p) for p in parts)
    except (TypeError, ValueError):
        raise SpecError("hashes are whole numbers", file=str(path), line=line, field="prefix", found=value) from None


def prefix_hashes(path: str | Path) -> dict[int, tuple[int, ...]]:
    """Prefix hashes by row, from a CSV file with the columns ``row,hash_ids``.

    Raises
    ------
    SpecError
        With the line, if it is no such file.
    """
    path = Path(path)
    with _opened(path) as file:
        reader = csv.reader(file)
        header = [h.strip().lower() for h in next(reader, [])]
        if header[:2] != ["row", "hash_ids"]:
            raise SpecError("wrong columns", file=str(path), line=1, found=",".join(header), allowed="row,hash_ids")
        found = {}
        for row in reader:
            if len(row) < 2 or not row[0].strip().isdigit():
                raise SpecError("a row number and hashes are needed", file=str(path), line=reader.line_num,
                                found=",".join(row))  # fmt: skip
            found[int(row[0])] = _ids(path, reader.line_num, row[1])
    return found
