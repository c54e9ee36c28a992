"""Latency limits of a service: on means, or on the share of requests that a percentile says."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import model_validator

from perfmodel.specs.facts import FieldError, Spec
from perfmodel.specs.quantities import Percentile, Seconds

__all__ = ["LATENCIES", "Limit", "Slo"]


class Limit(NamedTuple):
    """One latency limit.

    Parameters
    ----------
    name : as constraints are called: ``TTFT``, ``TPOT p90``.
    quantity : ``ttft``, ``tpot``, ``e2e`` or ``tbt``.
    percentile : share of the requests (of the tokens, for ``tbt``) within it, in percent; ``None`` limits the mean.
    field : of :class:`Slo`.
    seconds : the limit [s].
    """

    name: str
    quantity: str
    percentile: float | None
    field: str
    seconds: float


LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end-to-end", "tbt": "TBT"}
"""Latencies that may be limited, as people call them: to the first token, per later token, of a request, of a gap."""


class Slo(Spec):
    """Latency a request may have; what is left out is not limited.

    Limits without a percentile are on the mean, unless ``percentile`` says which share of the requests they hold for.
    """

    ttft: Seconds | None = None
    """Time to first token [s]."""
    tpot: Seconds | None = None
    """Mean time per later token of a request [s]."""
    e2e: Seconds | None = None
    """From arrival to the last token [s]."""
    percentile: Percentile | None = None
    """Share of the requests for which the three limits above hold, in percent."""
    ttft_p90: Seconds | None = None
    ttft_p95: Seconds | None = None
    ttft_p99: Seconds | None = None
    tpot_p90: Seconds | None = None
    tpot_p95: Seconds | None = None
    tpot_p99: Seconds | None = None
    e2e_p90: Seconds | None = None
    e2e_p95: Seconds | None = None
    e2e_p99: Seconds | None = None
    tbt_p99: Seconds | None = None
    """Time between two tokens of a request, over all tokens [s]."""

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Every limit that is set."""
        found = []
        for field, seconds in self:
            quantity, _, share = field.partition("_p")
            if seconds is None or quantity not in LATENCIES:
                continue
            percentile = float(share) if share else self.percentile
            name = LATENCIES[quantity] + (f" p{percentile:g}" if percentile else "")
            found.append(Limit(name, quantity, percentile, field, seconds))
        return tuple(found)

    def limit(self, name: str) -> Limit | None:
        """The limit that a constraint of that name stands for."""
        return next((limit for limit in self.limits if limit.name == name), None)

    @model_validator(mode="after")
    def _something_limited(self) -> Slo:
        if self.percentile is not None and not self.limits:
            raise FieldError("a percentile of no limit; set ttft, tpot or e2e", ("percentile",))
        return self
