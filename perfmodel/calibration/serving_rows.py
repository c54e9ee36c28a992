"""Rows of serving tables: from published columns to a model, a machine, a framework, a request shape and a plan."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.serving_launches import (
    Drafting,
    Launch,
    drafting_of,
    launch_of,
    ranks_of,
    unlike_of,
)
from perfmodel.calibration.serving_sources import cache_format, cluster_of, framework_of, in_step, model_of, sources
from perfmodel.specs.architecture import Architecture, Attention, LatentAttention, Moe

__all__ = ["HEADER", "ServingRow", "Setup", "layout_of", "number", "origin_of", "read_row", "serving_rows"]

HEADER = frozenset({"model", "system", "framework", "isl", "osl", "concurrency", "tpot_ms"})
"""Columns that tell a table of closed-loop serving runs; layouts, formats and ``ttft_ms`` may be left out."""
MILLI = 1e-3
METRICS = ("tpot", "ttft", "throughput")
NARROWEST = 128.0
"""Columns of an expert's slice that quantised kernels work on: recorded degrees that leave less count a deployment."""
NODE = 8
"""Devices of one server: recorded layouts of a single replica do not exceed it outside rack-scale systems."""


class Setup(NamedTuple):
    """Everything but plan and request shape: rows with equal setups are predicted together."""

    architecture: Architecture
    cluster: str
    framework: str
    kv_format: str
    cap: float = 1.0
    """Share of the devices' power limit that they may draw [1]."""
    launch: Launch = Launch()
    """What the launch chose, where it is known."""


@dataclass(frozen=True)
class ServingRow:
    """One published serving run.

    Parameters
    ----------
    line : line in the file.
    origin, framework, device, dtype : as the file says.
    cohort : what a deployment is: framework and version, model, precision, system and day.
    setup : what is predicted together.
    prompt, output : tokens of a request.
    columns : plan columns; ``batch`` is the number of requests in flight on the replica.
    measured : ``tpot``, ``ttft`` [s] and ``throughput`` [output tokens/s], those that are stated.
    """

    line: int
    origin: str
    framework: str
    device: str
    dtype: str
    cohort: tuple[str, ...]
    setup: Setup
    prompt: float
    output: float
    columns: Mapping[str, float]
    measured: Mapping[str, float]
    mode: str = "closed"
    """How requests arrive: ``closed`` loop, ``static`` batch, or all at once to be served ``offline``."""
    drafts: bool = False
    """The model was released with a head that drafts tokens."""
    drafting: Drafting = ""
    """What its configuration says of drafted tokens."""
    unlike: str = ""
    """Why its kernels are known not to be the usual ones."""
    prefill: Mapping[str, float] | None = None
    """Plan columns of a prefill worker where workers are disaggregated: ``columns`` are then those of a decode worker,
    their batch all requests that clients have open."""
    in_step: bool = False
    """All requests begin and end together, round by round."""
    requests: float | None = None
    """All requests of an offline run; ``None`` for so many that only the full batch counts."""
    running: float | None = None
    """Requests that the harness lets one rank admit; ``None`` for what the engine does by itself."""
    workers: tuple[float, float] = (0.0, 1.0)
    """Prefill and decode workers."""


def number(row: Mapping[str, str], name: str) -> float:
    """Value of a column, 0 where it is blank or no number."""
    text = row.get(name, "").strip()
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return 0.0
    return value if 0.0 <= value < 1e12 else 0.0


def origin_of(row: Mapping[str, str]) -> str:
    """Who measured."""
    return re.split("[:@]", row.get("source", ""), maxsplit=1)[0] or "unnamed"


def _moe(architecture: Architecture) -> bool:
    return any(isinstance(run.layer.ffn, Moe) for run in architecture.runs)


def layout_of(row: Mapping[str, str], architecture: Architecture) -> dict[str, float]:
    """Plan columns of a recorded layout: ``tp``, ``ep`` (attention data ranks), ``expert_tensor``, ``pp``.

    Some dumps multiply the degree of tensor parallelism by that of expert parallelism; the identifier (``tp8_ep8``)
    then still says how many devices there were.

    Raises
    ------
    Unpredictable
        If the heads do not divide: the recorded degree is then the device count of a whole deployment.
    """
    tp, pp = max(1.0, number(row, "tp_size")), max(1.0, number(row, "pp_size"))
    experts = _moe(architecture)
    width, split = max(1.0, number(row, "moe_tp_size")), max(1.0, number(row, "moe_ep_size"))
    data = number(row, "attention_dp_size")
    shared = _batches(row)
    if not data and shared > 1.0 and tp % shared == 0.0:
        tp, data = tp / shared, shared
    data = data or _attention_data(row, tp, width * split if experts else 1.0)
    named = re.search(r"_tp(\d+)(?:_0)?_ep(\d+)(?:_|$)", row.get("id", ""))
    if named and experts:
        tp, data, split = _named(float(named[1]), float(named[2]), tp, data)
    elif tp > 1 and data > 1 and split == tp * data:
        data, split = 1.0, tp
    elif tp * data > NODE and tp * data == width * split and width == split:
        tp, data = (width, 1.0) if tp > 1 else (1.0, width)
    heads = [r.layer.mixer.heads for r in architecture.runs if isinstance(r.layer.mixer, (Attention, LatentAttention))]
    slices = min((r.layer.ffn.width for r in architecture.runs if isinstance(r.layer.ffn, Moe)), default=0) / width
    if any(h % tp for h in heads) or (tp > NODE and experts and slices < NARROWEST):
        raise Unpredictable("the recorded tensor ranks do not divide the heads: they count a whole deployment")
    ranks = tp * data
    split = min(split, ranks) if experts else 1.0
    return {"tp": tp, "ep": data if experts else 1.0, "expert_tensor": max(1.0, split / data), "pp": pp, "data": data}


