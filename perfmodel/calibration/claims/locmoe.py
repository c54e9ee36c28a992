"""What routing to near experts saves."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["consistency", "exchange_share", "saved"]


def saved(run: Run) -> float:
    """Share of the step that is gone."""
    return 1.0 - run.metric("near.step_seconds") / run.metric("uniform.step_seconds")


def exchange_share(run: Run) -> float:
    """What the exchange of tokens takes of a step with a router that does not care where experts are."""
    return _exchange(run, "uniform") / run.metric("uniform.step_seconds")


def consistency(run: Run) -> float:
    """The same over what the exchange takes of the step times how much shorter it became."""
    before, after = (_exchange(run, name) for name in ("uniform", "near"))
    return saved(run) / (exchange_share(run) * (1.0 - after / before))


def _exchange(run: Run, plan: str) -> float:
    return sum(row.seconds for row in run.plan(plan).terms if row.name == "expert exchange")
