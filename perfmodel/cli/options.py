"""Reading options: ``name=value`` pairs, percentages, and what a missing option could be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from perfmodel.errors import SpecError, UnknownName

__all__ = [
    "asks_for_images",
    "counts",
    "duration",
    "kind_of",
    "pairs",
    "pins",
    "required",
    "share",
    "sizes",
    "techniques",
    "workload_changes",
]

_LISTED = 200


def pairs(flag: str, texts: Iterable[str]) -> dict[str, str]:
    """Split ``name=value`` texts; a name given twice is a mistake."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals or not value:
            raise SpecError("write NAME=VALUE", field=flag, found=text)
        if name in found:
            raise SpecError(f"{name} is given twice", field=flag, found=text)
        found[name] = value
    return found


def pins(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``tp=8`` as a value and ``pp=2,4`` as values to search; ``all`` is the group of every replica."""
    found: dict[str, Any] = {}
    for name, text in pairs("--pin", texts).items():
        values = tuple(_value(part.strip(), text) for part in text.split(","))
        found[name] = values if len(values) > 1 else values[0]
    return found


def _value(text: str, whole: str) -> int | float | str:
    if not text:
        raise SpecError("an empty value", field="--pin", found=whole)
    if text == "all":
        from perfmodel.techniques.sharding import ALL

        return ALL
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def workload_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``field=value`` as a file would: numbers, true and false; ``none`` removes a limit."""
    return {name: _plain(value) for name, value in pairs("--set-workload", texts).items()}


def _plain(text: str) -> Any:
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def techniques(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of ``--use``, or say which there are."""
    found = tuple(names)
    if found:
        from perfmodel.techniques import asked_for

        asked_for(found)
    return found


def share(flag: str, text: str | None) -> float | None:
    """Read ``3%`` or ``0.03``."""
    if text is None:
        return None
    from perfmodel.units import UnitError, parse_quantity

    try:
        value = parse_quantity(text, "1")
    except UnitError as error:
        raise SpecError(str(error), field=flag, found=text, allowed="0 to 1, e.g. 0.03 or 3%") from None
    if not 0 <= value <= 1:
        raise SpecError("a share is needed", field=flag, found=text, allowed="0 to 1, e.g. 0.03 or 3%")
    return value


def duration(flag: str, text: str) -> float:
    """Read a time: ``1 h``, ``10 min``, ``30 s``."""
    from perfmodel.units import UnitError, parse_quantity

    try:
        value = parse_quantity(text, "s")
    except UnitError as error:
        raise SpecError(str(error), field=flag, found=text, allowed="a time, e.g. 1 h or 10 min") from None
    if not 0 < value < float("inf"):
        raise SpecError("a time above zero is needed", field=flag, found=text, allowed="e.g. 1 h or 10 min")
    return value


def size(flag: str, text: str) -> float:
    """Read a number of bytes: ``1 GiB``, ``64 MB`` or plain ``1048576``."""
    from perfmodel.units import UnitError, parse_quantity

    try:
        value = float(text) if text.strip().replace(".", "", 1).isdigit() else parse_quantity(text, "B")
    except UnitError as error:
        raise SpecError(str(error), field=flag, found=text) from None
    if value <= 0:
        raise SpecError("more than nothing is needed", field=flag, found=text)
    return value


def required(flag: str, value: str | None) -> str:
    """Return an option that cannot be left out, or say what it could be."""
    if value is not None and value.strip():
        return value
    from perfmodel.specs.locate import hardware_names, model_names

    what, entries, own = (
        ("models", model_names(), "a config.json")
        if flag == "--model"
        else ("hardware", hardware_names(), "a YAML file of a device or a cluster")
    )
    names = ", ".join(e.name for e in entries[:_LISTED])
    raise SpecError(f"{flag} is missing; give the path of {own}, or one of the shipped {what}: {names}")


def asks_for_images(model: str, workload: str | None) -> bool:
    """Whether images are asked for, by the model or by the workload."""
    from perfmodel.specs.images import asks_for_images as asks

    return asks(model, workload)


def kind_of(workload: str | None, framework: str | None, columns: Iterable[str], fields: Iterable[str]) -> str | None:
    """Return the workload to plan for where none was named but other options fit one kind of workload only."""
    if workload is not None:
        return workload
    kinds = {"training", "serving"}
    if framework is not None:
        from perfmodel.specs.framework import load_framework

        kinds &= {load_framework(framework).kind}
    for name in columns:
        kinds &= _kinds_of_column(name) or kinds
    for name in fields:
        kinds &= _kinds_of_field(name) or kinds
    if not kinds:
        raise SpecError("some options fit training only and others serving only; choose one with --workload")
    return None if len(kinds) == 2 else {"training": "pretrain", "serving": "chat"}[kinds.pop()]


def _kinds_of_column(name: str) -> set[str]:
    from perfmodel.techniques import TECHNIQUES

    pool, dot, column = name.partition(".")
    if dot and pool in ("prefill", "decode"):
        return _kinds_of_column(column) & {"serving"}

    kinds = {phase for t in TECHNIQUES if name in t.neutral for phase in t.phases}
    if name == "devices":
        kinds = {"training"}
    if not kinds:
        known = {n for t in TECHNIQUES for n in t.neutral} | {"devices"}
        raise UnknownName("plan column", name, known, remedy="there are " + ", ".join(sorted(known)))
    return kinds


def _kinds_of_field(path: str) -> set[str]:
    from perfmodel.specs.workload import KINDS

    head = path.split(".")[0]
    kinds = {kind for kind, model in KINDS.items() if head in model.model_fields}
    if not kinds:
        known = {n for model in KINDS.values() for n in model.model_fields}
        raise UnknownName("workload field", path, known, remedy="perfmodel specs show pretrain lists them")
    return kinds


def counts(flag: str, text: str) -> tuple[int, ...]:
    """Read whole numbers, ``4096,50000``."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise SpecError("not numbers of tokens", field=flag, found=text, allowed="one or more: 4096,50000")
    return found


def sizes(flag: str, text: str | None) -> tuple[int, ...] | None:
    """Read ``64-1024`` as the two ends of a range and ``64,128,192`` as sizes; one size is a range of one."""
    if text is None:
        return None
    parts = text.split("-") if "-" in text else text.split(",")
    try:
        found = tuple(int(part) for part in parts)
    except ValueError:
        found = ()
    if not found or min(found) < 1 or ("-" in text and (len(found) != 2 or found[0] > found[1])):
        raise SpecError("not sizes", field=flag, found=text, allowed="a range, 64-1024, or sizes, 64,128,192")
    return found * 2 if len(found) == 1 else found
