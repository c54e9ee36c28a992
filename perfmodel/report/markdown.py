"""An answer as a Markdown file: everything the screen shows, all ledgers, all counts, the front, every source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perfmodel.api import Answers, Comparison, timeline
from perfmodel.report import tables, verdict
from perfmodel.report import timeline as drawing
from perfmodel.report.compare import changed_facts, changed_seconds
from perfmodel.report.hints import estimate_command, hints
from perfmodel.report.service import arrangement_sentence, latency_rows
from perfmodel.report.traffic import clock, sizing_sentences, time_rows
from perfmodel.report.words import (
    View,
    degrees_text,
    headline,
    machine_line,
    percent,
    shares,
    spaced,
    techniques_text,
    views,
    workload_line,
)
from perfmodel.solver.result import Answer, EvaluatedPlan
from perfmodel.units import format_number, format_seconds

__all__ = ["render", "tabled"]


def render(answers: Answers, command: str, compared: Comparison | None = None) -> str:
    """Return the report of an answer, and of the what-if that led to it."""
    seen = views(answers)
    text = [f"# {headline(answers.model)} on {answers.system.name}", ""]
    text += ["Made by", "", "```", command, "```", "", f"Machine: {machine_line(seen[0])}."]
    if compared is not None:
        text += _what_if(compared)
    for view, found in zip(seen, answers.answers, strict=True):
        text += _answer(view, found)
        text += _timeline(answers, view, found)
    text += _provenance(seen[0], answers.answers)
    asked = list(zip(seen, answers.answers, strict=True))
    text += ["", "## What to ask next", "", "```", *hints(asked), "```"]
    return "\n".join(text) + "\n"


def tabled(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; nothing where there are no rows."""
    body = [_row(row) for row in rows]
    left = ["---" if i == 0 else "---:" if h.endswith(_NUMBERS) else "---" for i, h in enumerate(head)]
    return ["", _row(head), _row(left), *body] if body else []


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


_NUMBERS = ("time", "share", "GiB", "seconds", "plans", "s/step", "before", "after", "value")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def _what_if(compared: Comparison) -> list[str]:
    text = ["", "## What if", "", *(f"- {line}" for line in changed_facts(compared))]
    pairs = zip(views(compared.before), compared.before.answers, compared.after.answers, strict=True)
    for view, before, after in pairs:
        text += ["", f"**{view.workload.name}**"]
        for when, found in (("before", before), ("after", after)):
            said = (
                verdict.impossible(view, found) if found.best is None else verdict.verdict(view, found.best, use="")[0]
            )
            text += ["", f"{when}: {said}"]
        if before.best is not None and after.best is not None:
            text += ["", verdict.difference(view, before.best, after.best)]
        terms = changed_seconds(compared, before.phase)
        text += [""] if terms else []
        text += [f"- {t}" for t in terms]
    return text


def _answer(view: View, found: Answer) -> list[str]:
    text = ["", f"## {view.workload.name}", "", _sentence(workload_line(view.workload))]
    if found.best is None:
        text += ["", f"**{verdict.impossible(view, found)}**"]
        for nearest in found.rejected[:1]:
            text += ["", "Nearest: " + verdict.rejected_sentence(view, nearest)]
        ways = verdict.remedies(view, found)
        text += ["", "Possible by", "", *(f"- {w}" for w in ways)] if ways else []
        for nearest in found.rejected[:1]:
            text += _details(view, nearest.plan)
    else:
        said = verdict.verdict(view, found.best)
        text += ["", f"**{said[0]}**", "", *said[1:]]
        text += [f"\n{line}" for line in verdict.running(view, found.best)]
        text += ["", f"Plan: {verdict.plan_line(view, found.best)}."]
        if found.best.pools is None:
            text += ["", "```", estimate_command(view, found.best), "```"]
        text += _details(view, found.best)
        text += _choice(view, found, found.best)
        if found.by_length is not None:
            text += ["", "### Sequences of unlike lengths", "", verdict.lengths_sentence(found.by_length)]
    return [*text, *_search(found), *_assumptions(found)]


