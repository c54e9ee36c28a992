"""An answer as lines of a terminal: a label column, a body that wraps, bars; the command line adds colours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from perfmodel.api import Answers, Comparison, Estimate
from perfmodel.insight.planner import EFFICIENT
from perfmodel.report import tables, verdict
from perfmodel.report.compare import changed_facts, changed_seconds
from perfmodel.report.hints import hints
from perfmodel.report.service import arrangement_sentence, latency_rows
from perfmodel.report.traffic import over_time, sizing_sentences
from perfmodel.report.words import (
    View,
    headline,
    machine_line,
    percent,
    spaced,
    views,
    workload_line,
)
from perfmodel.solver.result import Answer, EvaluatedPlan

__all__ = ["Line", "comparison", "estimate", "plan"]

LABEL = 13
BAR = 20
MOST_COUNTS = 7
MOST_TERMS = 9
LOSERS = 2
"""Plans that lost and plans ruled out, each; reports list more."""


class Line(NamedTuple):
    """One line of the screen: ``style`` is ``title``, ``verdict``, ``bar``, ``quiet``, ``bad``, ``wide`` or empty."""

    label: str
    text: str
    style: str = ""

    @property
    def plain(self) -> str:
        """The line without colours."""
        return (self.prefix + self.text).rstrip()

    @property
    def prefix(self) -> str:
        """The label column; nothing where the text takes the whole width."""
        return "" if self.style in ("title", "wide") and not self.label else f"{self.label:<{LABEL}}"


class Page(NamedTuple):
    """How wide the screen is and what bars are made of."""

    width: int
    full: str = "█"
    empty: str = "·"

    def block(self, label: str, texts: str | Iterable[str], style: str = "") -> list[Line]:
        """Wrap texts beside a label; each text starts a line of its own and hangs when it wraps."""
        lines: list[Line] = []
        for text in [texts] if isinstance(texts, str) else texts:
            lines += [Line("", part, style) for part in _wrap(text, self.width - LABEL)]
        return [lines[0]._replace(label=label), *lines[1:]] if lines else []

    def commands(self, label: str, texts: Iterable[str]) -> list[Line]:
        """Wrap commands so that they still work when pasted."""
        lines: list[Line] = []
        for text in texts:
            parts = textwrap.wrap(
                text, self.width - LABEL - 2, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
            )
            lines += [Line("", part + " \\", "quiet") for part in parts[:-1]] + [Line("", parts[-1], "quiet")]
        return [lines[0]._replace(label=label), *lines[1:]] if lines else []


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False) or [""]


BLANK = Line("", "")


def plan(found: Answers, page: Page) -> list[Line]:
    """The whole answer."""
    seen = views(found)
    lines = _title(page, seen[0])
    for view, answer in zip(seen, found.answers, strict=True):
        lines += [BLANK, *_answer(page, view, answer)]
    lines += [BLANK, *_stands_on(page, seen[0], found.answers)]
    return [*lines, *page.commands("try", hints(list(zip(seen, found.answers, strict=True))))]


def estimate(found: Estimate, page: Page) -> list[Line]:
    """One given plan; an illegal one is shown with what it breaks."""
    view = views(found)[0]
    lines = [*_title(page, view), BLANK, *_asked(page, view)]
    broken = verdict.illegal(view, found.plan)
    if broken:
        lines += page.block("ILLEGAL", [f"This plan cannot run: {'; '.join(broken)}.", "It would give:"], "bad")
    said = verdict.verdict(view, found.plan, use="" if broken else "Legal. ")
    lines += [*page.block("" if broken else "verdict", said[:1], "verdict"), *page.block("", said[1:])]
    lines += page.block("running", verdict.running(view, found.plan))
    return [*lines, *_details(page, view, found.plan)]


def comparison(found: Comparison, page: Page) -> list[Line]:
    """Before and after in short, then the answer after the change."""
    lines = page.block("WHAT IF", changed_facts(found) or ["nothing changes"], "title")
    pairs = zip(views(found.before), found.before.answers, found.after.answers, strict=True)
    for view, before, after in pairs:
        lines += [BLANK, *_compared(page, view, before, after)]
        terms = changed_seconds(found, before.phase)
        if terms:
            lines += page.block("changed", "; ".join(terms[:6]))
    return [*lines, BLANK, Line("", "With the change:", "title"), BLANK, *plan(found.after, page)]


def _compared(page: Page, view: View, before: Answer, after: Answer) -> list[Line]:
    lines = []
    for label, found in ((view.workload.name, before), ("  after", after)):
        if found.best is None:
            lines += page.block(label, verdict.impossible(view, found), "bad")
            continue
        text = verdict.verdict(view, found.best, use="")[0]
        lines += page.block(label, f"{text} {verdict.plan_line(view, found.best)}")
    if before.best is None or after.best is None:
        return lines
    return [*lines, *page.block("  so", verdict.difference(view, before.best, after.best), "verdict")]


def _title(page: Page, view: View) -> list[Line]:
    texts = (headline(view.model), machine_line(view))
    return [Line("", part, "title") for text in texts for part in _wrap(text, page.width)]


def _asked(page: Page, view: View) -> list[Line]:
    return page.block(view.workload.name.upper()[: LABEL - 1], workload_line(view.workload), "title")


def _answer(page: Page, view: View, found: Answer) -> list[Line]:
    lines = _asked(page, view)
    if found.best is None:
        return [*lines, *_impossible(page, view, found)]
    said = verdict.verdict(view, found.best)
    lines += [*page.block("verdict", said[0], "verdict"), *page.block("", said[1:])]
    lines += _details(page, view, found.best)
    if found.sizing is not None:
        lines += page.block("trace", sizing_sentences(view, found.sizing))
        lines += _labelled("over time", over_time(found.sizing, page.full, page.empty))
    lines += _how_many(page, view, found)
    rivals = [verdict.rival_sentence(view, found.best, r) for r in found.runners_up[:LOSERS]]
    lines += page.block("next best", rivals)
    if found.other_arrangement is not None:
        lines += page.block("or", arrangement_sentence(view, found.best, found.other_arrangement))
    if found.by_length is not None:
        lines += page.block("lengths", verdict.lengths_sentence(found.by_length))
    losers = [verdict.rejected_sentence(view, r, found.best) for r in found.rejected[:LOSERS]]
    lines += page.block("ruled out", losers)
    lines += page.block("sure?", "; ".join(verdict.confidence(found)))
    lines += page.block("search", verdict.search_sentence(found))
    return [*lines, *_assumed(page, found)]


def _details(page: Page, view: View, best: EvaluatedPlan) -> list[Line]:
    lines = page.block("plan", verdict.plan_line(view, best))
    latencies = latency_rows(best)
    if latencies:
        lines += _labelled("latencies", _columns([r[0] for r in latencies], [r[1:] for r in latencies]))
    lines += page.block("quality", verdict.quality(best))
    lines += _times(page, view, best)
    lines += page.block("", verdict.bound_sentence(view, best))
    return [*lines, *_memory(page, view, best)]


def _times(page: Page, view: View, best: EvaluatedPlan) -> list[Line]:
    rows = tables.time_rows(view, best, MOST_TERMS)
    longest = max((len(r.name) for r in rows), default=0)
    top = max((r.share for r in rows), default=1.0)
    beside = LABEL + longest + 22 + max((len(r.resource) for r in rows), default=0)
    full = min(BAR, max(page.width - beside, 4))
    lines = []
    for row in rows:
        filled = round(full * row.share / top)
        bar = page.full * filled + page.empty * (full - filled)
        text = (
            f"{row.name:<{longest}}  {bar}  {tables.seconds_text(row):>8}  {percent(row.share, 1):>6}  {row.resource}"
        )
        lines.append(Line("", text.rstrip(), "bar"))
    label = "time/step" if view.workload.kind == "training" else "time/token"
    return [lines[0]._replace(label=label), *lines[1:]] if lines else []


def _memory(page: Page, view: View, best: EvaluatedPlan) -> list[Line]:
    ledger = tables.fullest_ledger(best)
    if ledger is None:
        return []
    texts = []
    for row in tables.ledger_rows(ledger):
        parts = " + ".join(f"{name} {text}" for name, text in row.lines)
        total = f" = {row.total}" if len(row.lines) > 1 else ""
        texts.append(f"{row.tier}: {parts}{total} of {row.capacity} GiB ({percent(row.share)})")
    stage = "" if ledger.stage == "only" else f"{ledger.stage} stage, "
    return page.block("memory", [stage + texts[0], *texts[1:]])


def _how_many(page: Page, view: View, found: Answer) -> list[Line]:
    if found.scaling:
        return _scaling(page, view, found)
    rows = tables.front_rows(view, found, 6) if found.phase == "serving" else ()
    if len(rows) < 2:
        return []
    columns = list(zip(*rows, strict=True))
    names = ("tokens/s/user", f"per {view.noun}")
    lines = _columns(names, columns[:2])
    first, last = rows[0][2], rows[-1][2]
    note = f"output tokens/s per user against per {view.noun}: from {first} to {last}"
    return [*_labelled("trade-off", lines), *page.block("", note, "quiet")]


def _scaling(page: Page, view: View, found: Answer) -> list[Line]:
    rows = tables.scaling_rows(found, MOST_COUNTS)
    counts = [f"[{n}]" if chosen else n for n, _, _, chosen in rows]
    lines = _columns(
        (f"{view.noun}s", "s/step", "per " + view.noun), [counts, [r[1] for r in rows], [r[2] for r in rows]]
    )
    objective = found.certificate.objective
    rule = (
        f"the most that keep {percent(EFFICIENT)} of the best speed per {view.noun}"
        if objective == "time"
        else f"best {objective}"
    )
    note = f"[chosen]: {rule}; to differ: --devices N"
    return [*_labelled("how many?", lines), *page.block("", note, "quiet")]


def _columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    wide = max(len(n) for n in names)
    widths = [max(len(c) for c in column) for column in zip(*rows, strict=True)]
    return [
        f"{name:<{wide}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True))
        for name, row in zip(names, rows, strict=True)
    ]


def _labelled(label: str, texts: Sequence[str]) -> list[Line]:
    return [Line(label if i == 0 else "", t) for i, t in enumerate(texts)]


def _impossible(page: Page, view: View, found: Answer) -> list[Line]:
    lines = page.block("verdict", verdict.impossible(view, found), "bad")
    if found.rejected:
        nearest = found.rejected[0]
        lines += page.block("nearest", verdict.rejected_sentence(view, nearest))
        lines += _memory(page, view, nearest.plan)
    lines += page.block("possible by", verdict.remedies(view, found))
    lines += page.block("also fail", [verdict.rejected_sentence(view, r) for r in found.rejected[1:]])
    lines += page.block("search", verdict.search_sentence(found))
    return [*lines, *_assumed(page, found)]


def _assumed(page: Page, found: Answer) -> list[Line]:
    texts = [f"{spaced(text)} [{flag}]" for text, flag in found.assumptions]
    return page.block("assumed", "; ".join(texts), "quiet")


def _stands_on(page: Page, view: View, answers: Sequence[Answer]) -> list[Line]:
    rows = dict.fromkeys((what, kind) for a in answers for what, kind, _ in a.provenance)
    counts = ", ".join(f"{n} {kind}" for kind, n in tables.fact_counts(view).items())
    decisive = "; ".join(f"{spaced(what)} ({kind})" for what, kind in rows)
    return page.block("stands on", [f"{counts} facts of the machine; decisive: {decisive}"], "quiet")
