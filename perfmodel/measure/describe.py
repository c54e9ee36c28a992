"""A device file of the machine at hand: what the system tells, and rates from the fastest rows of the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perfmodel.measure.processor import FASTER, Processor, flop_per_cycle

__all__ = ["MARK", "accelerator_text", "label", "processor_text"]

MARK = "# Written by `perfmodel measure`, which writes it anew unless this line is removed."

Row = Mapping[str, str]
Fact = dict[str, Any]


def label(name: str, threads: int) -> str:
    """Name of a processor that works with so many threads.

    Examples
    --------
    >>> label("amd-epyc-9654", 1), label("amd-epyc-9654", 96)
    ('amd-epyc-9654-1-thread', 'amd-epyc-9654-96-threads')
    """
    return f"{name}-{threads}-thread{'' if threads == 1 else 's'}"


def processor_text(processor: Processor, name: str, threads: int, rows: Iterable[Row], date: str) -> str:
    """YAML of a device file for the processor.

    Parameters
    ----------
    processor : what was detected.
    name : name of the device, as in the rows.
    threads : cores that the rows used: the units of the device.
    rows : measured rows.
    date : day of the measurement.
    """
    found = _Best(rows)
    sources = {
        "system": f"detected: {processor.told}",
        "measured": f"fastest row of the table that `perfmodel measure` wrote on {date}",
        "isa": "cores x operations per cycle of the instruction set x clock, a lower estimate of the peak",
    }
    unit = 1.0 if threads >= processor.cores else threads / processor.cores
    memory: dict[str, Any] = {}
    for cache in processor.caches:
        if cache is processor.caches[-1] or cache.count < processor.cores:
            share = unit if cache.count >= processor.cores else 1.0
            memory[f"l{cache.level}"] = {"capacity": _fact(_bytes(cache.total * share), "measured", "system")}
        else:
            memory[f"l{cache.level}"] = {"capacity": _fact(_bytes(cache.size), "measured", "system"), "per": "unit"}
    note = "of the rows that read or wrote most; the rate on the datasheet is higher"
    memory["dram"] = {
        "capacity": _fact(_bytes(processor.memory), "measured", "system"),
        "bandwidth": _fact(f"{found.bandwidth('fp32') / 1e9:.4g} GB/s", "measured", "measured", note),
    }
    data: dict[str, Any] = {
        "name": name,
        "class": "cpu",
        "sources": sources,
        "notes": processor.name,
        "units": _fact(threads, "measured", "system", "cores in use, one thread each"),
    }
    if processor.clock:
        data["clock"] = _fact(f"{processor.clock / 1e9:.4g} GHz", "measured", "system", "as the system states it")
    data |= {"peak": _peaks(processor, threads, found), "memory": memory}
    return f"{MARK}\n{_yaml(data)}"


class _Best:
    """Fastest rows of a table."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = [row for row in rows if row.get("operator") in ("gemm", "elementwise")]

    def rate(self, dtype: str) -> float:
        """Highest rate of a matrix product [FLOP/s]; 0 where none was timed."""
        found = (r for r in self.rows if r["operator"] == "gemm" and r["dtype"] == dtype)
        return max(
            (2e6 * float(r["m"]) * float(r["n"]) * float(r["k"]) / float(r["time_us"]) for r in found), default=0
        )

    def bandwidth(self, dtype: str) -> float:
        """Highest rate at which operands came that no cache held [B/s]."""
        return max((_streamed(r) for r in self.rows if r["dtype"] == dtype or not dtype), default=0.0)


def _streamed(row: Row) -> float:
    """Bytes per second of a row that streams: a product with one row of activations, or an elementwise operation."""
    width = {"fp32": 4.0}.get(row["dtype"], 2.0)
    if row["operator"] == "elementwise":
        moved = float(row["bytes_read"]) + float(row["bytes_written"])
    elif row["m"] == "1" and row["weight_fits_l2"] == "0":
        moved = width * float(row["n"]) * float(row["k"])
    else:
        return 0.0
    return moved / float(row["time_us"]) * 1e6 if moved > _LARGE else 0.0


_LARGE = 8e6
"""Bytes below which caches may serve a call in part [B]."""


