"""Recurrent states beside keys and values."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.state import cache_bytes, key_value_bytes, recurrent_bytes
from perfmodel.specs.architecture import Architecture

__all__ = ["at_crossover", "growth"]


def _architecture(run: Run) -> Architecture:
    return run.estimate(run.asked("any")).model.architecture


def at_crossover(run: Run) -> float:
    """Cache of a text whose keys and values are as large as the states, over the states."""
    model = _architecture(run)
    states = float(recurrent_bytes(model, kv_split=1.0))
    tokens = states / float(key_value_bytes(model, 1.0, kv_split=1.0, kv_bytes=2.0))
    return float(cache_bytes(model, tokens, kv_split=1.0, kv_bytes=2.0)) / states


def growth(run: Run) -> float:
    """What of the cache is no keys and values, for a long text over a short one."""
    model = _architecture(run)
    long, short = (
        float(cache_bytes(model, n, kv_split=1.0, kv_bytes=2.0) - key_value_bytes(model, n, kv_split=1.0, kv_bytes=2.0))
        for n in (1e6, 1e3)
    )
    return long / short
