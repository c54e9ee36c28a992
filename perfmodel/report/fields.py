"""What a file may say: every field with its form and meaning, as lines to read or as a JSON Schema for editors."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from perfmodel.errors import UnknownName
from perfmodel.specs.facts import KINDS, Quantity, Spec
from perfmodel.specs.fleet import Fleet
from perfmodel.specs.framework import ServingFramework, TrainingFramework
from perfmodel.specs.hardware import Cluster, Device
from perfmodel.specs.images import ImageWorkload
from perfmodel.specs.workload import ServingWorkload, TrainingWorkload

__all__ = ["field_lines", "schema_of"]

INDENT = "  "
FACT = "x-dimension"
"""Key of the schema of a number with its source: the unit that it is read into."""


FILES: dict[str, type[Spec]] = {
    "device": Device,
    "cluster": Cluster,
    "fleet": Fleet,
    "training-workload": TrainingWorkload,
    "serving-workload": ServingWorkload,
    "image-workload": ImageWorkload,
    "training-framework": TrainingFramework,
    "serving-framework": ServingFramework,
}
"""What a user may write, by the name of its kind; models are ``config.json`` files as they are published."""


@cache
def _classes(module: str) -> Mapping[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Docstrings under the fields of a class and of those it derives from; a class made in code has none."""
    found: dict[str, str] = {}
    for owner in reversed([c for c in model.__mro__ if issubclass(c, Spec)]):
        node = _classes(owner.__module__).get(owner.__name__)
        body = [] if node is None else node.body
        for field, text in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


class _AsWritten(GenerateJsonSchema):
    """Fields as files write them: numbers with unit, kind and source where they are facts."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> dict[str, Any]:
        reads: Any = schema["function"]["function"]
        if isinstance(reads, Quantity):
            return _fact(reads)
        inner = super().function_before_schema(schema)
        return {**inner, "type": ["number", "string"]} if inner.get("type") in ("integer", "number") else inner

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        made = super().model_schema(schema)
        fields = schema["cls"].model_fields
        meanings = {fields[n].alias or n: text for n, text in _meanings(schema["cls"]).items() if n in fields}
        for name, entry in made.get("properties", {}).items():
            entry.pop("title", None)
            if name in meanings:
                entry["description"] = meanings[name]
        return made


def _fact(reads: Quantity) -> dict[str, Any]:
    unit = "" if reads.dimension == "1" else f", in {reads.dimension}"
    return {
        FACT: reads.dimension,
        "type": "object",
        "properties": {
            "value": {"type": ["number", "string"], "description": f"number with its unit{unit}"},
            "kind": {"enum": list(KINDS)},
            "source": {"type": "string", "description": "key of `sources`"},
            "note": {"type": "string"},
            "spread": {"type": "number"},
        },
        "required": ["value", "kind", "source"],
        "additionalProperties": False,
    }


def schema_of(kind: str) -> dict[str, Any]:
    """JSON Schema of a kind of file, for editors that complete and check YAML.

    Raises
    ------
    UnknownName
        No such kind.
    """
    if kind not in FILES:
        raise UnknownName("kind of file", kind, FILES, remedy="there are " + ", ".join(FILES))
    made = FILES[kind].model_json_schema(schema_generator=_AsWritten)
    return {"$schema": GenerateJsonSchema.schema_dialect, **made}


def field_lines(kind: str, width: int = 100) -> list[str]:
    """Every field of a kind of file, indented as in the file: form, what may be left out, meaning."""
    schema = schema_of(kind)
    lines = [f"{schema['title']}: {' '.join(schema.get('description', '').split())}"]
    for depth, name, form, meaning in _walk(schema, schema.get("$defs", {}), 0, ()):
        lines.append(f"{INDENT * depth}{name}: {form.strip()}".rstrip())
        margin = INDENT * (depth + 2) + "# "
        lines += textwrap.wrap(meaning, width, initial_indent=margin, subsequent_indent=margin)
    return lines


class _Form(NamedTuple):
    """How a value is written, the mapping that it is or holds, and what stands for each of several of these."""

    text: str
    mapping: Mapping[str, Any] | None = None
    each: str = ""


def _walk(
    schema: Mapping[str, Any], known: Mapping[str, Any], depth: int, within: tuple[str, ...]
) -> Iterator[tuple[int, str, str, str]]:
    """Depth, name, form and meaning of every field in the order of the file."""
    for name, entry in schema.get("properties", {}).items():
        form = _form(entry, known)
        text = form.text if name in schema.get("required", ()) else form.text + _default(entry)
        yield depth, name, text, entry.get("description", "")
        inner = form.mapping
        if inner is not None and inner["title"] not in within:
            if form.each:
                yield depth + 1, form.each, "", ""
            yield from _walk(inner, known, depth + (2 if form.each else 1), (*within, inner["title"]))


def _default(entry: Mapping[str, Any]) -> str:
    """What counts where a field is left out."""
    value = entry.get("default")
    if value in (None, "", [], {}) or isinstance(value, dict):
        return " (optional)"
    return " (default all)" if isinstance(value, list) else f" (default {value})"


def _form(entry: Mapping[str, Any], known: Mapping[str, Any]) -> _Form:
    if "$ref" in entry:
        return _form(known[entry["$ref"].rpartition("/")[2]], known)
    if FACT in entry:
        unit = "" if entry[FACT] == "1" else f" {entry[FACT]}"
        return _Form(f"{{value: NUMBER{unit}, kind, source}}")
    if "anyOf" in entry:
        found = [_form(e, known) for e in entry["anyOf"] if e.get("type") != "null"]
        inner = next((f for f in found if f.mapping is not None), found[0])
        return inner._replace(text=" or ".join(dict.fromkeys(f.text for f in found if f.text)))
    if "enum" in entry or "const" in entry:
        return _Form("|".join(str(v) for v in entry.get("enum", [entry.get("const")])))
    if "properties" in entry:
        return _Form("", entry)
    if entry.get("type") in ("array", "object"):
        return _several(entry, known)
    kind = entry.get("type")
    words = {"string": "text", "integer": "WHOLE NUMBER", "number": "NUMBER", "boolean": "true|false"}
    return _Form("NUMBER, with unit" if isinstance(kind, list) else words.get(str(kind), "…"))


def _several(entry: Mapping[str, Any], known: Mapping[str, Any]) -> _Form:
    """A list, or a mapping with keys of the user's own."""
    listed = entry["type"] == "array"
    held = (entry.get("items") if listed else entry.get("additionalProperties")) or {}
    if isinstance(held, Mapping) and "prefixItems" in entry:
        held = entry["prefixItems"][0]
    form = _form(held, known) if isinstance(held, Mapping) else _Form("…")
    if form.mapping is not None:
        return form._replace(text="", each="-" if listed else "NAME")
    return _Form(f"[{form.text}, …]" if listed else f"{{NAME: {form.text}, …}}")
