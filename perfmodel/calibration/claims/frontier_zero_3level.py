"""What the three-level claim computes beyond ratios of speeds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from perfmodel.calibration.claims.run import Run

__all__ = ["largest_in_a_pair", "model_states", "solver_prefers_three_levels"]

HIDDEN = 8192
"""Width of the models whose depth is varied."""


def solver_prefers_three_levels(run: Run) -> float:
    """Whether the solver, free to choose among the three schemes and their variants, takes (2, 8, all).

    It may shard weights over the pair or over all, gradients over the node or over all, with any second copy, with
    16-bit or quantised wires.
    """
    best = run.solve(run.asked(), weights_group=[2, "all"], gradients_group=[8, "all"], tp=1, pp=1, cp=1)
    if best is None:
        return 0.0
    chosen = best.columns["weights_group"], best.columns["gradients_group"]
    return float(chosen == (2.0, 8.0) and best.columns["optimizer_group"] > run.asked().devices)


def model_states(run: Run) -> float:
    """Weights, gradients and optimizer state of the three-level plan [GB per GCD]."""
    lines = run.plan("three").ledgers[0].lines
    return sum(line.bytes for line in lines if line.name in ("weights", "gradients", "optimizer")) / 1e9


def largest_in_a_pair(run: Run) -> float:
    """Parameters of the deepest GPT of width 8192 that the three-level plan still holds [1e9]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"

        def fits(layers: int) -> bool:
            path.write_text(json.dumps(_config(layers)), encoding="utf-8")
            return run.evaluate(run.asked("three"), model=path).legal

        fitting, too_deep = 1, 256
        while too_deep - fitting > 1:
            middle = (fitting + too_deep) // 2
            fitting, too_deep = (middle, too_deep) if fits(middle) else (fitting, middle)
    return (12.0 * fitting * HIDDEN**2 + 2.0 * HIDDEN * 50432) / 1e9


def _config(layers: int) -> dict[str, object]:
    """Configuration of a GPT-NeoX of that depth."""
    return {
        "model_type": "gpt_neox",
        "tie_word_embeddings": False,
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 64,
        "intermediate_size": 4 * HIDDEN,
        "vocab_size": 50432,
        "max_position_embeddings": 2048,
    }
