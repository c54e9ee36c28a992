"""A batch of unlike sequences on groups of several sizes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import perfmodel
from perfmodel.calibration.claims.run import Run, arguments, columns
from perfmodel.insight.lengths import MixedLengths
from perfmodel.specs.lengths import long_tail_lengths

__all__ = ["equal_lengths", "long_tail"]

LONGEST = 192 * 1024
GPT_7B = {
    "model_type": "gpt_neox",
    "tie_word_embeddings": False,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 64,
    "intermediate_size": 16384,
    "vocab_size": 50304,
    "max_position_embeddings": 262144,
}


def _assigned(run: Run, lengths: list[int], longest: int) -> MixedLengths:
    allowed = {"sequence": longest, "global_batch": longest}
    asked = run.asked().model_copy(update={"workload_changes": allowed})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(GPT_7B), encoding="utf-8")
        given = {**arguments(asked), "model": path}
        found: MixedLengths = perfmodel.assign_sequences(
            lengths=lengths, devices=asked.devices or 0, column="ulysses", columns=columns(asked), **given
        )
    return found


def long_tail(run: Run) -> float:
    """Time on groups of all devices over that on groups of their own."""
    lengths = long_tail_lengths(512, median=1100.0, sigma=1.3, longest=LONGEST)
    found = _assigned(run, lengths, LONGEST)
    return found.static[64].seconds / found.adaptive.seconds


def equal_lengths(run: Run) -> float:
    """The same where every sequence is as long as the others."""
    return _assigned(run, [24 * 1024] * 64, 24 * 1024).speedup
