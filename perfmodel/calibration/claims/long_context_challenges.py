"""The four numbers of long contexts, through the public function."""

from __future__ import annotations

from functools import lru_cache

import perfmodel
from perfmodel.calibration.claims.run import Run
from perfmodel.contexts import LongContexts
from perfmodel.insight.longcontext import LongContext

__all__ = ["at_best", "cache_gb", "fewer_users"]


@lru_cache(maxsize=16)
def _found(context: int, tp: int, asked: tuple[str, str, str, tuple[tuple[str, str], ...]]) -> LongContext:
    model, hw, framework, changes = asked
    found: LongContexts = perfmodel.long_context(
        model, hw, (context,), output=250, columns={"tp": tp}, changes=dict(changes), framework=framework
    )
    return found.contexts[0]


def _one(run: Run, context: int, tp: int = 1) -> LongContext:
    asked = run.asked()
    changes = tuple((str(n), str(v)) for n, v in asked.changes.items())
    return _found(context, tp, (str(asked.model), str(asked.hw), str(asked.framework), changes))


def at_best(run: Run, context: int, number: str) -> float:
    """Lower bound of one of the times [s]."""
    return float(getattr(_one(run, context), number).bound)


def cache_gb(run: Run, context: int) -> float:
    """Cache of one user [GB]."""
    return _one(run, context).cache_bytes / 1e9


def fewer_users(run: Run, short: int, long: int) -> float:
    """Users of a short context over users of a long one, at best, on two devices."""
    return _one(run, short, tp=2).concurrency.bound / _one(run, long, tp=2).concurrency.bound
