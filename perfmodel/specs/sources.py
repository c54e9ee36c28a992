"""Every fact names a source that its file defines."""

from __future__ import annotations

from typing import Any

from perfmodel.errors import nearest
from perfmodel.specs.facts import Fact, FieldError, Spec

__all__ = ["check_sources"]


def check_sources(spec: Spec, sources: dict[str, str]) -> None:
    """Raise ``ValueError`` for the first fact whose source is not a key of ``sources``."""

    def walk(value: Any, where: tuple[str | int, ...]) -> None:
        if isinstance(value, Fact):
            if value.source not in sources and value.source != "what-if":
                near = ", ".join(nearest(value.source, sources) or list(sources)[:6]) or "none defined"
                message = f"the source is not defined under `sources`; nearest: {near}"
                raise FieldError(message, (*where, "source"))
        elif isinstance(value, Spec):
            for name in type(value).model_fields:
                walk(getattr(value, name), (*where, name))
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, (*where, key))
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                walk(item, (*where, i))

    walk(spec, ())
