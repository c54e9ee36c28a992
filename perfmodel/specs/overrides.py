"""What-ifs: change facts of a resolved machine by path or by short name, keep everything else.

A what-if may leave the plausible ranges, that is its purpose; units, signs and limits of shares still hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast, get_args

from pydantic import BeforeValidator

from perfmodel.errors import SpecError, UnknownName
from perfmodel.specs.facts import Fact, Quantity, Spec, fact
from perfmodel.specs.hardware import Device
from perfmodel.specs.kernels import KERNEL_CONSTANTS, KernelConstants
from perfmodel.specs.load import bare
from perfmodel.specs.system import System

__all__ = ["SHORT_NAMES", "dimensions", "override", "paths"]

SHORT_NAMES = {
    "hbm_bandwidth": "bandwidth of the accelerator's memory of weights and cache",
    "hbm_capacity": "capacity of the accelerator's memory of weights and cache",
    "peak_flops": "all matrix rates of the accelerator",
    "l2_capacity": "capacity of a memory of the accelerator, here l2",
    "l2_bandwidth": "bandwidth of a memory of the accelerator, here l2",
    "nic_bandwidth": "bandwidth of the levels of a kind: package, scaleup, nic, fabric, wan",
    "nic_latency": "latency of the levels of a kind",
    "latency": "latency of all levels",
    "host_bandwidth": "link between host and accelerator",
    "power_limit": "power cap of the accelerator: below its limit, clocks fall until the draw fits",
    "price": "rental per device and hour",
}
"""Short names and what they change."""

_DEVICES = ("accelerator", "host")
_KINDS = ("package", "scaleup", "nic", "fabric", "wan")
_PREFIXES = ("network.", "memory.", "device.", "compute.")
_FACTOR = re.compile(r"(?:[x×*]\s*(?P<before>[0-9.]+(?:[eE][-+]?[0-9]+)?)|(?P<after>[0-9.]+)\s*[x×])")
_PERCENT = re.compile(r"(?P<sign>[-+−])\s*(?P<number>[0-9.]+)\s*%")

Steps = tuple[str | int, ...]


@dataclass(frozen=True)
class _Place:
    """Where a fact of the system stands, what it measures, and the fact, if there is one."""

    path: str
    steps: Steps
    quantity: Quantity
    fact: Fact | None


def paths(system: System) -> dict[str, Fact]:
    """Return every fact of the machine by its path, as :func:`override` understands it."""
    found: dict[str, Fact] = {}
    for root, spec in _roots(system).items():
        for steps, value in _facts(spec):
            found[".".join(map(str, (*([root] if root else []), *steps)))] = value
    return found


def dimensions(system: System) -> dict[str, str]:
    """Return the base unit of every fact of the machine by its path."""
    places = ((path, _place(system, path)) for path in paths(system))
    return {path: place.quantity.dimension for path, place in places if place is not None}


def override(system: System, changes: Mapping[str, str | float]) -> System:
    """Return the machine with some facts changed.

    Parameters
    ----------
    system : machine to start from.
    changes : by path (``levels.node.bandwidth``) or short name (:data:`SHORT_NAMES`): a value with its unit
        (``400 Gb/s``), a factor (``x2``, ``x0.5``) or a difference (``+10%``, ``-20 %``).

    Raises
    ------
    UnknownName
        If there is no such fact.
    SpecError
        If the value does not fit it.
    """
    for name, value in changes.items():
        for place in _places(system, name):
            system = _put(system, place.steps, _changed(place, value))
    return _covering(system) if changes else system


def _roots(system: System) -> dict[str, Spec]:
    """Return the specs that paths begin at; the cluster's own facts have no prefix."""
    roots: dict[str, Spec] = {"": system.cluster, "accelerator": system.accelerator}
    if system.host:
        roots["host"] = system.host
    return roots | {f"engines.{name}": device for name, device in system.engines.items()}


def _facts(value: object) -> Iterator[tuple[Steps, Fact]]:
    if isinstance(value, Fact):
        yield (), value
        return
    for step, inner in _children(value):
        for rest, found in _facts(inner):
            yield (step, *rest), found


def _children(value: object) -> list[tuple[str | int, Any]]:
    if isinstance(value, Spec):
        return [(name, getattr(value, name)) for name in type(value).model_fields]
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, tuple) else []


