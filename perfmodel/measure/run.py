"""The loop: time what is not in the table yet until everything is done or the time is used."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from perfmodel.measure.backend import Backend
from perfmodel.measure.jobs import Job
from perfmodel.measure.table import Table
from perfmodel.measure.timer import Call, timed

__all__ = ["Outcome", "measure"]

LONGEST_ROW = 0.5
"""Time spent on one row, however much is left [s]."""
SHORTEST_ROW = 0.02
SHARE = 0.03
"""A row whose five calls would take more than this share of the time limit is left out."""
DRIFT_EVERY = 3.0
"""Time between two readings of the reference product [s]."""
STEADY = 0.10
"""Drift beyond which a row counts as measured on an unsteady clock."""

Progress = Callable[[int, int, str], None]
"""Told after every row: rows done, rows in all, what comes next."""


@dataclass
class Outcome:
    """What a run did.

    Parameters
    ----------
    added : rows written.
    known : rows that were in the table before.
    left : jobs the time limit did not reach.
    too_long, too_large : jobs left out, one call being too long for the time limit or its operands too large.
    failed : jobs the library could not run, with its reason.
    drift : lowest and highest time of the reference product, relative to its first time.
    seconds : time it took.
    interrupted : whether the user ended it.
    """

    added: int = 0
    known: int = 0
    left: int = 0
    too_long: int = 0
    too_large: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    drift: tuple[float, float] = (1.0, 1.0)
    seconds: float = 0.0
    interrupted: bool = False


class _Reference:
    """A call that is timed again and again: tells how steady the clock of the machine is."""

    def __init__(self, backend: Backend, dtype: str) -> None:
        self.backend, job = backend, backend.reference(dtype)
        self.call: Call = backend.prepare(job).call
        self.first = self.seconds()
        self.rate = job.flops / self.first or 1.0
        self.now, self.at = 1.0, time.monotonic()
        self.low = self.high = 1.0

    def seconds(self) -> float:
        """Time of one product."""
        return timed(self.call, self.backend.stopwatch, 0.05).median

    def drift(self) -> float:
        """Time of the product relative to its first time, not older than a few seconds."""
        if time.monotonic() - self.at > DRIFT_EVERY:
            self.now, self.at = self.seconds() / self.first, time.monotonic()
            self.low, self.high = min(self.low, self.now), max(self.high, self.now)
        return self.now


class _Speed:
    """Guess of how long a job takes, from those timed so far; pessimistic until something was timed."""

    def __init__(self, flops: float) -> None:
        self.flops, self.bytes = flops, 2e9

    def guess(self, job: Job) -> float:
        """Seconds of one call."""
        return job.flops / self.flops + job.moved / self.bytes

    def learn(self, job: Job, seconds: float) -> None:
        """Take in a time."""
        self.flops = max(self.flops, job.flops / seconds)
        self.bytes = max(self.bytes, job.moved / seconds)


def measure(
    jobs: Sequence[Job],
    backend: Backend,
    table: Table,
    *,
    limit: float,
    source: str,
    date: str,
    progress: Progress | None = None,
) -> Outcome:
    """Time the jobs that the table does not hold yet.

    Parameters
    ----------
    jobs : what to time, most telling first.
    backend : library and device.
    table : where rows go, each as soon as it is there.
    limit : time to use [s].
    source, date : columns of the rows.

    Returns
    -------
    Outcome
        Also when the user interrupts: every finished row is in the table.
    """
    started = time.monotonic()
    outcome = Outcome()
    waiting = [job for job in jobs if not table.has(job)]
    outcome.known = len(jobs) - len(waiting)
    if not waiting:
        return outcome
    collecting = gc.isenabled()
    gc.disable()
    try:
        _all(waiting, backend, table, outcome, started + limit, limit, {"source": source, "date": date}, progress)
    except KeyboardInterrupt:
        outcome.interrupted = True
        outcome.left = len(waiting) - _finished(outcome)
    finally:
        if collecting:
            gc.enable()
        outcome.seconds = time.monotonic() - started
    return outcome


def _finished(outcome: Outcome) -> int:
    return outcome.added + outcome.too_long + outcome.too_large + len(outcome.failed)


def _all(
    waiting: Sequence[Job],
    backend: Backend,
    table: Table,
    outcome: Outcome,
    deadline: float,
    limit: float,
    about: dict[str, str],
    progress: Progress | None,
) -> None:
    reference = _Reference(backend, waiting[0].dtype)
    speed = _Speed(reference.rate)
    for number, job in enumerate(waiting):
        left = deadline - time.monotonic()
        if left <= 0.0:
            outcome.left = len(waiting) - number
            break
        if progress is not None:
            progress(number, len(waiting), _label(job))
        if 5.0 * speed.guess(job) > max(SHARE * limit, SHORTEST_ROW):
            outcome.too_long += 1
        elif 3.0 * (job.moved + job.rotated) > backend.room:
            outcome.too_large += 1
        else:
            share = 0.8 * left / (len(waiting) - number)
            budget = min(max(share, SHORTEST_ROW), LONGEST_ROW)
            _one(job, backend, table, outcome, budget, {**about, "drift": reference.drift()}, speed)
        outcome.drift = (reference.low, reference.high)
    if progress is not None:
        progress(len(waiting), len(waiting), "")


def _one(
    job: Job, backend: Backend, table: Table, outcome: Outcome, budget: float, about: dict[str, Any], speed: _Speed
) -> None:
    """Time one job and write its row; what the library cannot do is noted, and nothing is written."""
    try:
        prepared = backend.prepare(job)
        timing = timed(prepared.call, backend.stopwatch, budget)
    except (RuntimeError, MemoryError, ValueError, TypeError) as error:
        outcome.failed[_label(job)] = (str(error).strip() or type(error).__name__).splitlines()[0]
        return
    speed.learn(job, timing.median)
    resident = int(prepared.resident)
    fits = {"gemm": {"weight_fits_l2": resident, "includes_act_quant": 0}, "decode_attention": {"kv_fits_l2": resident}}
    row: dict[str, Any] = {"operator": job.operator, "dtype": job.dtype, "kernel": prepared.kernel, **job.sizes}
    row |= fits.get(job.operator, {})
    row |= {"time_us": timing.median * 1e6, "low_us": timing.low * 1e6, "high_us": timing.high * 1e6}
    table.append({**row, "n_samples": timing.samples, "calls": timing.calls, "disturbed": timing.disturbed, **about})
    outcome.added += 1


def _label(job: Job) -> str:
    shown = [str(value) for name, value in job.sizes.items() if name not in ("bytes_read", "bytes_written", "kv_dtype")]
    return f"{job.operator} {job.dtype} {' '.join(shown)}"


def unsteady(rows: Iterable[dict[str, str]]) -> int:
    """Rows measured while the reference product was more than a tenth off its first time."""
    found = [float(row["drift"]) for row in rows if row["drift"]]
    return sum(1 for drift in found if abs(drift - 1.0) > STEADY)
