"""What is shipped, by kind; names only, so that listing reads no file as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perfmodel.specs import locate

__all__ = ["ENTRIES", "LIST", "format_entries", "format_lines", "list_lines", "listing", "technique_entries"]

LIST = "perfmodel.specs/1"

ENTRIES: dict[str, Callable[[], list[locate.Entry]]] = {
    "models": locate.model_names,
    "clusters": locate.cluster_names,
    "devices": locate.device_names,
    "workloads": locate.workload_names,
    "diffusion": locate.image_model_names,
    "images": locate.image_workload_names,
    "frameworks": locate.framework_names,
}


def listing(kind: str | None) -> dict[str, list[dict[str, Any]]]:
    """Return names by kind; techniques with what they are."""
    wanted = [kind] if kind else [*ENTRIES, "techniques"]
    found: dict[str, list[dict[str, Any]]] = {}
    for name in wanted:
        if name == "techniques":
            found[name] = technique_entries()
        else:
            found[name] = [{"name": e.name, "aliases": list(e.aliases), "file": str(e.path)} for e in ENTRIES[name]()]
    return found


def technique_entries() -> list[dict[str, Any]]:
    """Every technique: what it is, where it was published, which columns it has."""
    from perfmodel.techniques import TECHNIQUES

    return [
        {
            "name": t.name,
            "summary": t.summary,
            "source": t.source,
            "phases": sorted(t.phases),
            "columns": list(t.neutral),
            "opt_in": t.opt_in,
        }
        for t in TECHNIQUES
    ]


def format_entries() -> list[dict[str, Any]]:
    """Every format of weights and of the cache: stored bits of rows of 4096 and heads of 128, products, title."""
    from perfmodel.operators.formats import stored_bytes
    from perfmodel.specs.number_formats import cache_formats, weight_formats

    tables = (("packed_weights", weight_formats(), 4096.0), ("packed_cache", cache_formats(), 128.0))
    return [
        {
            "technique": technique,
            "name": name,
            "title": f.title,
            "bits": 8.0 * float(stored_bytes(f, row, row * row)),
            "products": list(f.products),
            "quality_published": f.quality is not None,
        }
        for technique, records, row in tables
        for name, f in records.items()
    ]


def format_lines(found: list[dict[str, Any]]) -> list[str]:
    """One line per format, by the technique that uses it."""
    wide = max(len(e["name"]) for e in found)
    lines: list[str] = []
    for technique in dict.fromkeys(e["technique"] for e in found):
        lines += ["", f"--use {technique}=NAME"] if lines else [f"--use {technique}=NAME"]
        for e in (e for e in found if e["technique"] == technique):
            known = "" if e["quality_published"] else "; quality not published"
            lines.append(
                f"{e['name']:<{wide}}  {e['bits']:6.3f} bits  {'/'.join(e['products']):<10}  {e['title']}{known}"
            )
    return lines


def list_lines(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """One line per name."""
    lines: list[str] = []
    for kind, entries in found.items():
        if len(found) > 1:
            lines += ["", kind.upper()] if lines else [kind.upper()]
        wide = max((len(e["name"]) for e in entries), default=0)
        for entry in entries:
            rest = (
                ", ".join(a for a in entry["aliases"] if a != entry["name"])
                if "aliases" in entry
                else _technique_text(entry)
            )
            lines.append(f"{entry['name']:<{wide}}  {rest}".rstrip())
    return lines


def _technique_text(entry: Mapping[str, Any]) -> str:
    pins = ", ".join(entry["columns"])
    return f"{entry['summary']}  [{pins}]" + ("  only with --use or --max-quality-loss" if entry["opt_in"] else "")
