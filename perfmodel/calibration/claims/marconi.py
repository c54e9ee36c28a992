"""Size of a checkpoint of recurrent states beside keys and values, and what the simulated cache saves."""

from __future__ import annotations

from dataclasses import replace

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.state import key_value_bytes, recurrent_bytes
from perfmodel.services import simulate
from perfmodel.serving.arrivals import Synthetic
from perfmodel.specs.architecture import Architecture, StateSpace

__all__ = ["checkpoint_mb", "equivalent_tokens", "recomputed", "token_kib"]


def _architecture(run: Run) -> Architecture:
    """The model, its states without the inputs of their convolutions."""
    found = run.estimate(run.asked("cached")).model.architecture
    mixers = [(r, r.layer.mixer) for r in found.runs]
    runs = [
        r._replace(layer=replace(r.layer, mixer=replace(m, conv=0))) if isinstance(m, StateSpace) else r
        for r, m in mixers
    ]
    return replace(found, runs=tuple(runs))


def _checkpoint(run: Run) -> float:
    architecture = _architecture(run)
    return float(architecture.layers * recurrent_bytes(architecture, kv_split=1.0, state_bytes=2.0))


def _token(run: Run) -> float:
    architecture = _architecture(run)
    return float(architecture.layers * key_value_bytes(architecture, 1.0, kv_split=1.0, kv_bytes=2.0))


def checkpoint_mb(run: Run) -> float:
    """States of all layers in 16 bits [MB]."""
    return _checkpoint(run) / 1e6


def token_kib(run: Run) -> float:
    """Keys and values of one token [KiB]."""
    return _token(run) / 1024.0


def equivalent_tokens(run: Run) -> float:
    """Tokens whose keys and values are as large as a checkpoint."""
    return _checkpoint(run) / _token(run)


def recomputed(run: Run) -> float:
    """Mean time to the first token of requests with a common beginning, with the cache over without."""
    asked = run.asked("cached")
    means = []
    for cached in (True, False):
        load = Synthetic(2.0, 4096, 64, 40, shared_prefix=3584)
        found = simulate(
            str(asked.model),
            str(asked.hw),
            load,
            "batch",
            framework=asked.framework,
            prefix_cache=cached,
            hashed=load.hashed,
        )
        means.append(found.found.latencies["ttft"].mean)
    return means[0] / means[1]
