"""Fitted constants of a framework written into its file, every other line left as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, get_type_hints

from perfmodel.specs.framework import ServingConstants, TrainingConstants

__all__ = ["with_constants"]

_FACT = re.compile(r"^(?P<indent>\s*)(?P<name>\w+):\s*\{value:.*\}\s*$")
KEY = "runs"


def _text(name: str, value: float) -> str:
    """A value with the unit its fact needs."""
    kind = TrainingConstants if name in TrainingConstants.model_fields else ServingConstants
    dimension = str(get_type_hints(kind, include_extras=True)[name])
    if "'s'" in dimension:
        return f"{value * 1e3:.3g} ms" if value >= 1e-4 else f"{value * 1e6 if value > 1e-9 else 0.0:.3g} us"
    if "'B'" in dimension:
        return f"{value / 1e9:.3g} GB" if value > 1e6 else f"{value:.3g} B"
    return f"{value:.3g}"


class _Stated(NamedTuple):
    """What a fact says of its constant beside the value."""

    kind: str
    spread: float


def _line(indent: str, name: str, value: float, said: _Stated) -> str:
    label = f"{name}: ".ljust(24)
    return (
        f"{indent}{label}{{value: {_text(name, value)}, kind: {said.kind}, source: {KEY}, spread: {said.spread:.2g}}}"
    )


def with_constants(text: str, values: Mapping[str, float], *, source: str, spread: float, kind: str = "fitted") -> str:
    """Text of a framework file with some constants replaced.

    Parameters
    ----------
    text : the file.
    values : by name; ``name@where`` for a device family or a number format.
    source : what the constants were fitted to.
    spread : relative half-width to state.
    kind : ``fitted``, or ``assumed`` for constants of other software.
    """
    said = _Stated(kind, spread)
    plain = {n: v for n, v in values.items() if "@" not in n}
    special: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        constant, _, where = name.partition("@")
        if where:
            special.setdefault(where, {})[constant] = value
    lines = [f'  {(KEY + ": ").ljust(11)}"{source}"' if re.match(rf"\s+{KEY}:", x) else x for x in text.splitlines()]
    if not any(re.match(rf"\s+{KEY}:", x) for x in lines):
        lines.insert(lines.index("sources:") + 1, f'  {(KEY + ": ").ljust(11)}"{source}"')
    start = lines.index("facts:") + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith(" ")), len(lines))
    lines[start:end] = _replaced(lines[start:end], plain, said)
    for where, changed in special.items():
        lines = _variant(lines, where, changed, said)
    return "\n".join(lines) + "\n"


def _replaced(lines: list[str], values: Mapping[str, float], said: _Stated, indent: str = "  ") -> list[str]:
    left, result = dict(values), []
    for line in lines:
        found = _FACT.match(line)
        if found and found["name"] in left:
            line = _line(found["indent"], found["name"], left.pop(found["name"]), said)
        result.append(line)
    return result + [_line(indent, n, v, said) for n, v in left.items()]


def _variant(lines: list[str], where: str, values: Mapping[str, float], said: _Stated) -> list[str]:
    """Put constants of one family or format under ``variants``."""
    key = "format" if re.fullmatch(r"(nv|mx)?fp\d+(-\w+)?|bf16", where) else "family"
    if re.fullmatch(r"\d\d\.\d\d", where):
        key, where = "release", f'"{where}"'
    facts = [_line("      ", n, v, said) for n, v in values.items()]
    head = f"  - {key}: {where}"
    if head in lines:
        i = lines.index(head)
        j = next((k for k in range(i + 1, len(lines)) if not lines[k].startswith("    ")), len(lines))
        return [*lines[: i + 2], *_replaced(lines[i + 2 : j], values, said, "      "), *lines[j:]]
    if "variants:" not in lines:
        lines = [*lines, "variants:"]
    return [*lines, head, "    facts:", *facts]
