"""Speed, overhead and saturation of heads that draft a tree."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["identity", "overhead", "pair", "saturation", "speedup"]


def speedup(run: Run, drafted: str, plain: str) -> float:
    """Tokens per second of a stream over those without drafts."""
    return run.metric(f"{plain}.tpot_seconds") / run.metric(f"{drafted}.tpot_seconds")


def overhead(run: Run, drafted: str, plain: str) -> float:
    """Time of a pass that verifies over one that does not."""
    return run.metric(f"{drafted}.pass_seconds") / run.metric(f"{plain}.pass_seconds")


def identity(run: Run, drafted: str, plain: str) -> float:
    """Speed over tokens per pass / overhead."""
    gained = run.metric(f"{drafted}.tokens_per_pass") / overhead(run, drafted, plain)
    return speedup(run, drafted, plain) / gained


def pair(run: Run, drafted: str, plain: str, tokens: float, overhead: float) -> float:
    """Speed of a plan carried over to other tokens per pass and another overhead."""
    here = run.metric(f"{drafted}.tokens_per_pass") * run.metric(f"{plain}.pass_seconds")
    return speedup(run, drafted, plain) * run.metric(f"{drafted}.pass_seconds") / here * tokens / overhead


def saturation(run: Run) -> float:
    """Gain in products at batch 64 over what the machine's intensity leaves: n* tokens take as long as the weights."""
    candidates = 64.0
    weights = run.busy("plain_7b", "matrix multiply")
    per_token = run.busy("heads_512", "matrix multiply") / (512.0 * candidates)
    tokens = run.metric("heads_64.tokens_per_pass")
    gain = tokens * run.busy("plain_64", "matrix multiply") / run.busy("heads_64", "matrix multiply")
    return gain / (tokens * weights / per_token / (64.0 * candidates))
