"""Cache, prompts and throughput of models whose layers share keys and values."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["prompt", "smaller", "throughput"]


def _cache(run: Run, plan: str) -> float:
    return float(sum(e.bytes for e in run.plan(plan).ledgers[0].lines if e.name == "KV cache"))


def smaller(run: Run, plan: str) -> float:
    """Cache of the standard model over that of a plan."""
    return _cache(run, "own") / _cache(run, plan)


def prompt(run: Run, plan: str) -> float:
    """Time of the layers of a prompt over that of the standard model, products and attention."""
    return _prompt(run, plan) / _prompt(run, "own")


def _prompt(run: Run, plan: str) -> float:
    rows = (run.plan(plan).extra_terms or {})["prefill"]
    return sum(r.seconds for r in rows if r.name in ("matrix multiply", "attention"))


def throughput(run: Run, plan: str, against: str) -> float:
    """Output tokens per second of the best batch over those of another plan."""
    best = [run.solve(run.asked(p), **({"cross_layer_kv": "cla-2"} if p == plan else {})) for p in (plan, against)]
    rates = [0.0 if b is None else float(b.metrics["output_tokens_per_second"] or 0.0) for b in best]
    return rates[0] / rates[1]
