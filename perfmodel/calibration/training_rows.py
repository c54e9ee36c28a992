"""Rows of training tables: from published columns to a model, a machine, a framework, a workload and a plan."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from perfmodel.calibration.subjects import Unpredictable
from perfmodel.calibration.training_sources import Entry, entry_of, sources
from perfmodel.specs.architecture import Architecture, Attention, Layer, Mlp, Moe, Run
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.techniques.sharding import ALL

__all__ = [
    "HEADER",
    "TrainingRow",
    "architecture_of",
    "entry_of",
    "network_per_node",
    "read_row",
    "sources",
    "training_rows",
]

HEADER = frozenset({"gpus", "gpu_type", "seq_len", "tp", "pp", "micro_batch", "global_batch", "step_time_s"})
"""Columns by which a table of training runs is recognised."""
POLICIES = {"none": 0.0, "0": 0.0, "no": 0.0, "selective": 1.0, "core": 1.0, "full": 2.0, "1": 2.0, "yes": 2.0}
GIB, GB = 2.0**30, 1e9
LENGTHS = {"seq_len": "the sequence length", "global_batch": "the global batch"}
DEFAULT_VOCABULARY = 51200


class Setup(NamedTuple):
    """Everything but the plan: rows with equal setups are predicted together."""

    architecture: Architecture
    cluster: str
    per_node: int
    node_bandwidth: float | None
    """Interfaces of one node, where the source states them [B/s]."""
    framework: str
    release: str
    compute: str
    recipe: str
    gradients: float
    fused: bool
    memory_of: str


@dataclass(frozen=True)
class TrainingRow:
    """One published run.

    Parameters
    ----------
    line : line in the file.
    case, origin, model, gpu, precision : as the file says.
    setup : what is predicted together.
    sequence, global_batch : tokens of a sequence, sequences of a step.
    columns : plan columns.
    step_time : measured [s], ``None`` where nothing gives it.
    memory : measured [B].
    failed : the run did not complete.
    fit : may calibrate its framework.
    unstated : columns that were assumed.
    """

    line: int
    case: str
    origin: str
    model: str
    gpu: str
    precision: str
    setup: Setup
    sequence: int
    global_batch: int
    columns: Mapping[str, float]
    step_time: float | None
    memory: float | None
    failed: bool = False
    fit: bool = True
    unstated: tuple[str, ...] = ()
    extra: Mapping[str, float] = field(default_factory=dict)


def _number(row: Mapping[str, str], name: str) -> float | None:
    text = row.get(name, "").strip()
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value


def _required(row: Mapping[str, str], name: str, what: str) -> int:
    value = _number(row, name)
    if value is None or value < 1 or value != int(value):
        raise Unpredictable(f"{what} is not stated")
    return int(value)


def architecture_of(row: Mapping[str, str]) -> Architecture:
    """The model of a row: its listed dimensions, else the model of that name.

    Raises
    ------
    Unpredictable
        If neither the dimensions nor a model file of that name exist.
    """
    if not row.get("hidden", "").strip():
        return _named(row.get("model_name", ""))
    hidden = _required(row, "hidden", "the hidden size")
    layers = int(_number(row, "layers") or _layers_from_size(row, hidden))
    heads = int(_number(row, "heads") or _usual_heads(hidden))
    kv = int(_number(row, "kv_heads") or heads)
    gated = (_number(row, "gated_mlp") or 0.0) > 0.0
    width = int(_number(row, "ffn_hidden") or (8 * hidden // 3 if gated else 4 * hidden))
    vocab = int(_number(row, "vocab") or DEFAULT_VOCABULARY)
    experts, top = _number(row, "experts"), _number(row, "experts_topk")
    dim = hidden // heads
    bias = 0 if gated else 1
    attention = Attention(hidden, heads, kv, dim, dim, extra=bias * (hidden + (heads + 2 * kv) * dim))
    ffn: Mlp | Moe = Mlp(hidden, width, gated, extra=bias * (width + hidden))
    if experts and experts > 1:
        ffn = Moe(hidden, int(experts), int(top or 2), width, gated)
    layer = Layer(attention, ffn, extra=2 * hidden * (1 + bias))
    untied = Architecture(
        family="llama" if gated else "gpt2",
        hidden=hidden,
        vocab=vocab,
        runs=(Run(layer, layers),),
        tied=False,
        extra=hidden * (1 + bias),
        dropout=not gated,
    )
    return replace(untied, tied=_tied(untied, row.get("tied", ""), _number(row, "params_b"), usual=not gated))


def _tied(untied: Architecture, stated: str, printed: float | None, *, usual: bool) -> bool:
    """Whether the printed size counts one table of the vocabulary rather than two; ``usual`` where it cannot tell."""
    table, size = untied.embedding_parameters, untied.parameters
    if stated.strip():
        return stated.strip() == "1"
    if printed is None or table < 0.04 * size:
        return usual
    return abs(printed * 1e9 - (size - table)) < abs(printed * 1e9 - size)


def _layers_from_size(row: Mapping[str, str], hidden: int) -> int:
    """Layers of a GPT whose parameters are printed, 12 h^2 each."""
    size = _number(row, "params_b")
    if size is None:
        raise Unpredictable("the number of layers is not stated")
    return max(1, round((size * 1e9 - (_number(row, "vocab") or DEFAULT_VOCABULARY) * hidden) / (12.0 * hidden**2)))


def _usual_heads(hidden: int) -> int:
    """Heads of width 128, or the next number that divides the hidden size."""
    heads = max(1, hidden // 128)
    while hidden % heads:
        heads -= 1
    return heads


@lru_cache(maxsize=256)
def _named(name: str) -> Architecture:
    bare = re.sub(r"\(.*?\)", "", name).strip()
    for entry in sources().models:
        if re.search(entry.name, bare, re.IGNORECASE):
            return load_model(find_model(entry.model)).architecture
    raise Unpredictable(f"no layers are listed and no model is called {bare or '(unnamed)'}")


def network_per_node(text: str) -> float | None:
    """Bandwidth of the interfaces of one node per direction as a table words it [B/s].

    Examples
    --------
    >>> network_per_node("RoCE 1600 Gb/s per node")
    200000000000.0
    >>> network_per_node("Slingshot-11 4x200Gb/s per node")
    100000000000.0
    >>> network_per_node("400 Gb/s RDMA per GPU") is None
    True
    """
    found = re.search(r"(?:(\d+)\s*x\s*)?([\d.]+)\s*Gb/s(?:[^,;]*?)per node", text)
    return None if found is None else float(found[1] or 1) * float(found[2]) * 1e9 / 8.0


def _compute(precision: str) -> str:
    text = precision.casefold()
    if "fp4" in text:
        return "nvfp4"
    if "fp8" in text:
        return "fp8"
    return "fp16" if "16" in text and "b" not in text else "bf16"


def _recipe(precision: str, notes: str) -> str:
    """Scaling of narrow formats: `mxfp8`, `fp8-cs`, `fp8-rowwise`, as far as the table says."""
    name = precision.split(" ")[0].casefold().replace("fp8-mx", "mxfp8")
    found = re.search("fp8-?(rowwise|tensorwise)", notes)
    return f"fp8-{found[1]}" if found and "fp8" in name else name


def _recompute(text: str, selective: str) -> float:
    policy = text.strip().casefold()
    if policy == "selective" and selective == "operators":
        return 3.0
    if "op" in policy and "selective" in policy:
        return 3.0
    if policy not in POLICIES:
        raise Unpredictable(f"recomputation {text!r} is not a known policy")
    return POLICIES[policy]


def _sharding(stage: float, shard: float | None) -> dict[str, float]:
    """Groups of a ZeRO stage; ``shard`` is the inner group of hybrid sharding."""
    weights, gradients, optimizer = (ALL if stage >= level else 1.0 for level in (3, 2, 1))
    if shard is not None and stage >= 3:
        weights = gradients = optimizer = shard
    return {
        "weights_group": weights,
        "secondary_group": weights,
        "gradients_group": gradients,
        "optimizer_group": optimizer,
    }


def read_row(line: int, row: Mapping[str, str]) -> TrainingRow:
    """Translate one row.

    Raises
    ------
    Unpredictable
        With the reason why there is no prediction.
    """
    if "INCONSISTENT" in row.get("notes", ""):
        raise Unpredictable("flagged INCONSISTENT by its source")
    if "LoRA" in row.get("notes", "") or "LoRA" in row.get("source", ""):
        raise Unpredictable("LoRA: most weights are frozen")
    if not re.search(r"gpu|[ABHVM]\d|GB\d|MI\d", row.get("gpu_type", ""), re.IGNORECASE):
        raise Unpredictable(f"no machine is known for {row.get('gpu_type') or 'an unnamed device'}")
    entry = entry_of(row)
    stated = {name: value for name, value in row.items() if value and value.strip()}
    unstated = tuple(name for name in entry.assume if name not in stated)
    full = _with_batch({**row, **{name: str(entry.assume[name]) for name in unstated}})
    architecture = architecture_of(full)
    columns = _columns(full, entry)
    sequence, batch = (_required(full, n, w) for n, w in LENGTHS.items())
    setup = _setup(full, entry, architecture)
    return TrainingRow(
        line=line,
        case=row.get("case_id", ""),
        origin=_origin(row.get("source", "")),
        model=row.get("model_name", ""),
        gpu=row.get("gpu_type", ""),
        precision=row.get("precision", ""),
        setup=setup,
        sequence=sequence,
        global_batch=batch,
        columns=columns,
        step_time=_step_time(full, architecture, sequence, batch),
        memory=_memory(full),
        failed=bool(re.search(r"crashed|OOM|timeout|hung", row.get("notes", ""))) and not row.get("step_time_s"),
        fit=entry.fit,
        unstated=unstated,
        extra={"mfu": _number(row, "mfu_pct") or float("nan")},
    )


def _with_batch(row: dict[str, str]) -> dict[str, str]:
    """The row with its global batch: micro-batches of all replicas, as often as a known recipe accumulates them."""
    often, replicas, micro = (_number(row, name) for name in ("accumulate", "dp", "micro_batch"))
    if row.get("global_batch", "").strip() or not (often and replicas and micro):
        return row
    return {**row, "global_batch": str(int(often * replicas * micro))}


def _origin(source: str) -> str:
    """Short name of who measured."""
    text = re.sub(r"^github\s+", "", source)
    return re.split(r"[\s:@(,#]", text, maxsplit=1)[0].strip("/") or "unnamed"


def _columns(row: Mapping[str, str], entry: Entry) -> dict[str, float]:
    gpus = _required(row, "gpus", "the number of devices")
    tp, cp, pp = (int(_number(row, name) or 1) for name in ("tp", "cp", "pp"))
    if not all(row.get(name, "").strip() for name in ("tp", "pp")) and not row.get("dp", "").strip():
        raise Unpredictable("the parallel layout is not stated")
    if not row.get("global_batch", "").strip():
        raise Unpredictable("the global batch is not stated")
    replicas = gpus / (tp * cp * pp)
    if replicas < 1 or replicas != int(replicas):
        raise Unpredictable("the parallel degrees do not multiply to the number of devices")
    batch = _required(row, "global_batch", "the global batch")
    micro = _number(row, "micro_batch") or 1.0
    shard = re.search(r"shard=(\d+)", row.get("notes", ""))
    experts = _experts(row, tp, int(replicas))
    layout = {
        "devices": float(gpus),
        "tp": float(tp),
        "sequence_parallel": 0.0 if row.get("sp", "").strip() == "0" and tp > 1 else 1.0,
        "cp": float(cp),
        "pp": float(pp),
        "virtual": max(1.0, _number(row, "vpp") or 1.0) if pp > 1 else 1.0,
        "micro_batch": min(micro, max(1.0, batch / replicas)),
        "recompute": _recompute(row.get("recompute") or "none", entry.selective),
    }
    return layout | experts | _sharding(_number(row, "zero_stage") or 0.0, float(shard[1]) if shard else None)


def _experts(row: Mapping[str, str], tp: int, replicas: int) -> dict[str, float]:
    """Ranks that share the experts: data ranks, and tensor ranks where each holds whole experts (`ETP=1`)."""
    ranks = int(_number(row, "ep") or 1)
    slices = re.search(r"ETP=(\d+)", row.get("notes", "")) or re.search(r"(\d+)", row.get("etp", ""))
    folded = min(tp // min(int(slices[1]), tp), ranks) if slices else 1
    return {"ep": float(max(1, min(ranks // folded, replicas))), "expert_tensor": float(folded)}


def _setup(row: Mapping[str, str], entry: Entry, architecture: Architecture) -> Setup:
    gpu, compute = row.get("gpu_type", ""), _compute(row.get("precision", ""))
    cluster = entry.cluster
    if cluster is None:
        size = row.get("gpu_mem_gb", "")
        machines = (m for m in sources().machines if re.search(m.memory, size))
        cluster = next((m.cluster for m in machines if re.search(m.gpu, gpu, re.IGNORECASE)), None)
    if cluster is None:
        raise Unpredictable(f"no machine is known for {gpu}")
    release = re.search(r"\((\d\d\.\d\d)(?:\.\d+)? NeMo Container|@ v(\d\d\.\d\d)", row.get("source", ""))
    flash = row.get("flash_attention", "").strip().casefold()
    fused = not (flash in ("0", "no") or flash.startswith("no "))
    if not flash and re.search("A100|V100", gpu) and "llm-foundry" not in row.get("source", ""):
        fused = False
    return Setup(
        architecture,
        cluster,
        int(_number(row, "gpus_per_node") or 8),
        network_per_node(row.get("inter_node_net", "")),
        entry.framework,
        entry.release or next((g for g in (release.groups() if release else ()) if g), ""),
        compute,
        _recipe(row.get("precision", ""), row.get("notes", "")),
        _number(row, "gradient_bytes") or (2.0 if compute == "fp16" else 4.0),
        fused,
        entry.memory_of,
    )


def _step_time(row: Mapping[str, str], architecture: Architecture, sequence: int, batch: int) -> float | None:
    """Measured step time: as printed, from tokens/s, or from hardware FLOP/s by the formula its source states [s]."""
    seconds = _number(row, "step_time_s")
    if seconds:
        return seconds
    tokens = sequence * batch
    rate = _number(row, "tokens_per_s_total")
    if rate:
        return tokens / rate
    tflops, gpus = _number(row, "tflops_per_gpu"), _number(row, "gpus")
    share = _number(row, "hfu_pct")
    definition = row.get("flops_definition", "")
    if not tflops and share and "A100" in row.get("gpu_type", ""):
        tflops = 3.12 * share
    if tflops and gpus and re.search(r"96\*?\s*B", definition):
        h, layers, s, vocab = architecture.hidden, architecture.layers, sequence, architecture.vocab
        flops = 96.0 * tokens * layers * h**2 * (1.0 + s / (6.0 * h) + vocab / (16.0 * layers * h))
        return flops / (tflops * 1e12 * gpus)
    return None


def _memory(row: Mapping[str, str]) -> float | None:
    value = _number(row, "peak_mem_gb")
    if value is None:
        return None
    notes = row.get("notes", "") + row.get("source", "")
    return value * (GIB if re.search(r"GiB|Korthikanti", notes) else GB)


def training_rows(path: Path) -> tuple[list[TrainingRow], dict[tuple[str, str, str], dict[str, int]]]:
    """Rows of a table that can be predicted, and the others counted by (source, device, format) and reason."""
    rows: list[TrainingRow] = []
    skipped: dict[tuple[str, str, str], dict[str, int]] = {}
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader: Iterable[dict[str, str]] = csv.DictReader(lines)
        for line, given in enumerate(reader, start=2):
            row = {name: value or "" for name, value in given.items() if name}
            try:
                rows.append(read_row(line, row))
            except Unpredictable as reason:
                key = (_origin(row.get("source", "")), row.get("gpu_type", ""), row.get("precision", ""))
                counts = skipped.setdefault(key, {})
                counts[str(reason)] = counts.get(str(reason), 0) + 1
    return rows, skipped
