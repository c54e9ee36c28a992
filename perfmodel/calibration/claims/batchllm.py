"""A group of requests that share a prefix, against the same without reuse."""

from __future__ import annotations

from typing import Any

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model

__all__ = ["held_once", "operations", "read_once", "residency"]

GROUP, PREFIX, OWN = 16, 2000, 200


def _changed(run: Run, **changes: Any) -> Any:
    asked = run.claim.common
    return asked.model_copy(update={"workload_changes": {**asked.workload_changes, **changes}})


def operations(run: Run) -> float:
    """Products of prompts with sharing over those without, attention cores left out."""
    architecture = load_model(find_model(str(run.claim.common.model))).architecture

    def products(tokens: float) -> float:
        sizes = Sizes(sequences=1.0, queries=tokens, context=tokens)
        return sum(float(c.work.flops * c.share) for c in layer_calls(architecture, sizes) if c.work.operator == "gemm")

    return (products(PREFIX) + GROUP * products(OWN)) / (GROUP * products(PREFIX + OWN))


def _cache(run: Run, **changes: Any) -> float:
    plan = run.evaluate(_changed(run, **changes).model_copy(update={"columns": {"batch": GROUP}}))
    (ledger,) = plan.ledgers
    return sum(float(line.bytes) for line in ledger.lines if line.name == "KV cache")


def residency(run: Run) -> float:
    """Cache of a group whose prefix is held once over that of as many requests that share nothing."""
    return _cache(run, shared_prefix=PREFIX) / _cache(run)


def held_once(run: Run) -> float:
    """Gain of computing and holding the prefix once, while every sequence reads it for itself."""
    return _speedup(run, 0)


def read_once(run: Run) -> float:
    """Gain where a group reads its prefix once, too."""
    return _speedup(run, 1)


def _speedup(run: Run, together: int) -> float:
    """Time of a group without reuse over that with its prefix computed once."""
    asked = _changed(run, shared_prefix=PREFIX)
    shared = run.solve(asked.model_copy(update={"columns": {"prefix_together": together}}))
    alone = run.solve(_changed(run))
    once = run.evaluate(_changed(run, prompt=PREFIX, output=1).model_copy(update={"columns": {"batch": 1}}))
    if alone is None or shared is None:
        raise ValueError("no plan fits")
    prefix = sum(row.seconds for row in (once.extra_terms or {})["prefill"])
    each = [1.0 / (plan.metrics["requests_per_second"] or 1.0) for plan in (alone, shared)]
    return GROUP * each[0] / (GROUP * each[1] + prefix)
