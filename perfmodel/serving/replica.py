"""One replica under load, iteration by iteration, with runs of alike iterations taken in one step.

Between two events (an arrival, a request that ends, blocks that run out, a knot of the tables) the decoding sequences
stay the same and their contexts grow by one token each iteration, so the times of the iterations are an arithmetic
series: how many fit before the event, and how long they take, has a closed form. The result is that of stepping
through them one by one.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush

from perfmodel.serving.pool import Pool
from perfmodel.serving.request import DECODING, DONE, PREFILLING, WAITING, Request
from perfmodel.serving.schedulers import Scheduler
from perfmodel.serving.series import started, whole_part
from perfmodel.serving.statistics import Totals
from perfmodel.serving.tables import IterationTables

__all__ = ["Replica"]

SLACK = 1e-7
"""Rounding of a count of tokens."""
SHARE_FIRST, SHARE_LEAST, SHARE_STEPS = 0.7, 0.098, 600
"""Share of what running requests may still produce that SGLang keeps free: at first, at least, and decode steps between
(``new_token_ratio``)."""


class Replica:
    """A replica with its waiting line, its running requests and its KV blocks.

    Parameters
    ----------
    tables : times of the iterations.
    scheduler : rules of the engine.
    pool : KV blocks, with the prefix cache.
    totals : where results go.
    admission_seconds : host time of every admission, added to its iteration [s].
    stepping : take every iteration by itself (for tests).
    """

    def __init__(
        self, tables: IterationTables, scheduler: Scheduler, pool: Pool, totals: Totals, *,
        admission_seconds: float = 0.0, stepping: bool = False,
    ) -> None:  # fmt: skip
        self.tables, self.scheduler, self.pool, self.totals = tables, scheduler, pool, totals
        self.admission_seconds, self.stepping = admission_seconds, stepping
        self.time = 0.0
        self.steps = 0
        """Tokens that every sequence decoding from the start would have gained."""
        self.passes = 0
        """Decode iterations; each gains ``tables.gain`` tokens on average, a whole number of them."""
        self.waiting: deque[Request] = deque()
        self.partial: list[Request] = []
        self.order: list[Request] = []
        self.ends: list[tuple[int, int, Request]] = []
        self.finished: list[Request] = []
        self.decoding = 0
        self.context = 0
        self.owed = 0
        """Tokens that decoding requests have still to produce."""
        self.queued_tokens = 0
        self.fresh = 0
        """Requests that the iteration at hand admits."""
        self.newcomers: list[Request] = []
        """Requests whose cache came along and that get a token of this replica for the first time."""
        self.share = SHARE_FIRST
        self.gaps: list[list[float]] = []
        """[sequences, seconds since their latest token] where prompts made decoding stand still."""

    @property
    def running(self) -> int:
        """Requests that hold a place."""
        return self.decoding + len(self.partial)

    @property
    def outstanding(self) -> int:
        """Requests here, waiting or running."""
        return self.running + len(self.waiting)

    def enqueue(self, request: Request, at: float | None = None) -> None:
        """Add a request to the end of the line, at its arrival or when its computed cache is here [s]."""
        if not self.running and not self.waiting:
            self.time = max(self.time, request.arrival if at is None else at)
        self.waiting.append(request)
        self.queued_tokens += request.prompt + request.output

    def advance(self, until: float) -> None:
        """Run every iteration that starts before ``until`` [s]."""
        while self.time < until and (self.decoding or self.partial or self.waiting):
            preempted = self._make_room()
            chunks, limit = self._chunks(admit=not preempted)
            if chunks:
                self._mixed(chunks, limit)
            elif self.decoding:
                self._decode(until, limit, alone=preempted)
            else:
                self._stuck()

    def _stuck(self) -> None:
        """Work that can neither start nor go on; cannot happen while every request fits alone."""
        raise RuntimeError("a replica with work neither decodes nor admits")

    # --- what the next iteration holds ---------------------------------------------------------------------------

    def _make_room(self) -> bool:
        """Preempt the newest until the next decode iteration has its blocks; whether anyone was."""
        if self.scheduler.reserve == "whole" or self.pool.free >= self.decoding * self._gained(1):
            return False
        preempted = False
        while self.pool.wanted(self.steps, self._gained(1)) > self.pool.available:
            self._preempt()
            preempted = True
        return preempted

    def _preempt(self) -> None:
        """Drop the newest running request's cache; it waits at the head of the line and computes all again."""
        while self.order[-1].state not in (PREFILLING, DECODING):
            self.order.pop()
        request = self.order.pop()
        if request.state == DECODING:
            context = request.base + self.steps
            request.made = context - request.prompt + 1
            request.latest = self.time if request.made else -1.0
            self.decoding -= 1
            self.context -= context
            self.owed -= request.ends - self.steps
            self.pool.leave(request, context, joined=True)
            if request in self.newcomers:
                self.newcomers.remove(request)
            elif self.gaps:
                self.gaps[-1][0] -= 1
        else:
            self.partial.remove(request)
            self.pool.leave(request, request.prompt + request.made, joined=False)
        request.state, request.computed, request.fetched = WAITING, 0, 0
        self.waiting.appendleft(request)
        self.totals.preemptions += 1
        self.share = SHARE_FIRST

    def _chunks(self, *, admit: bool) -> tuple[list[tuple[Request, int]], str]:
        """Chunks of the next iteration, partial prompts first, and what kept the next request out."""
        rules = self.scheduler
        if admit and not (self.partial or self.waiting or rules.together):
            self.fresh = 0
            return [], ""
        budget = rules.token_budget - (self.decoding if rules.mixed else 0)
        chunks: list[tuple[Request, int]] = []
        for request in self.partial:
            size = min(request.prompt + request.made - request.computed, budget)
            if size > 0:
                chunks.append((request, size))
                budget -= size
        self.fresh = 0
        if not admit or (rules.together and self.running):
            return chunks, "batch" if admit else "memory"
        while self.waiting:
            if self.running >= rules.max_sequences:
                return chunks, "sequences"
            if budget <= 0:
                return chunks, "budget"
            request = self.waiting[0]
            if request.computed:
                if not self._fits(request, request.computed, 0):
                    return chunks, "memory"
                self._take_over(self.waiting.popleft())
                budget -= 1
                continue
            target = request.prompt + request.made
            hit = self.pool.reusable(request, target)
            there = max(hit, request.fetched)
            size = target - there
            if size > budget:
                if not rules.chunked and (chunks or (rules.mixed and self.decoding)):
                    return chunks, "budget"
                size = min(size, budget) if rules.chunked else size
            if not self._fits(request, target, hit):
                return chunks, "memory"
            self.waiting.popleft()
            request.computed = there
            request.state = PREFILLING
            self.queued_tokens -= request.prompt + request.output
            self.partial.append(request)
            self.order.append(request)
            self.totals.admitted(target, hit)
            self.fresh += 1
            chunks.append((request, size))
            budget -= size
        return chunks, ""

    def _take_over(self, request: Request) -> None:
        """A request whose cache came along decodes at once, from its first token on or from its second."""
        self.queued_tokens -= request.prompt + request.output
        self.order.append(request)
        self.fresh += 1
        self._join(request, request.computed, request.output - request.made)
        self.newcomers.append(request)

    def _join(self, request: Request, context: int, left: int) -> None:
        """A request decodes from now on."""
        request.state = DECODING
        request.base = context - self.steps
        request.ends = self.steps + left
        heappush(self.ends, (request.ends, request.number, request))
        self.pool.join(request)
        self.decoding += 1
        self.context += context
        self.owed += left

    def _fits(self, request: Request, target: int, hit: int) -> bool:
        """Take the blocks of a request if the scheduler's rule allows."""
        whole = request.prompt + request.output - 1
        reserve = self.scheduler.reserve
        kept = 0.0
        if reserve == "share":
            owed = self.owed + sum(r.output - r.made for r in self.partial)
            kept = self.share * owed + (whole - target if self.running else 0)
        spare = self.pool.wanted(self.steps, self._gained(1)) + math.ceil(kept / self.pool.block)
        return self.pool.enter(request, whole if reserve == "whole" else target, hit, spare)

    # --- iterations ----------------------------------------------------------------------------------------------

    def _mixed(self, chunks: list[tuple[Request, int]], limit: str) -> None:
        """One iteration with prompts."""
        decoding = self.decoding if self.scheduler.mixed else 0
        tokens, pairs = 0, 0.0
        for request, size in chunks:
            tokens += size
            pairs += self.tables.pairs(request.prompt, request.computed, size)
            request.computed += size
        mean = self.context / decoding + 1.0 if decoding else 1.0
        seconds = self.tables.mixed_seconds(decoding, mean, tokens, pairs, len(chunks))
        seconds += self.admission_seconds * self.fresh
        self.time += seconds
        self.totals.iteration(seconds, decoding, tokens, self.pool, limit)
        if decoding:
            self._record_gaps(seconds, 0.0, 1)
            if self.newcomers:
                self._greet()
            self._count(1)
        elif self.decoding:
            for gap in self.gaps:
                gap[1] += seconds
        self._complete(chunks)
        if decoding:
            self._end()

    def _complete(self, chunks: list[tuple[Request, int]]) -> None:
        """Prompts that are through emit a token and decode from now on."""
        joined = 0
        for request, _ in chunks:
            target = request.prompt + request.made
            if request.computed < target:
                continue
            self.partial.remove(request)
            self.pool.computed(request)
            if request.first < 0.0:
                request.first = self.time
            if request.latest >= 0.0:
                self.totals.gaps.add(self.time - request.latest, 1)
                request.latest = -1.0
            left = request.output - request.made - 1
            if left <= 0:
                self._through(request, target)
                continue
            self._join(request, target, left)
            joined += 1
        if joined and not self.scheduler.mixed:
            self.gaps.append([joined, 0.0])

    def _through(self, request: Request, context: int) -> None:
        """A request wants nothing beyond its prompt."""
        self.pool.leave(request, context, joined=False)
        self._done(request)

    def _greet(self) -> None:
        """Requests whose cache came along have a token of this replica."""
        for request in self.newcomers:
            if request.first < 0.0:
                request.first = self.time
            else:
                self.totals.gaps.add(self.time - request.latest, 1)
            request.latest = -1.0
        self.newcomers.clear()

    def _decode(self, until: float, limit: str, *, alone: bool) -> None:
        """As many alike decode iterations as there are before something changes; one after a preemption.

        Where a falling share of what is owed decides who enters (SGLang), every iteration may let the next one in.
        """
        n = self.decoding
        gain = self.tables.gain
        first, slope, knot = self.tables.decode_line(n, self.context / n + 1.0)
        first += self.admission_seconds * self.fresh
        slope *= gain
        count = 1
        falling = limit == "memory" and self.scheduler.reserve == "share"
        alone = alone or self.stepping or falling or bool(self.newcomers)
        if not alone:
            count = self._needed(self.ends[0][0] - self.steps)
            if count > 1:
                room = self._needed(self.pool.lasting(self.steps) + 1) - 1
                count = min(count, room, whole_part((knot - self.context / n) / gain))
                count = max(min(count, started(until - self.time, first, slope, count)), 1)
        seconds = count * (first + 0.5 * slope * (count - 1))
        self.time += seconds
        self.totals.iteration(seconds, n, 0, self.pool, limit, count)
        self._record_gaps(first, slope, count)
        if self.newcomers:
            self._greet()
        self._count(count)
        self._end()

    def _gained(self, iterations: int) -> int:
        """Tokens that a sequence gains in the next decode iterations."""
        if self.tables.gain == 1.0:
            return iterations
        return math.floor((self.passes + iterations) * self.tables.gain + SLACK) - self.steps

    def _needed(self, tokens: int) -> int:
        """Decode iterations in which a sequence gains at least so many tokens."""
        if self.tables.gain == 1.0:
            return tokens
        return math.ceil((self.steps + tokens) / self.tables.gain - SLACK) - self.passes

    def _count(self, iterations: int) -> None:
        """Every decoding sequence is so many iterations further."""
        tokens = self._gained(iterations)
        self.pool.grow(self.steps, tokens)
        self.passes += iterations
        self.steps += tokens
        made = tokens * self.decoding
        self.context += made
        self.owed -= made
        if self.share > SHARE_LEAST:
            self.share = max(self.share - (SHARE_FIRST - SHARE_LEAST) / SHARE_STEPS * iterations, SHARE_LEAST)

    def _record_gaps(self, first: float, slope: float, count: int) -> None:
        """Times between tokens of the decoding sequences; those of one iteration count as spread over it."""
        gaps, gain = self.totals.gaps, self.tables.gain
        if gain != 1.0:
            last, beyond = first + slope * (count - 1), self._beyond(count)
            gaps.add(last / gain, -beyond)
            first, slope, count = first / gain, slope / gain**2.0, self._gained(count)
        new = len(self.newcomers)
        if new and count > 1:
            gaps.add_series(first, slope, count - 1, new)
        active = self.decoding - len(self.finished)
        if not self.scheduler.mixed:
            for sequences, waited in self.gaps:
                gaps.add(first + waited, int(sequences))
            first, count = (first + slope, count - 1) if self.gaps else (first, count)
            self.gaps = [[active, 0.0]]
        if count:
            gaps.add_series(first, slope, count, active - new)

    def _beyond(self, iterations: int) -> int:
        """Tokens of the last of so many iterations that requests no longer want."""
        steps = self.steps + self._gained(iterations)
        return sum(steps - end for end, _, r in self.ends if end < steps and r.state == DECODING and r.ends == end)

    def _end(self) -> None:
        """Requests that have their last token leave; a batch of static batching leaves as one."""
        ends, steps = self.ends, self.steps
        while ends and ends[0][0] <= steps:
            _, _, request = heappop(ends)
            if request.state != DECODING or request.ends > steps:
                continue
            self.owed += steps - request.ends
            if self.scheduler.together:
                request.state = DONE
                self.totals.finish(request, self.time)
                self.finished.append(request)
                continue
            context = request.base + steps
            self.decoding -= 1
            self.context -= context
            self.pool.leave(request, context, joined=True)
            self._done(request)
        while ends and (ends[0][2].state != DECODING or ends[0][2].ends != ends[0][0]):
            heappop(ends)
        if self.finished and not ends:
            for request in self.finished:
                self.pool.leave(request, request.base + steps, joined=True)
            self.finished.clear()
            self.decoding = self.context = self.owed = 0
        if len(self.gaps) == 1:
            self.gaps[0][0] = self.decoding - len(self.finished)

    def _done(self, request: Request) -> None:
        request.state = DONE
        self.totals.finish(request, self.time)
        self._forget()

    def _forget(self) -> None:
        """Keep only those in the order of admission that still run."""
        if len(self.order) > 64 + 2 * self.running:
            self.order = [r for r in self.order if r.state in (PREFILLING, DECODING)]
