"""Capacity of one node with and without storage, and how much of the step streamed states leave to computation."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from perfmodel.calibration.claims.run import Run

__all__ = ["devices_without_offload", "largest_on_one_node", "streaming_efficiency", "teraflops"]

HIDDEN = 25600
"""Width of the published model of a trillion parameters."""
VOCABULARY = 51200
STREAMS = ("weights to device", "gradients to host", "gradients added on host")


def streaming_efficiency(run: Run) -> float:
    """Passes without waiting for weights and gradients over passes with it, at 70 GB/s per device [1]."""
    plan = run.plan("streamed")
    once = ("host optimizer", "optimizer", "gradients to host", "weights from host", "gradient sync", "step overhead")
    passes = sum(row.seconds for row in plan.terms if row.name not in once)
    return 1.0 - run.exposed("streamed", *STREAMS) / passes


def _config(layers: int) -> dict[str, object]:
    """Configuration of a GPT of that depth."""
    return {
        "model_type": "gpt_neox",
        "tie_word_embeddings": True,
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 160,
        "intermediate_size": 4 * HIDDEN,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
    }


def largest_on_one_node(run: Run, plan: str) -> float:
    """Parameters of the deepest GPT of width 25,600 that the plan holds on one node [1e9]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"

        def fits(layers: int) -> bool:
            path.write_text(json.dumps(_config(layers)), encoding="utf-8")
            return run.evaluate(run.asked(plan), model=path).legal

        fitting, too_deep = 0, 1024
        while too_deep - fitting > 1:
            middle = (fitting + too_deep) // 2
            fitting, too_deep = (middle, too_deep) if fits(middle) else (fitting, middle)
    return (12.0 * fitting * HIDDEN**2 + HIDDEN * VOCABULARY) / 1e9


def devices_without_offload(run: Run) -> float:
    """Fewest devices, in whole nodes, that hold a trillion parameters with every state sharded."""
    asked = run.asked("resident")
    for nodes in range(16, 129):
        devices = 16 * nodes
        batch = devices // 16 * 1024
        changes = {**asked.workload_changes, "global_batch": batch}
        if run.evaluate(asked.model_copy(update={"devices": devices, "workload_changes": changes})).legal:
            return float(devices)
    return float("inf")


def teraflops(run: Run) -> float:
    """Rate per device with recomputation counted, as the paper does: 8 operations per parameter and token [TFLOP/s]."""
    found = run.estimate(run.asked("training"))
    rate = found.plan.metrics["tokens_per_second_per_device"] or 0.0
    return 8.0 * found.model.architecture.parameters * rate / 1e12
