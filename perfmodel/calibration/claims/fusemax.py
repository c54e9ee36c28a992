"""Passes over scores, and attention on the arrays of FLAT and FuseMax."""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.calibration.claims.run import Run
from perfmodel.machine import spatial
from perfmodel.operators.bounds import passes as cascades

__all__ = ["footprint_growth", "one_speedup", "passes", "speedup", "spilled"]

TILE = 256.0
BATCH = 64.0
LENGTHS = tuple(float(2**exponent) for exponent in range(10, 21, 2))


class Transformer(NamedTuple):
    """Widths of an encoder layer."""

    hidden: float
    heads: float
    head_dim: float
    inner: float


MODELS = {
    "BERT": Transformer(768, 12, 64, 3072),
    "TrXL": Transformer(1024, 16, 64, 4096),
    "T5": Transformer(512, 8, 64, 2048),
    "XLM": Transformer(2048, 16, 128, 8192),
}
"""As the artifact takes them (data/pregenerated/flat_validation.csv)."""


def passes(run: Run, algorithms: list[str]) -> float:
    """Passes of the cascade that has all of the algorithms; 0 if they are not in one."""
    del run
    return float(next((c.passes for c in cascades.CASCADES if set(algorithms) == set(c.algorithms)), 0))


def footprint_growth(run: Run, passes: float) -> float:
    """Live scores of one query with 2^20 keys over those with 2^10."""
    del run
    return float(cascades.live_footprint(passes, 2.0**20, TILE) / cascades.live_footprint(passes, 2.0**10, TILE))


def spilled(run: Run, passes: float) -> float:
    """Accesses of one score to slow memory where a row does not fit."""
    del run
    return float(cascades.spill_traffic(1.0, 2.0**20, passes, 2.0**16) / 2.0**20)


def one_speedup(run: Run, model: str, tokens: float, *, end_to_end: bool = False) -> float:
    """FLAT's time over FuseMax's for one layer of 64 sequences."""
    m, flat, fusemax = MODELS[model], run.engine("flat-cloud"), run.engine("fusemax")
    sizes = (BATCH * m.heads, tokens, tokens, m.head_dim)
    before, after = spatial.attention_three_pass(*sizes, flat), spatial.attention_one_pass(*sizes, fusemax)
    dense = 0.0
    if end_to_end:
        dense = 4.0 * BATCH * tokens * m.hidden * (2.0 * m.hidden + m.inner) / fusemax.peak("fp16")
    return float((before.seconds + dense) / (after.seconds + dense))


def speedup(run: Run, *, end_to_end: bool = False) -> float:
    """Mean over models and lengths."""
    found = [one_speedup(run, model, tokens, end_to_end=end_to_end) for model in MODELS for tokens in LENGTHS]
    return sum(found) / len(found)
