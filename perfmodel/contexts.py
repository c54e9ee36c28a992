"""The library for long contexts: four numbers for any model on any machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfmodel.api import Request, load, plan_columns, settings_of
from perfmodel.errors import SpecError
from perfmodel.insight.longcontext import LongContext
from perfmodel.insight.longcontext import long_context as measure
from perfmodel.insight.setting import Question
from perfmodel.specs.model import Model
from perfmodel.specs.system import System

__all__ = ["LongContexts", "long_context"]


@dataclass(frozen=True)
class LongContexts:
    """Users at a time, prompt, answer and change of users, for several contexts."""

    model: Model
    system: System
    columns: Mapping[str, Any]
    contexts: tuple[LongContext, ...]


def long_context(
    model: str | Path,
    hw: str | Path,
    contexts: Sequence[int] = (4096, 32768, 131072),
    *,
    output: int = 250,
    columns: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> LongContexts:
    """Say what long contexts cost by four numbers: concurrency, prefill, decode and context switch.

    Parameters
    ----------
    contexts : tokens of the prompt, several lengths.
    output : tokens of an answer.
    columns : plan of a replica, e.g. ``{"tp": 2}``.
    model, hw, use, changes, workload_changes, framework : as in :func:`perfmodel.estimate`.

    Raises
    ------
    PerfmodelError
        If a name is unknown, or a context cannot be served.
    """
    rows = []
    for context in contexts:
        lengths = {**(workload_changes or {}), "prompt": int(context), "output": output}
        request = Request(model, hw, "batch", Question(use=tuple(use)), changes, lengths, framework)
        loaded, system = load(request)
        setting = settings_of(request, loaded, system)[0]
        rows.append(measure(setting, plan_columns(setting, columns or {}, None)))
    if not rows:
        raise SpecError("one length or more is needed", field="contexts")
    return LongContexts(loaded, system, dict(columns or {}), tuple(rows))
