"""Long contexts as a screen and as data."""

from __future__ import annotations

from typing import Any

from perfmodel.contexts import LongContexts
from perfmodel.insight.longcontext import LongContext, Pair
from perfmodel.report.bounds import labelled, table
from perfmodel.report.screen import Line, Page
from perfmodel.report.words import headline
from perfmodel.units import format_bytes, format_seconds

__all__ = ["LONG_CONTEXT", "data", "lines"]

LONG_CONTEXT = "perfmodel.long-context/1"


def _times(pair: Pair | None) -> tuple[str, str]:
    return ("-", "-") if pair is None else (format_seconds(pair.bound), format_seconds(pair.modelled))


def _row(one: LongContext, which: int) -> tuple[str, ...]:
    """Numbers of one context, at their best (0) or as modelled (1)."""
    times = [_times(p)[which] for p in (one.prefill, one.decode, one.switch, one.session)]
    return (f"{one.context:,}", format_bytes(one.cache_bytes), f"{one.concurrency[which]:,.0f}", *times)


def lines(found: LongContexts, page: Page) -> list[Line]:
    """Four numbers per context, at their best and as modelled."""
    devices = found.contexts[0].devices
    on = f"{devices:g} device" + ("" if devices == 1 else "s")
    shown = [Line("", f"{headline(found.model)} on {found.system.name}, {on}", "title")]
    head = ("context", "cache", "users", "prompt", "answer", "switch", "session")
    for which, label in ((1, "modelled"), (0, "at best")):
        rows = [head, *(_row(one, which) for one in found.contexts)]
        shown += [Line("", ""), *labelled(label, table(rows))]
    last, names = found.contexts[-1], {"prefill": "the prompt", "decode": "the answer", "switch": "changing users"}
    fit = f"{last.concurrency.modelled:,.0f} user" + ("" if last.concurrency.modelled == 1 else "s")
    said = f"room for {fit} at {last.context:,} tokens; {names[last.binding]} takes most of a session"
    note = f"one user at a time, answers of {last.output} tokens; a switch brings one cache out and another in"
    return [*shown, *page.block("", note, "quiet"), Line("", ""), *page.block("verdict", said, "verdict")]


def _pair(pair: Pair | None) -> dict[str, float] | None:
    return None if pair is None else {"bound": pair.bound, "modelled": pair.modelled}


def data(found: LongContexts) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "schema": LONG_CONTEXT,
        "model": found.model.name,
        "machine": found.system.name,
        "columns": dict(found.columns),
        "contexts": [
            {
                "context": one.context,
                "output": one.output,
                "devices": one.devices,
                "cache_bytes": one.cache_bytes,
                "concurrency": _pair(one.concurrency),
                "prefill_seconds": _pair(one.prefill),
                "decode_seconds": _pair(one.decode),
                "switch_seconds": _pair(one.switch),
                "session_seconds": _pair(one.session),
                "binding": one.binding,
            }
            for one in found.contexts
        ],
    }
