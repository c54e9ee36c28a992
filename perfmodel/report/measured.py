"""What a run of measurements found, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perfmodel.units import format_bandwidth, format_rate, format_seconds

__all__ = ["lines"]

Row = Mapping[str, str]


def lines(run: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """Screen of a run: device, rows by operator with the fastest of each, remarks, next commands.

    Parameters
    ----------
    run : as ``perfmodel.measure.session.Result.data`` gives it.
    rows : all rows of the table.
    """
    what = f"{run['framework']} {run['version']}" + (f" with {run['blas']}" if run["blas"] else "")
    took = f"{run['added']} rows in {run['seconds']:.0f} s"
    known = f", {run['known']} were there" if run["known"] else ""
    text = [f"{run['device']}: {what}", f"{'interrupted: ' if run['interrupted'] else ''}{took}{known}", ""]
    for operator in dict.fromkeys(row["operator"] for row in rows):
        own = [row for row in rows if row["operator"] == operator]
        text.append(f"  {operator:<17}{len(own):>4} rows   {_fastest(operator, own)}".rstrip())
    text += ["", *(f"note: {note}" for note in run["notes"])]
    return [*text, *_next(run)]


def _next(run: Mapping[str, Any]) -> list[str]:
    table, hardware = run["table"], run["hardware"]
    if not hardware:
        return [f"wrote {table}"]
    own = Path(table).with_suffix(".yaml")
    return [
        f"wrote {table} and {hardware}"
        if Path(hardware).suffix
        else f"wrote {table}; the device is the shipped {hardware}",
        f"next: perfmodel calibrate {table} --hw {hardware} -o {own}",
        f"      perfmodel validate {table} --hw {own}",
    ]


def _fastest(operator: str, rows: Iterable[Row]) -> str:
    """Highest rate and shortest time."""
    rows = list(rows)
    shortest = format_seconds(min(float(r["time_us"]) for r in rows) * 1e-6)
    if operator == "gemm":
        rate = max(2e6 * float(r["m"]) * float(r["n"]) * float(r["k"]) / float(r["time_us"]) for r in rows)
        return f"fastest {format_rate(rate, 'FLOP/s')}, shortest {shortest}"
    if operator == "elementwise":
        moved = max((float(r["bytes_read"]) + float(r["bytes_written"])) / float(r["time_us"]) * 1e6 for r in rows)
        return f"fastest {format_bandwidth(moved)}, shortest {shortest}"
    return f"shortest {shortest}"
