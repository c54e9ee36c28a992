"""How long a call takes: warm-up, repeats until the time is used, median and quartiles."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Call", "Sample", "Stopwatch", "Timing", "host_stopwatch", "timed"]

Call = Callable[[int], object]
"""Makes the call once; the number selects which copy of the operands it uses."""


class Sample(NamedTuple):
    """Seconds of a run of calls, and whether the system took the processor away meanwhile."""

    seconds: float
    disturbed: bool = False


Stopwatch = Callable[[Call, int], Callable[[], Sample]]
"""Given a call and a count, a function that makes the call that often and returns the seconds of all of them."""

SHORTEST = 100e-6
"""Least time between two readings of the clock: a hundred times what reading it costs [s]."""
FEWEST, MOST = 5, 101
FEWEST_LONG = 3
"""Samples of a call that alone takes a third of its budget."""
PATIENCE = 3.0
"""Times its budget that a row may take until it has five undisturbed samples."""
LONGEST_BATCH = 512


class Timing(NamedTuple):
    """Seconds of one call: median, quartiles; number of samples, of calls per sample, and of samples thrown away."""

    median: float
    low: float
    high: float
    samples: int
    calls: int
    disturbed: int


def host_stopwatch(threads: int) -> Stopwatch:
    """Time calls that return when they are done, operands rotating from one to the next.

    One thread is timed by the processor time it used, which other programs do not add to. Several threads wait for each
    other, so the clock on the wall counts, and a sample during which one of them lost its core is marked.
    """
    now = time.thread_time if threads == 1 else time.perf_counter
    switches: Callable[[], int] = (lambda: 0) if threads == 1 else _switches

    def stopwatch(call: Call, count: int) -> Callable[[], Sample]:
        at = 0

        def run() -> Sample:
            nonlocal at
            before, started = switches(), now()
            for i in range(at, at + count):
                call(i)
            seconds = now() - started
            at += count
            return Sample(seconds, switches() != before)

        return run

    return stopwatch


def _switches() -> int:
    """How often the system took a core away from this process; 0 where it does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def timed(call: Call, stopwatch: Stopwatch, budget: float) -> Timing:
    """Time a call for about ``budget`` seconds, with at least five samples (three of long calls).

    The first call pays for pages and code that nobody touched before and is thrown away, as is a fifth of the time.
    Disturbed samples are thrown away too, unless there are no others.
    """
    started = time.perf_counter()
    once = stopwatch(call, 1)
    once()
    guess = once().seconds
    calls = max(1, min(LONGEST_BATCH, math.ceil(SHORTEST / max(guess, 1e-9))))
    batch = stopwatch(call, calls)
    fewest = FEWEST if guess < budget / 3.0 else FEWEST_LONG
    while time.perf_counter() - started < 0.2 * budget:
        batch()
    good: list[float] = []
    bad: list[float] = []
    while len(good) < MOST:
        spent = time.perf_counter() - started
        enough = len(good) >= fewest or (len(good) + len(bad) >= fewest and spent > PATIENCE * budget)
        if spent > budget and enough:
            break
        sample = batch()
        (bad if sample.disturbed else good).append(sample.seconds / calls)
    found = good if len(good) >= fewest else sorted(good + bad)[:fewest]
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return Timing(middle, low, high, len(found), calls, len(bad))
