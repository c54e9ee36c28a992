"""Latent attention (MLA): context with keys and values of every head, generation on the shared latent.

One file holds both phases: the phase is part of the number format, so each has constants of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.calibration.model import Columns, Identity, Key, OperatorModel, Parameter, Unpredictable, positive_sizes
from perfmodel.calibration.operators.attention import STAND_INS, cache_format, compute_format
from perfmodel.elementwise import smooth_maximum
from perfmodel.machine.engine import Constants, Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.attention import attention, decode_attention
from perfmodel.units import Seconds

__all__ = ["MODEL"]

NOPE, VALUE = 128.0, 128.0
"""Widths of keys (beside the rotary part) and values of a head, as DeepSeek-V2 and -V3 have them (arXiv:2405.04434)."""
_PHASES = ("context", "generation")


def _read(row: Mapping[str, str]) -> tuple[Identity, Mapping[str, float]]:
    phase = row["phase"]
    if phase not in _PHASES:
        raise Unpredictable(f"phase {phase}")
    format, cache_bytes = cache_format(row)
    names = ("batch", "heads_local", "q_len", "kv_len", "kv_lora_rank", "rope_dim")
    sizes = positive_sizes(row, names)
    sizes["cache_bytes"] = cache_bytes
    kernel = row.get("kernel", "")
    return Identity(f"{phase} {format}", row["framework"], "" if kernel == "default" else kernel), sizes


def _predict(columns: Columns, engine: Engine, constants: Constants, format: str) -> Seconds:
    phase, used = format.split()[0], compute_format(format)
    batch, heads = columns["batch"], columns["heads_local"]
    if phase == "context":
        width = NOPE + columns["rope_dim"]
        work = attention(batch, heads, heads, width, VALUE, columns["q_len"], columns["kv_len"], format=used)
    else:
        rank = columns["kv_lora_rank"]
        work = decode_attention(
            batch,
            heads,
            1.0,
            rank + columns["rope_dim"],
            rank,
            columns["kv_len"],
            queries=columns["q_len"],
            kv_bytes=columns["cache_bytes"],
            latent=True,
            format=used,
        )
    seconds = kernel_time(work, engine.calibrated(work.operator, used, constants)).seconds
    return smooth_maximum(seconds, constants.host_floor, 6.0)


_CONTEXT = (
    Parameter("compute_fraction", 0.6, 0.02, 1.1, 0.5),
    Parameter("memory_fraction", 0.7, 0.05, 1.0, 0.3),
    Parameter("launch", 7e-6, 0.5e-6, 900e-6, 0.8, "s"),
    Parameter("prologue", 1.5e-6, 0.05e-6, 40e-6, 0.8, "s"),
    Parameter("corner", 2.5, 1.0, 6.0, 0.4),
    Parameter("ramp", 1e-6, 1e-9, 400e-6, 1.6, "s"),
    Parameter("row_floor", 64.0, 4.0, 256.0, 0.8),
)
_GENERATION = (
    Parameter("compute_fraction", 0.5, 0.02, 1.1, 0.5),
    Parameter("memory_fraction", 0.8, 0.05, 1.0, 0.3),
    Parameter("launch", 6e-6, 0.5e-6, 900e-6, 0.8, "s"),
    Parameter("kv_step", 0.07e-6, 0.002e-6, 5e-6, 0.7, "s"),
    Parameter("prologue", 4e-6, 0.05e-6, 40e-6, 0.8, "s"),
    Parameter("split_launch", 6e-6, 0.1e-6, 100e-6, 1.0, "s"),
    Parameter("corner", 2.5, 1.3, 6.0, 0.4),
    Parameter("row_cost", 0.2e-9, 0.001e-9, 20e-9, 1.0, "s"),
)
_HOST = Parameter("host_floor", 150e-6, 1e-7, 1e-3, 1.5, "s", artefact=True)


def _parameters(key: Key) -> tuple[Parameter, ...]:
    """Return the constants of a phase; vLLM's rows were launched one by one from the host."""
    found = _CONTEXT if key.format.startswith("context") else _GENERATION
    return (*found, _HOST) if key.variant.startswith("vllm") else found


MODEL = OperatorModel(
    name="mla",
    header=frozenset({"device", "phase", "dtype", "kv_dtype", "batch", "heads_local", "q_len", "kv_len", "time_us"}),
    read=_read,
    predict=_predict,
    parameters=_parameters,
    subsets={},
    stand_ins={f"{p} {f}": tuple(f"{p} {o}" for o in others) for p in _PHASES for f, others in STAND_INS.items()},
)