def _details(view: View, plan: EvaluatedPlan) -> list[str]:
    latencies = latency_rows(plan)
    text = ["", "### Latencies", *tabled(("time", *latencies[0][1:]), latencies[1:])] if latencies else []
    text += ["", "### Where the time goes"]
    rows = [(r.name, tables.seconds_text(r), percent(r.share, 1), r.resource) for r in tables.time_rows(view, plan)]
    text += tabled(("term", "time", "share", "resource"), rows)
    text += ["", _sentence(verdict.bound_sentence(view, plan))]
    for name, terms in (plan.extra_terms or {}).items():
        rows = [
            (r.name, tables.seconds_text(r), percent(r.share, 1), r.resource) for r in tables.pass_rows(view, terms)
        ]
        text += ["", f"One {name} pass takes {format_seconds(sum(t.seconds for t in terms))}."]
        text += tabled(("term", "time", "share", "resource"), rows)
    text += ["", f"### Memory per {view.noun}"]
    for ledger in plan.ledgers:
        if len(plan.ledgers) > 1:
            text += ["", f"The {ledger.stage} stage:"]
        lines: list[tuple[str, str, str]] = []
        for tier in tables.ledger_rows(ledger):
            lines += [(tier.tier, name, size) for name, size in tier.lines]
            lines.append((tier.tier, f"**sum, of {tier.capacity} GiB ({percent(tier.share)})**", f"**{tier.total}**"))
        text += tabled(("memory", "what", "GiB"), lines)
    numbers = [(n, "not known" if v is None else format_number(v, 4)) for n, v in plan.metrics.items()]
    return [*text, "", "### All numbers", *tabled(("metric", "value"), numbers)]


def _timeline(answers: Answers, view: View, found: Answer) -> list[str]:
    """One step stage by stage, where there is more than one stage."""
    if found.best is None or found.phase != "training" or len(found.best.ledgers) < 2:
        return []
    drawn = timeline(answers.request, answers.model, answers.system, found.best, view.workload.name)
    once = f"One step of {format_seconds(drawn.seconds)}, a line per pipeline stage: {drawing.legend(drawn)}."
    return ["", "### Timeline", "", once, "", "```", *drawing.as_text(drawn), "```"]


def _choice(view: View, found: Answer, best: EvaluatedPlan) -> list[str]:
    text: list[str] = []
    if found.sizing is not None:
        text += ["", "### Over the time of the trace", "", *sizing_sentences(view, found.sizing)]
        hours = [
            (clock(s.start), format_number(s.rate), " + ".join(map(str, s.replicas)), f"{s.devices:,}")
            for s in time_rows(found.sizing)
        ]
        text += tabled(("from", "requests/s", "replicas", f"{view.noun}s"), hours)
    if found.scaling:
        rows = [(f"**{n}**" if c else n, s, e) for n, s, e, c in tables.scaling_rows(found)]
        text += ["", "### How many?", *tabled((f"{view.noun}s", "s/step", f"speed per {view.noun}"), rows)]
    if found.pareto:
        text += ["", "### Speed against efficiency"]
        text += tabled((*found.pareto_axes, "plan"), tables.front_rows(view, found))
    rivals = [
        (
            shares(r.score_ratio),
            degrees_text(r.plan.degrees, levels=False),
            techniques_text(r.plan),
            verdict.speed(view, r.plan),
            ", ".join(f"{n} +{format_seconds(s)}" for n, s in r.loses_on),
        )
        for r in found.runners_up
    ]
    if rivals:
        text += ["", "### Next best", *tabled(("behind", "degrees", "techniques", "speed", "loses on"), rivals)]
    if found.other_arrangement is not None:
        text += ["", "### Prefill and decode together or apart", ""]
        text += [f"The other way: {arrangement_sentence(view, best, found.other_arrangement)}."]
    if found.rejected:
        text += ["", "### Ruled out", ""]
        text += [
            f"- {verdict.rejected_sentence(view, r, best)} ({r.plans:,} plans fail on this alone)"
            for r in found.rejected
        ]
    return [*text, "", "### How sure?", "", *(f"- {line}" for line in verdict.confidence(found))]


def _search(found: Answer) -> list[str]:
    c = found.certificate
    text = ["", "### Search", "", verdict.search_sentence(found) + "."]
    text += tabled(("axis", "values"), [(n, f"{k:,}") for n, k in c.axes])
    rows = [(n, f"{k:,}", f"{c.rejected_alone.get(n, 0):,}") for n, k in c.rejected.items()]
    return [*text, *tabled(("constraint", "rejected plans", "alone plans"), rows)]


def _assumptions(found: Answer) -> list[str]:
    rows = [(spaced(what), f"`{flag}`") for what, flag in found.assumptions]
    return ["", "### Assumed", *tabled(("what", "changed by"), rows)]


def _provenance(view: View, answers: Sequence[Answer]) -> list[str]:
    rows = list(dict.fromkeys((spaced(what), kind, source) for a in answers for what, kind, source in a.provenance))
    counts = ", ".join(f"{n} {kind}" for kind, n in tables.fact_counts(view).items())
    text = ["", "## What the numbers stand on", "", f"Facts of the machine: {counts}. The decisive ones:"]
    return [*text, *tabled(("quantity", "kind", "source"), rows)]
