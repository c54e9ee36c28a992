"""Requests, prices, batches and bytes of attention on other devices, read from plans and machines."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from perfmodel.api import Request, load
from perfmodel.calibration.claims.claim import Asked
from perfmodel.calibration.claims.run import Run
from perfmodel.insight.setting import Question
from perfmodel.machine.build import Machine, build_machine

__all__ = ["batch_ratio", "hourly", "least_link", "requests_in", "step_bytes"]

ON_H20 = {"attention_engine": "h20", "sub_batches": 1}
H100_HOUR, H100_MEMORY = "11.06 USD/h", "80 GB"
ONE_H20 = {"node.engines.h20.per_accelerator": 1}
MODELS = {
    "65B": ({"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "intermediate_size": 22016}, 2),
    "33B": ({"hidden_size": 6656, "num_hidden_layers": 60, "num_attention_heads": 52, "intermediate_size": 17920}, 1),
}
"""Sizes of LLaMA (arXiv:2302.13971), and H100 of Lamina's pool; half as many more in the pool of one kind."""


def _cache(run: Run, tokens: int) -> float:
    """Bytes of the cache of one request, from the ledger of a plan [B]."""
    asked = run.asked().model_copy(
        update={"columns": {**ON_H20, "batch": 1}, "workload_changes": {"prompt": tokens - 1, "output": 1}}
    )
    ledger = run.evaluate(asked).ledgers[0]
    return sum(line.bytes for line in ledger.lines if line.name == "KV cache")


def requests_in(run: Run, size: float, tokens: int) -> float:
    """Requests of so many tokens whose cache fills ``size`` bytes."""
    return size / _cache(run, tokens)


def hourly(run: Run, hw: str, devices: int) -> float:
    """Rental of devices with the engines beside them [USD/h]."""
    del run
    request = Request("llama-3.1-70b", hw, "batch", Question(), {"accelerator.price.hour": H100_HOUR})
    system = load(request)[1]
    alone = system.cluster.model_copy(update={"price": None})
    machine = build_machine(type(system)(**{**vars(system), "cluster": alone}))
    return float(machine.price or 0.0) * 3600.0 * devices


def _room(run: Run, hw: str, model: str | Path, **columns: object) -> float:
    """Cached tokens that fit, under the memory share of a serving engine."""
    changes = {"accelerator.memory.hbm.capacity": H100_MEMORY}
    asked = run.asked().model_copy(update={"hw": hw, "columns": {**columns, "batch": 1}, "changes": changes})
    plan = run.evaluate(asked, model=model, framework="vllm")
    return float(plan.metrics["kv_tokens_capacity"] or 0.0)


def batch_ratio(run: Run) -> float:
    """Cached tokens with attention on H20 over those of H100 alone at about the same cost, mean of three models [1]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        ratios = [_ratio(run, "llama-3.1-70b", 2)]
        for config, nodes in MODELS.values():
            kind = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 2048}
            path.write_text(json.dumps({**kind, "tie_word_embeddings": False, **config}), encoding="utf-8")
            ratios.append(_ratio(run, path, nodes))
    return sum(ratios) / len(ratios)


def _ratio(run: Run, model: str | Path, nodes: int) -> float:
    """Of a pool of ``nodes`` H100 with two H20 each over twice as many H100."""
    offloaded = _room(run, "lamina-h100-h20", model, **ON_H20, tp=nodes)
    return offloaded / _room(run, "h100-4x", model, tp=2 * nodes)


def step_bytes(run: Run, batch: int, tokens: int) -> float:
    """Bytes that cross to the attention devices and back in a decode step [MB]."""
    seconds, machine = _crossing(run, batch, tokens)
    engine = machine.engine("h20")
    return float((seconds - 2.0 * 80.0 * engine.link_latency) * (engine.link or 0.0)) / 1e6


def _crossing(run: Run, batch: int, tokens: int) -> tuple[float, Machine]:
    asked = _one_of_each(run, batch, tokens)
    plan = run.evaluate(asked)
    busy = sum(row.busy_seconds for row in plan.terms if row.name == "to attention engine")
    return busy, build_machine(run.estimate(asked).system)


def _one_of_each(run: Run, batch: int, tokens: int) -> Asked:
    return run.asked().model_copy(
        update={
            "columns": {**ON_H20, "batch": batch},
            "workload_changes": {"prompt": tokens - 1, "output": 2},
            "changes": ONE_H20,
        }
    )


def least_link(run: Run, batch: int, tokens: int, alpha: float, *, ideal: bool = False) -> float:
    """Bandwidth at which crossing takes ``alpha`` of the rest of a decode pass [GB/s].

    ``ideal`` takes the rest by its bound: products at peak rates, bytes at full bandwidth.
    """
    plan = run.evaluate(_one_of_each(run, batch, tokens))
    crossing = sum(row.busy_seconds for row in plan.terms if row.name == "to attention engine")
    rest = plan.bound_seconds if ideal else plan.timed_seconds - crossing
    return step_bytes(run, batch, tokens) * 1e6 / (alpha * rest) / 1e9