def _places(system: System, name: str) -> list[_Place]:
    """Resolve a path or short name; a short name may mean several facts."""
    place = _place(system, name)
    if place:
        return [place]
    found = [p for path in _expanded(system, _short(name)) if (p := _place(system, path))]
    if not found:
        raise UnknownName("field", name, [*paths(system), *SHORT_NAMES])
    return found


def _short(name: str) -> str:
    """Return ``network.nic.bandwidth`` and the like as a short name."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.strip().lower().replace(".", "_").replace("-", "_")


def _expanded(system: System, short: str) -> list[str]:
    """Return the paths that a short name stands for."""
    memory = list(system.accelerator.memory)
    subject, _, quantity = short.rpartition("_")
    if short == "peak_flops":
        return [f"accelerator.peak.matrix.{name}" for name in system.accelerator.peak.matrix]
    if short in ("host_bandwidth", "host_link_bandwidth", "host_link"):
        return ["node.host.link" if system.cluster.node.host else "accelerator.host_link"]
    if short in ("power_limit", "power_cap", "power"):
        return ["accelerator.power.cap"]
    if short == "price":
        own = system.accelerator.price and system.accelerator.price.hour
        listed = system.cluster.price and system.cluster.price.device_hour
        return ["accelerator.price.hour" if own and not listed else "price.device_hour"]
    if quantity in ("capacity", "bandwidth") and subject in ("hbm", "memory", "dram", *memory):
        return [f"accelerator.memory.{subject if subject in memory else system.accelerator.holding}.{quantity}"]
    if quantity in ("bandwidth", "latency") and (subject in _KINDS or short == "latency"):
        return _level_paths(system, subject, quantity)
    return []


def _level_paths(system: System, kind: str, quantity: str) -> list[str]:
    found = []
    for name, level in system.cluster.levels.items():
        if kind not in ("", level.kind):
            continue
        if quantity == "bandwidth" and not (level.bandwidth or level.nics or level.taper):
            found += [f"levels.{name}.graph.{i}.bandwidth" for i in range(len(level.graph))]
        elif quantity == "bandwidth":
            given = "nics.bandwidth" if level.nics else "taper" if level.taper else "bandwidth"
            found.append(f"levels.{name}.{given}")
        else:
            found.append(f"levels.{name}.{quantity}")
    return found


def _place(system: System, path: str) -> _Place | None:
    """Follow a path; ``None`` if the schema has no such fact, or something on the way is not described."""
    root, steps = _split(system, path)
    if root is None:
        return None
    value: Any = root[1]
    for i, step in enumerate(steps):
        if isinstance(value, Spec) and step in type(value).model_fields:
            kind, last = type(value), i == len(steps) - 1
            quantity = _quantity_of(kind, step)
            if last and quantity:
                known = getattr(value, step) or _inherited(system, root[1], steps)
                return _Place(path, (*root[0], *steps), quantity, known)
            value = getattr(value, step) or _empty(kind, step)
        elif isinstance(value, dict):
            parent = steps[i - 1] if i else ""
            if i == len(steps) - 1 and parent in ("matrix", "vector") and step in value:
                return _Place(path, (*root[0], *steps), Quantity("FLOP/s", positive=True), value[step])
            value = value.get(step) if step in value else _new_constants(steps, i)
        elif isinstance(value, tuple) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return None


def _split(system: System, path: str) -> tuple[tuple[Steps, Spec] | None, list[str]]:
    """Return the root a path begins at, as (steps, spec), and the steps below it."""
    steps = path.split(".")
    if steps[0] in _DEVICES:
        device = getattr(system, steps[0])
        return (((steps[0],), device) if device else None), steps[1:]
    if steps[0] == "engines":
        device = system.engines.get(steps[1]) if len(steps) > 1 else None
        return ((("engines", steps[1]), device) if device else None), steps[2:]
    return (("cluster",), system.cluster), steps


@lru_cache(maxsize=256)
def _quantity_of(kind: type[Spec], name: str) -> Quantity | None:
    """Return what a field measures, if it is a fact."""
    field = kind.model_fields[name]
    marks = [*field.metadata, *(m for part in get_args(field.annotation) for m in get_args(part))]
    for mark in marks:
        if isinstance(mark, BeforeValidator) and isinstance(mark.func, Quantity):
            return mark.func
    return None


def _empty(kind: type[Spec], name: str) -> Any:
    """Return an empty value for a part that is not described, if all of it may be left out."""
    part = bare(kind.model_fields[name].annotation)
    if isinstance(part, type) and issubclass(part, Spec):
        return None if any(f.is_required() for f in part.model_fields.values()) else part()
    return {} if name == "kernels" else None


def _new_constants(steps: list[str], i: int) -> Any:
    """Return room for kernel constants that the device leaves to its class."""
    if steps[0] != "kernels" or steps[1] not in KERNEL_CONSTANTS or len(steps) != 4:
        return None
    if i == 1:
        return {}
    return KernelConstants() if i == 2 and steps[3] in KERNEL_CONSTANTS[steps[1]] else None


def _inherited(system: System, device: Spec, steps: list[str]) -> Fact | None:
    """Return the kernel constant that a device takes from its ``any`` or from its class; a cap that is the limit."""
    if isinstance(device, Device) and steps == ["power", "cap"] and device.power is not None:
        return device.power.limit
    if not isinstance(device, Device) or steps[0] != "kernels" or len(steps) != 4:
        return None
    _, operator, name, constant = steps
    for kernels in (device.kernels, system.class_constants.get(device.device_class, {})):
        formats = cast(Mapping[str, Mapping[str, KernelConstants]], kernels).get(operator, {})
        for key in (name, "any"):
            known: Fact | None = getattr(formats[key], constant) if key in formats else None
            if known is not None:
                return known
    return None


def _changed(place: _Place, value: str | float) -> Fact:
    """Return the new fact: ``value`` as it stands, or applied to the old one."""
    text = str(value).strip()
    factor = _factor(place, text)
    try:
        if factor is None:
            number = place.quantity.parse(value if not isinstance(value, str) else text)
        elif place.fact is None:
            raise ValueError("there is no value to scale; give one with its unit")
        else:
            number = place.quantity.check(place.fact.value * factor)
            text = f"{text} of {place.fact.text}"
        if place.path.endswith(("nodes", ".members", ".count")) and number != int(number):
            raise ValueError("a whole number is needed")
    except ValueError as error:
        raise SpecError(str(error), field=place.path, found=value) from None
    return fact(number, text)


def _factor(place: _Place, text: str) -> float | None:
    """Return the factor that ``x2`` or ``-20 %`` mean; ``None`` for a plain value."""
    percent, factor = _PERCENT.fullmatch(text), _FACTOR.fullmatch(text)
    try:
        if percent:
            share = float(percent["number"]) / 100
            return 1 + share if percent["sign"] == "+" else 1 - share
        if factor:
            return float(factor["before"] or factor["after"])
    except ValueError:
        raise SpecError("not a factor; write x2 or +10%", field=place.path, found=text) from None
    return None


def _put(system: System, steps: Steps, new: Fact) -> System:
    head, *rest = steps
    name = str(head)
    if name == "engines":
        device = _with(system.engines[str(rest[0])], rest[1:], new)
        return replace(system, engines={**system.engines, str(rest[0]): device})
    return replace(system, **{name: _with(getattr(system, name), rest, new)})


def _with(value: Any, steps: list[str | int], new: Fact) -> Any:
    """Return ``value`` with the fact at ``steps`` replaced, copying only what holds it."""
    if not steps:
        return new
    step, rest = steps[0], steps[1:]
    if isinstance(value, Spec):
        name = str(step)
        inner = getattr(value, name)
        return value.model_copy(update={name: _with(_empty(type(value), name) if inner is None else inner, rest, new)})
    if isinstance(value, dict):
        room: Any = KernelConstants() if len(rest) == 1 else {}
        return {**value, step: _with(value.get(step, room), rest, new)}
    return tuple(_with(item, rest, new) if i == int(step) else item for i, item in enumerate(value))


def _covering(system: System) -> System:
    """Let the last level hold all devices, so that asking for more nodes is one change."""
    cluster = system.cluster
    total = cluster.nodes.value * cluster.node.accelerator.count
    below = math.prod(level.members.value for level in list(cluster.levels.values())[:-1])
    if not cluster.levels and total > 1:
        raise SpecError("a single device has no levels to join several; describe a cluster", field="nodes", found=total)
    if not cluster.levels or below * list(cluster.levels.values())[-1].members.value >= total:
        return system
    last = list(cluster.levels)[-1]
    members = float(math.ceil(total / below))
    return _put(system, ("cluster", "levels", last, "members"), fact(members, f"{members:g}, to hold all nodes"))
