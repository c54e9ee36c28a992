"""What half of a cache gains, where the cache takes a given share of the time."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["amdahl", "smaller_cache"]

LONGEST = 65536


def _share(run: Run, tokens: int) -> float:
    """Share of a pass that attention takes at a prompt of so many tokens [1]."""
    plan = run.evaluate(run.asked("all_4"), workload_changes={"prompt": tokens, "output": 2})
    return sum(row.seconds for row in plan.terms if row.name == "attention") / plan.timed_seconds


def amdahl(run: Run, share: float) -> float:
    """Pass time over that with half of the tokens, at the prompt where attention takes ``share`` of the pass."""
    low, high = 16, LONGEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _share(run, middle) < share else (low, middle)
    lengths = {"prompt": high, "output": 2}
    whole, half = (run.evaluate(run.asked(p), workload_changes=lengths) for p in ("all_4", "half_4"))
    return whole.timed_seconds / half.timed_seconds


def smaller_cache(run: Run, plan: str, whole: str) -> float:
    """Bytes of the cache over those of a plan."""
    sizes = [sum(e.bytes for e in run.plan(p).ledgers[0].lines if e.name == "KV cache") for p in (whole, plan)]
    return float(sizes[0] / sizes[1])
