"""A specification as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.report.specs import KV_CONTEXT
from perfmodel.report.words import quantity
from perfmodel.specs.architecture import Moe
from perfmodel.units import format_bytes, format_count

__all__ = ["show_lines"]


def show_lines(found: Mapping[str, Any]) -> list[str]:
    """Lines of ``key  value``; facts with unit, kind, source and note."""
    if found["kind"] == "model":
        return _model_lines(found)
    simple = {k: v for k, v in found.items() if not isinstance(v, dict) and v not in ("", [], None)}
    lines = _pairs(simple)
    for key, value in found.items():
        if isinstance(value, dict) and value:
            lines += ["", key.upper(), *_fact_lines(value)]
    return lines


def _pairs(data: Mapping[str, Any]) -> list[str]:
    wide = max((len(k) for k in data), default=0)
    return [f"{k:<{wide}}  {_text(v)}" for k, v in data.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _fact_lines(facts: Mapping[str, Any]) -> list[str]:
    wide = max(len(k) for k in facts)
    lines = []
    for path, f in facts.items():
        if f is None:
            continue
        if not isinstance(f, dict) or "kind" not in f or "text" not in f:
            lines.append(f"{path:<{wide}}  {f}")
            continue
        text = f["text"] or (quantity(f["value"], f["unit"]) if "unit" in f else f"{f['value']:g}")
        note = f"; {f['note']}" if f["note"] else ""
        lines.append(f"{path:<{wide}}  {text:<16} {f['kind']:<9} {f['source']}{note}")
    return lines


def _model_lines(found: Mapping[str, Any]) -> list[str]:
    total, active = found["parameters"], found["active_parameters"]
    data: dict[str, Any] = {
        "name": found["name"],
        "aliases": found["aliases"],
        "parameters": f"{total:,} ({format_count(total, 4)})",
    }
    if active != total:
        data["active"] = f"{active:,} per token ({format_count(active, 4)})"
    window = found["max_positions"]
    data |= {
        "family": found["family"],
        "layers": f"{found['layers']} of width {found['hidden']:,}",
        "vocabulary": f"{found['vocab']:,}" + (", tied to the output head" if found["tied"] else ""),
        "context": "no limit declared" if window is None else f"{window:,} tokens",
        "weights": found["weight_format"],
        "KV cache": f"{format_bytes(found['kv_bytes_per_token'], 4)} per token in bf16, at {KV_CONTEXT:,} tokens",
    }
    lines = _pairs({k: v for k, v in data.items() if v})
    for run in found["runs"]:
        parts = [_part_text(run[p]) for p in ("mixer", "ffn") if run[p]]
        lines.append(f"{run['count']} × " + "; ".join(parts))
    lines += [f"tower {name}: {count:,} parameters, counted but not costed" for name, count in found["towers"].items()]
    return [*lines, f"source      {found['source']}", f"file        {found['file']}"]


def _part_text(part: Mapping[str, Any]) -> str:
    kind = part["type"]
    if kind == Moe.__name__:
        text = f"mixture of {part['experts']} experts, {part['top_k']} per token, width {part['width']:,}"
        return text + (f", shared {part['shared_width']:,}" if part.get("shared_width") else "")
    hidden = ("type", "parameters", "hidden", "extra", "causal")
    return f"{kind} " + ", ".join(f"{k} {_text(v)}" for k, v in part.items() if k not in hidden)
