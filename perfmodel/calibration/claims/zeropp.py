"""Volumes of ZeRO-3 and ZeRO++, and their published rates on 384 V100."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

from perfmodel.calibration.claims.run import Run

__all__ = ["largest_error", "mean_error", "quarter_of_the_network", "volume_ratio"]

HIDDEN, VOCABULARY = 8192, 50432
BARS = {
    (400, 1): {18: (25, 35), 49: (23, 36), 91: (23, 36), 138: (23, 36)},
    (400, 2): {18: (40, 53), 49: (36, 51), 91: (36, 51), 138: (36, 50)},
    (100, 1): {18: (14, 31), 49: (11, 22), 91: (11, 22), 138: (11, 22)},
    (100, 2): {18: (26, 46), 49: (20, 38), 91: (20, 38), 138: (20, 38)},
    (200, 2): {18: (37, 50), 138: (32, 48)},
    (800, 2): {18: (47, 54), 138: (48, 55)},
}
"""TFLOP/s of a GPU with ZeRO-3 and ZeRO++, by billions of parameters; (Gb/s of a node, thousands of tokens)."""
INTERFACES = 8


def volume_ratio(run: Run) -> float:
    """Time on the links between nodes of ZeRO-3 over that of ZeRO++."""

    def travelling(name: str) -> float:
        rows = run.plan(name).terms
        return sum(row.busy_seconds for row in rows if row.name in ("weight gather", "gradient scatter"))

    return travelling("zero3") / travelling("zeropp")


@cache
def _rate(run: Run, network: int, thousands: int, billions: int, *, compressed: bool) -> float:
    """Rate of a GPU with recomputation counted [TFLOP/s]."""
    asked, tokens = run.asked("bar"), 1024 * thousands
    devices = asked.devices or 1
    columns = {**asked.columns, "micro_batch": thousands, "secondary_group": 16 if compressed else "all"}
    changes = {**asked.workload_changes, "global_batch": devices * tokens}
    network_changes = {"levels.pod.nics.bandwidth": f"{network / INTERFACES} Gb/s"}
    if compressed:
        columns["compressor"] = "zeropp"
    asked = asked.model_copy(update={"columns": columns, "workload_changes": changes, "changes": network_changes})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(_config(round(billions * 1e9 / (12 * HIDDEN**2)))), encoding="utf-8")
        found = run.estimate(asked, model=path)
    return 8.0 * found.model.architecture.parameters * tokens / found.plan.seconds / 1e12


def _config(layers: int) -> dict[str, object]:
    """Configuration of a GPT of that depth."""
    return {
        "model_type": "gpt_neox",
        "tie_word_embeddings": False,
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 64,
        "intermediate_size": 4 * HIDDEN,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
    }


def _errors(run: Run) -> list[float]:
    """Relative errors of all bars [1]."""
    return [
        abs(_rate(run, *setting, billions, compressed=compressed) / bar - 1.0)
        for setting, bars in BARS.items()
        for billions, pair in bars.items()
        for compressed, bar in zip((False, True), pair, strict=True)
    ]


def mean_error(run: Run) -> float:
    """Mean over the bars [1]."""
    errors = _errors(run)
    return sum(errors) / len(errors)


def largest_error(run: Run) -> float:
    """The worst bar [1]."""
    return max(_errors(run))


def quarter_of_the_network(run: Run) -> float:
    """Rate of ZeRO++ on a quarter of the network over that of ZeRO-3 on all of it."""
    return _rate(run, 200, 2, 138, compressed=True) / _rate(run, 800, 2, 138, compressed=False)
