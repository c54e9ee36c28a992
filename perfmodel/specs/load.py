"""From a document to a validated spec; a mistake becomes one message: file, line, field, what stands there and may."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from perfmodel.errors import SpecError, nearest
from perfmodel.specs.facts import Fact, FieldError
from perfmodel.specs.yamlfile import Document, Where

__all__ = ["Mistake", "bare", "keys_of", "parse", "parse_kind"]

Model = TypeVar("Model", bound=BaseModel)
_LISTED = 5
"""How many further mistakes are listed beside the first."""

_WANTED = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a mapping (`key: value` lines)",
    "mapping": "a mapping (`key: value` lines)",
    "model": "a mapping (`key: value` lines)",
    "tuple": "a list",
    "list": "a list",
}
_COMPARED = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}


class Mistake:
    """One mistake in the user's words: where it stands, what it is, what was found, what is allowed."""

    def __init__(self, where: Where, message: str, found: object = None, allowed: str | None = None) -> None:
        self.where, self.message, self.found, self.allowed = where, message, found, allowed
        self.missing = False
        self.meant: str | None = None

    def brief(self, document: Document) -> str:
        """Say it in one short line."""
        line = document.line(self.where)
        place = f"line {line}: " if line else ""
        return f"{place}{'.'.join(map(str, self.where))}: {self.message}"


def parse(model: type[Model], document: Document) -> Model:
    """Return ``document`` as an instance of ``model``.

    Raises
    ------
    SpecError
        One message about the first mistake in file order; further ones are listed briefly.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise _report(model, document, error) from None
    except RecursionError as error:
        raise SpecError("nested too deeply", file=str(document.path)) from error


def parse_kind(models: Mapping[str, type[Model]], document: Document) -> Model:
    """Return ``document`` as an instance of the model that its key ``kind`` names."""
    kind = document.data.get("kind")
    choices = ", ".join(models)
    if kind is None:
        raise document.error("`kind` is missing", ("kind",), allowed=choices)
    if not isinstance(kind, str) or kind not in models:
        near = nearest(kind, models) if isinstance(kind, str) else []
        message = "not one of the choices" + (f"; did you mean `{near[0]}`?" if near else "")
        raise document.error(message, ("kind",), found=kind, allowed=choices)
    return parse(models[kind], document)


def _report(model: type[BaseModel], document: Document, error: ValidationError) -> SpecError:
    mistakes = _unspoilt([_mistake(model, dict(e)) for e in error.errors(include_url=False)])
    mistakes.sort(key=lambda m: document.line(m.where) or 0)
    first, rest = mistakes[0], mistakes[1:]
    more = [m.brief(document) for m in rest[:_LISTED]]
    if more:
        head = f"and {len(rest)} more" + (f", the first {_LISTED}:" if len(rest) > _LISTED else ":")
        more.insert(0, head)
    return document.error(first.message, first.where, found=first.found, allowed=first.allowed, more=tuple(more))


def _unspoilt(mistakes: list[Mistake]) -> list[Mistake]:
    """Leave out keys that are missing only because they are misspelt."""
    meant = {(*m.where[:-1], m.meant) for m in mistakes if m.meant}
    return [m for m in mistakes if not (m.missing and m.where in meant)]


def _mistake(model: type[BaseModel], error: dict[str, Any]) -> Mistake:
    """Translate one validation error."""
    kind, found = error["type"], error["input"]
    where = _where(error["loc"], kind)
    context = error.get("ctx", {})
    if kind == "missing":
        return _missing(where, model)
    if kind == "extra_forbidden":
        return _unknown_key(where, keys_of(model, where[:-1]))
    if kind == "literal_error":
        return _not_a_choice(error["loc"], where, found, context["expected"])
    if kind == "value_error":
        cause = context["error"]
        if isinstance(cause, FieldError):
            there = cause.found if cause.found is not None else _at(found, cause.where)
            return Mistake((*where, *cause.where), str(cause), _shown(there), cause.allowed)
        return Mistake(where, str(cause), _shown(found))
    if kind in _COMPARED:
        return Mistake(where, "out of range", _shown(found), _COMPARED[kind].format(**context))
    stem = kind.split("_")[0]
    if kind == "int_from_float":
        return Mistake(where, "a whole number is needed", _shown(found))
    if stem in _WANTED:
        return Mistake(where, f"{_WANTED[stem]} is needed", _shown(found))
    if kind in ("too_long", "too_short"):
        low, high = context.get("min_length"), context.get("max_length")
        return Mistake(where, f"{'at most ' + str(high) if low is None else 'at least ' + str(low)} items are needed")
    return Mistake(where, error["msg"][:1].lower() + error["msg"][1:], _shown(found))


def _where(location: Where, kind: str) -> Where:
    """Return the path without the mark of an error about a key itself; a user's own key may look the same."""
    marked = location[-1:] == ("[key]",) and kind not in ("extra_forbidden", "missing")
    return location[:-1] if marked else location


def _missing(where: Where, model: type[BaseModel]) -> Mistake:
    if isinstance(where[-1], int):
        return Mistake(where[:-1], f"at least {where[-1] + 1} items are needed")
    keys = keys_of(model, where[:-1])
    mistake = Mistake(where, f"`{where[-1]}` is missing", allowed=f"keys here: {', '.join(keys)}" if keys else None)
    mistake.missing = True
    return mistake


def _unknown_key(where: Where, keys: list[str]) -> Mistake:
    near = nearest(str(where[-1]), keys)
    message = f"unknown key `{where[-1]}`" + (f"; did you mean `{near[0]}`?" if near else "")
    mistake = Mistake(where, message, allowed=", ".join(keys) or None)
    mistake.meant = near[0] if near else None
    return mistake


def _not_a_choice(location: tuple[str | int, ...], where: Where, found: object, expected: str) -> Mistake:
    choices = [c.strip().strip("'") for c in expected.replace(" or ", ", ").split(",")]
    near = nearest(found, choices) if isinstance(found, str) else []
    what = "unknown key" if location[-1:] == ("[key]",) else "not one of the choices"
    message = what + (f"; did you mean `{near[0]}`?" if near else "")
    return Mistake(where, message, _shown(found), ", ".join(choices))


def _at(data: object, where: Where) -> object:
    """Return what a validator's input holds at ``where``."""
    for step in where:
        try:
            data = data[step]  # type: ignore[index]
        except (LookupError, TypeError):
            return {}
    return data


def _shown(found: object) -> object:
    """Return the part of the offending input that is worth printing."""
    if isinstance(found, dict):
        return found.get("value") if "value" in found else None
    return "nothing" if found is None else found


def keys_of(model: type[BaseModel], where: Where) -> list[str]:
    """Return the keys that a user may write in the mapping at ``where``."""
    kind: Any = model
    for step in where:
        kind = _inside(kind, step)
        if kind is None:
            return []
    hidden = {"text"} if kind is Fact else set()
    return [f.alias or n for n, f in kind.model_fields.items() if n not in hidden] if _is_model(kind) else []


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _inside(kind: Any, step: str | int) -> Any:
    """Return the type of the value under ``step`` of a value of type ``kind``."""
    if _is_model(kind):
        for name, field in kind.model_fields.items():
            if step in (name, field.alias):
                return bare(field.annotation)
        return None
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return bare(arguments[1])
    if get_origin(kind) in (tuple, list) and arguments:
        return bare(arguments[0])
    return None


def bare(annotation: Any) -> Any:
    """Return the annotation without ``Annotated`` and ``None``."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next((a for a in get_args(annotation) if a is not type(None)), None)
        else:
            return annotation
