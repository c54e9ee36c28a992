"""Operations and traffic of tokens that pass one of two modules."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.operators.work import Work
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model

__all__ = ["operations", "prompt", "time", "traffic"]


def _products(run: Run, share: float, tokens: float) -> list[Work]:
    """Products of the feed-forward of one layer."""
    architecture = load_model(find_model(str(run.asked().model))).architecture
    sizes = Sizes(sequences=tokens, queries=1.0, context=1.0, through_mlp=share)
    return [c.work for c in layer_calls(architecture, sizes) if c.component == "mlp"]


def operations(run: Run, share: float) -> float:
    """Operations with a share of the tokens over those with all."""
    some, every = (sum(float(w.flops) for w in _products(run, s, 64.0)) for s in (share, 1.0))
    return some / every


def traffic(run: Run, share: float, tokens: float) -> float:
    """Bytes that must cross with a share of the tokens over those with all."""
    some, every = (sum(float(w.compulsory_bytes) for w in _products(run, s, tokens)) for s in (share, 1.0))
    return some / every


def _plan(run: Run, **columns: float) -> EvaluatedPlan:
    asked = run.asked()
    return run.evaluate(asked.model_copy(update={"columns": {**asked.columns, **columns}}))


def time(run: Run, batch: float, large: float, small: float) -> float:
    """Time of a decode pass over that in which every token passes the feed-forward."""
    adaptive = _plan(run, batch=batch, through_large=large, through_small=small)
    return adaptive.timed_seconds / _plan(run, batch=batch).timed_seconds


def prompt(run: Run, large: float, small: float) -> float:
    """Time to the first token of a lone request over that in which every token passes the feed-forward."""
    adaptive = _plan(run, through_large=large, through_small=small)
    return float(adaptive.metrics["ttft_seconds"] or 0.0) / float(_plan(run).metrics["ttft_seconds"] or 1.0)