def _peaks(processor: Processor, threads: int, found: _Best) -> dict[str, dict[str, Fact]]:
    """Rates by unit and format: by instruction set and clock, or the fastest product where that is more."""
    per_cycle, instructions = flop_per_cycle(processor.flags)
    stated = threads * per_cycle * (processor.clock or 0.0)
    fp32 = _rate(stated, found.rate("fp32"), f"{per_cycle} FLOP per cycle and core ({instructions})")
    vector: dict[str, Fact] = {"fp32": fp32[1]}
    matrix: dict[str, Fact] = {}
    for name, ways in FASTER.items():
        way = next(((flag, times) for flag, times in ways if flag in processor.flags), None)
        best = found.rate(name)
        if way is None and best == 0.0:
            continue
        flag, times = way or ("no instruction", 1.0)
        fact = _rate(fp32[0] * times if way else 0.0, best, f"{times:g} times fp32 ({flag})")[1]
        (matrix if flag.startswith("amx") else vector)[name] = fact
    if found.rate("fp16"):
        vector["fp16"] = _rate(0.0, found.rate("fp16"), "")[1]
    return {name: rates for name, rates in (("matrix", matrix), ("vector", vector)) if rates}


def _rate(stated: float, best: float, note: str) -> tuple[float, Fact]:
    if best > stated:
        return best, _fact(f"{best / 1e12:.4g} TFLOP/s", "measured", "measured", "fastest product; the peak is higher")
    return stated, _fact(f"{stated / 1e12:.4g} TFLOP/s", "assumed", "isa", note)


def accelerator_text(
    facts: Mapping[str, Any], name: str, rows: Iterable[Row], date: str, clock: float | None = None
) -> str:
    """YAML of a device file for an accelerator that is not shipped.

    Parameters
    ----------
    facts : ``units``, ``memory`` and ``cache`` [B], ``label``, as the library tells them.
    clock : clock [Hz]; 1.5 GHz is assumed where it is not told.
    """
    found = _Best(rows)
    formats = [f for f in ("bf16", "fp16", "fp32") if found.rate(f)]
    lanes = 256.0 * facts["units"] * (clock or 1.5e9)
    best = "fastest product; the peak is higher"
    data = {
        "name": name,
        "class": "gpu",
        "sources": {
            "library": "what PyTorch tells about the device",
            "measured": f"fastest row of the table that `perfmodel measure` wrote on {date}",
            "guess": "128 fp32 lanes per unit, two operations each per cycle; 1.5 GHz where the clock is not told",
        },
        "notes": facts["label"],
        "units": _fact(int(facts["units"]), "measured", "library"),
        "peak": {
            "matrix": {f: _fact(f"{found.rate(f) / 1e12:.4g} TFLOP/s", "measured", "measured", best) for f in formats},
            "vector": {"fp32": _fact(f"{lanes / 1e12:.4g} TFLOP/s", "assumed", "guess")},
        },
        "memory": {
            "l2": {"capacity": _fact(_bytes(facts["cache"]), "measured", "library")},
            "hbm": {
                "capacity": _fact(_bytes(facts["memory"]), "measured", "library"),
                "bandwidth": _fact(f"{found.bandwidth('') / 1e9:.4g} GB/s", "measured", "measured"),
            },
        },
    }
    return f"{MARK}\n{_yaml(data)}"


def _fact(value: object, kind: str, source: str, note: str = "") -> Fact:
    return {"value": value, "kind": kind, "source": source} | ({"note": note} if note else {})


def _bytes(count: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.6g} {unit}"
    return f"{count / 1024:.6g} KiB"


def _yaml(data: Mapping[str, Any]) -> str:
    """YAML with every fact on one line."""
    lines: list[str] = []
    for key, value in data.items():
        _lines(key, value, 0, lines)
    return "\n".join(lines) + "\n"


def _lines(key: str, value: Any, depth: int, lines: list[str]) -> None:
    import json

    pad = "  " * depth
    if isinstance(value, dict) and "value" in value:
        inner = ", ".join(f"{k}: {json.dumps(v) if k == 'note' else v}" for k, v in value.items())
        lines.append(f"{pad}{key}: {{{inner}}}")
    elif isinstance(value, dict):
        lines.append(f"{pad}{key}:")
        for name, item in value.items():
            _lines(name, item, depth + 1, lines)
    else:
        lines.append(f"{pad}{key}: {value if key in ('class', 'per') else json.dumps(value)}")