def _attention_data(row: Mapping[str, str], tp: float, ranks: float) -> float:
    """Attention data ranks where nothing is recorded: ranks of the experts over those of attention."""
    return ranks / tp if ranks > tp and ranks % tp == 0 else 1.0


def _batches(row: Mapping[str, str]) -> float:
    """Batches that share the requests of the clients: data ranks of a replica, or replicas."""
    each = number(row, "batch_size")
    return number(row, "concurrency") / each if each else 1.0


def _named(devices: float, experts: float, tp: float, data: float) -> tuple[float, float, float]:
    """(tensor ranks, data ranks, expert ranks) of a replica of so many devices."""
    if tp == 1 and data > 1:
        return 1.0, devices, experts
    return devices, 1.0, experts


def read_row(line: int, row: Mapping[str, str]) -> ServingRow:
    """Translate one row.

    Raises
    ------
    Unpredictable
        With the reason why there is no prediction.
    """
    architecture = model_of(row)
    row = _completed(row)
    pools = row.get("mode") == "disagg"
    workers = _workers(row) if pools else (0.0, 1.0)
    layout = layout_of(_worker(row, "decode") if pools else row, architecture)
    prefill = layout_of(_worker(row, "prefill"), architecture) if pools else None
    data = layout.pop("data")
    batch = number(row, "concurrency") or number(row, "batch_size") * data
    if not pools and number(row, "attention_dp_size") == data == 1.0:
        batch /= max(1.0, _batches(row))  # replicas share the clients
    devices = workers[1] * _ranks(layout) + (workers[0] * _ranks(prefill) if prefill else 0.0)
    prompt, output = number(row, "isl"), number(row, "osl")
    if batch < 1 or prompt < 1 or output < 2:
        raise Unpredictable("the concurrency or the lengths are not stated")
    measured = _measured(row, batch, output)
    if not measured:
        raise Unpredictable("neither time is stated as a positive number")
    setup = Setup(
        architecture,
        cluster_of(row.get("system", ""), int(devices) if pools else 2),
        framework_of(row.get("framework", "")),
        cache_format(row),
        launch=launch_of(row),
    )
    names = ("framework", "backend_version", "model", "precision", "system", "measured_date")
    return ServingRow(
        line=line,
        origin=origin_of(row),
        framework=row.get("framework", ""),
        device=row.get("system", ""),
        dtype=row.get("precision", "") or "unstated",
        cohort=tuple(row.get(n, "") for n in names),
        setup=setup,
        prompt=prompt,
        output=output,
        columns={**layout, "batch": max(batch, data)},
        measured=measured,
        drafts=bool(re.search(sources().drafts, row.get("model", ""), re.IGNORECASE)),
        drafting=drafting_of(row),
        unlike=unlike_of(row),
        mode="pools" if pools else "closed",
        prefill=None if prefill is None else {n: v for n, v in prefill.items() if n != "data"},
        workers=workers,
        in_step=in_step(row),
    )


def _completed(row: Mapping[str, str]) -> Mapping[str, str]:
    """The row with the layout that it was launched with, where the table leaves it out."""
    ranks, dealt = row.get("tp_size", ""), ranks_of(row)
    if not dealt:
        return row
    row = {**row, "id": "", "moe_tp_size": "1", "moe_ep_size": ranks}
    return row if dealt == "expert ranks" else {**row, "tp_size": "1", "attention_dp_size": ranks}


def _worker(row: Mapping[str, str], pool: str) -> dict[str, str]:
    """A row that says of a replica what the given one says of a worker; its identifier tells nothing of workers."""
    own = {name.removeprefix(f"{pool}_"): value for name, value in row.items() if name.startswith(f"{pool}_")}
    return {**row, **own, "id": ""}


def _workers(row: Mapping[str, str]) -> tuple[float, float]:
    """Prefill and decode workers of a disaggregated deployment."""
    found = number(row, "prefill_num_workers"), number(row, "decode_num_workers")
    if min(found) < 1.0:
        raise Unpredictable("disaggregated, and the numbers of workers are not recorded: any batch is possible")
    return found


def _ranks(layout: Mapping[str, float]) -> float:
    return layout["tp"] * layout["ep"] * layout["pp"]


def _measured(row: Mapping[str, str], batch: float, output: float) -> dict[str, float]:
    tpot, ttft = number(row, "tpot_ms") * MILLI, number(row, "ttft_ms") * MILLI
    stated = {"tpot": tpot, "ttft": ttft}
    if tpot and ttft:
        stated["throughput"] = batch * output / (ttft + (output - 1.0) * tpot)
    return {name: value for name, value in stated.items() if value > 0.0}


Skipped = dict[tuple[str, str, str, str], dict[str, int]]
"""Rows by (source, framework, device, format) and reason."""


def serving_rows(
    path: Path, read: Callable[[int, Mapping[str, str]], ServingRow] = read_row
) -> tuple[list[ServingRow], Skipped]:
    """Rows that can be predicted, and the others counted by (source, framework, device, format) and reason."""
    rows: list[ServingRow] = []
    skipped: Skipped = {}
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader: Iterable[dict[str, str]] = csv.DictReader(lines)
        for line, given in enumerate(reader, start=2):
            row = {name: value or "" for name, value in given.items() if name}
            try:
                rows.append(read(line, row))
            except Unpredictable as reason:
                device = row.get("system", "") or row.get("gpu", "")
                dtype = row.get("precision", "") or row.get("dtype", "") or "unstated"
                key = (origin_of(row), row.get("framework", ""), device, dtype)
                counts = skipped.setdefault(key, {})
                counts[str(reason)] = counts.get(str(reason), 0) + 1
    return rows, skipped
