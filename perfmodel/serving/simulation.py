"""Replicas behind a router, fed by a stream of requests: deterministic, in bounded memory, resumable."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal, Protocol

from perfmodel.serving.replica import Replica
from perfmodel.serving.request import Request
from perfmodel.serving.statistics import Totals
from perfmodel.specs.trace import Arrival

__all__ = ["ROUTERS", "Router", "Run", "Skipped", "drive", "route"]

Router = Literal["round-robin", "least-loaded", "cache-aware"]
ROUTERS: tuple[Router, ...] = ("round-robin", "least-loaded", "cache-aware")
IMBALANCE = 1.5
"""Load over the mean beyond which a cache-aware router sends elsewhere; assumed [1]."""
REPORT_EVERY = 2048


@dataclass
class Skipped:
    """Requests that no replica could answer, by reason."""

    empty: int = 0
    """Without a prompt or without an output."""
    too_long: int = 0
    """Longer than the model's context or than all KV blocks."""


@dataclass
class Run:
    """State of a simulation: everything that has to be kept to go on with it.

    Parameters
    ----------
    replicas : the replicas, which share ``totals``.
    totals : results.
    router : how requests are spread over the replicas.
    longest : most tokens of a request.
    """

    replicas: list[Replica]
    totals: Totals
    router: Router = "round-robin"
    longest: int = 1 << 60
    taken: int = 0
    skipped: Skipped = field(default_factory=Skipped)
    arrivals: array[float] = field(default_factory=lambda: array("d"))
    outstanding: array[float] = field(default_factory=lambda: array("d"))
    """Requests in the system found by every arrival."""

    @property
    def everyone(self) -> list[Replica]:
        """All replicas."""
        return self.replicas

    def holds(self, request: Request) -> bool:
        """Whether a request fits where it is alone."""
        total = request.prompt + request.output
        return total <= self.longest and self.replicas[0].pool.holds(total - 1)

    def take(self, request: Request) -> None:
        """Replicas reach the time of a request, one of them takes it."""
        everywhere = [] if self.router == "round-robin" else self.replicas
        for replica in everywhere:
            replica.advance(request.arrival)
        chosen = route(self.replicas, self.router, request)
        chosen.advance(request.arrival)
        alike = chosen.outstanding * len(self.replicas)
        self.outstanding.append(sum(r.outstanding for r in everywhere) if everywhere else alike)
        chosen.enqueue(request)

    def finish(self) -> None:
        """Let the replicas answer what they have."""
        for replica in self.replicas:
            replica.advance(inf)


def route(replicas: Sequence[Replica], router: Router, request: Request) -> Replica:
    """Choose a replica, all of them being at the time of the arrival unless they take turns."""
    if router == "round-robin" or len(replicas) == 1:
        return replicas[request.number % len(replicas)]
    shortest = min(replicas, key=lambda r: (r.outstanding, r.queued_tokens))
    if router == "least-loaded":
        return shortest
    best = max(replicas, key=lambda r: (r.pool.reusable(request, request.prompt), -r.outstanding))
    mean = sum(r.outstanding for r in replicas) / len(replicas)
    loaded = best.outstanding > IMBALANCE * mean + 1.0
    return shortest if loaded or not best.pool.reusable(request, request.prompt) else best


class Saving(Protocol):
    """Keeps a run, if it is time or ``now``."""

    def __call__(self, run: Run, *, now: bool = False) -> None:
        """Save."""
        ...


def drive(
    run: Run, arrivals: Iterator[Arrival], *, progress: Callable[[int], None] | None = None,
    save: Saving | None = None, stop: Callable[[], bool] | None = None, most: int | None = None,
) -> Run:  # fmt: skip
    """Feed all arrivals to the replicas and let them finish.

    Parameters
    ----------
    run : where to begin; its ``taken`` requests are read from ``arrivals`` and passed over.
    arrivals : requests in the order of their times.
    progress : called with the number of requests taken, every few thousand.
    save : called as often.
    stop : asked as often whether to save and raise ``KeyboardInterrupt``.
    most : stop after so many requests without letting the replicas finish (they are, at the end of the arrivals).
    """
    for _ in range(run.taken):
        if next(arrivals, None) is None:
            break
    for arrival in arrivals:
        _arrive(run, arrival)
        if most is not None and run.taken >= most:
            return run
        if run.taken % REPORT_EVERY:
            continue
        if progress is not None:
            progress(run.taken)
        interrupted = stop is not None and stop()
        if save is not None:
            save(run, now=interrupted)
        if interrupted:
            raise KeyboardInterrupt
    run.finish()
    return run


def _arrive(run: Run, arrival: Arrival) -> None:
    """One request comes, and is taken where it can be answered."""
    request = Request(run.taken, *arrival)
    if arrival.prompt < 1 or arrival.output < 1:
        run.skipped.empty += 1
    elif not run.holds(request):
        run.skipped.too_long += 1
    else:
        run.arrivals.append(arrival.seconds)
        run.take(request)
    run.taken += 1
