"""One question on several machines: a row each, then why, how near the bound, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perfmodel.api import Answers
from perfmodel.report import verdict
from perfmodel.report.screen import Line, Page
from perfmodel.report.words import degrees_text, headline, spaced, techniques_text, views
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.units import format_number, format_seconds

__all__ = ["data", "lines"]

SERVING = (
    ("tokens_per_second_per_user", "tokens/s/user"),
    ("output_tokens_per_second", "tokens/s"),
    ("output_tokens_per_second_per_device", "per device"),
    ("joules_per_output_token", "J/token"),
    ("usd_per_million_output_tokens", "$/1M"),
)
TRAINING = (
    ("step_seconds", "s/step"),
    ("tokens_per_second", "tokens/s"),
    ("tokens_per_second_per_device", "per device"),
    ("mfu", "MFU"),
    ("expected_cost_usd", "cost $"),
)


def data(found: Sequence[Answers]) -> list[dict[str, Any]]:
    """A row for each machine; ``null`` metrics where no plan is possible."""
    return [_row(answers) for answers in found]


def _row(answers: Answers) -> dict[str, Any]:
    answer = answers.answers[0]
    best = answer.best
    row: dict[str, Any] = {"machine": answers.system.name, "workload": answer.workload, "possible": best is not None}
    for name, _ in _metrics(answers):
        row[name] = best.metrics.get(name) if best else None
    if best is not None:
        row |= {"devices": best.devices, "columns": dict(best.columns), "bottleneck": best.bottleneck}
        row |= {"over_bound": best.timed_seconds / best.bound_seconds if best.bound_seconds else None}
        row |= {"runner_up": answer.certificate.runner_up_gap}
    return row


def _metrics(answers: Answers) -> tuple[tuple[str, str], ...]:
    return SERVING if answers.answers[0].phase == "serving" else TRAINING


def lines(found: Sequence[Answers], page: Page) -> list[Line]:
    """The table, and a block for each machine."""
    named = _metrics(found[0])
    title = Line("", f"{headline(found[0].model)}, {found[0].answers[0].workload}, on {len(found)} machines", "title")
    first = next((answers for answers in found if answers.answers[0].best), found[0])
    head = ("machine", "devices", *(text for _, text in named), f"per device × {first.system.name}")
    rows = [head, *(_cells(answers, named, first.answers[0].best) for answers in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    table = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    text = [title, *(Line("", line, "wide") for line in table)]
    for answers in found:
        text += page.block(answers.system.name[:12], _why(answers))
    return text


def _cells(answers: Answers, named: Sequence[tuple[str, str]], first: EvaluatedPlan | None) -> tuple[str, ...]:
    best = answers.answers[0].best
    if best is None:
        return (answers.system.name, "no plan", *("" for _ in named), "")
    values = [best.metrics.get(name) for name, _ in named]
    each = next(name for name, text in named if text == "per device")
    ratio = "" if first is None else f"{(best.metrics[each] or 0.0) / (first.metrics[each] or 1.0):.2f}"
    return (
        answers.system.name,
        f"{best.devices:,}",
        *("?" if v is None else format_number(v, 3) for v in values),
        ratio,
    )


def _why(answers: Answers) -> list[str]:
    """The plan, its largest terms, how near the bound it is, and the runner-up; or what binds."""
    answer, view = answers.answers[0], views(answers)[0]
    best = answer.best
    if best is None:
        return [verdict.impossible(view, answer), *verdict.remedies(view, answer)]
    terms = ", ".join(f"{spaced(r.name)} {r.share:.0%}" for r in best.terms[:3])
    bound = f"; {best.timed_seconds / best.bound_seconds:.2f} × the bound" if best.bound_seconds else ""
    said = [
        f"{techniques_text(best) or 'no technique'}: {terms} of {format_seconds(best.timed_seconds)}{bound}",
    ]
    if answer.runners_up:
        rival = answer.runners_up[0]
        loses = f", loses on {spaced(rival.loses_on[0][0])}" if rival.loses_on else ""
        other = techniques_text(rival.plan, beside=best) or degrees_text(rival.plan.degrees, levels=False)
        said.append(f"next best +{rival.score_ratio - 1.0:.1%}: {other or 'a detail'}{loses}")
    return said
