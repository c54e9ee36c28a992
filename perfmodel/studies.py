"""The library beyond plans: rooflines of one plan, batches of sequences of unlike lengths, fleets of unlike groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmodel.api import Answers, Request, load, plan, plan_columns, settings_of, usual_framework
from perfmodel.errors import SpecError, UnknownName
from perfmodel.insight.setting import Question
from perfmodel.specs.framework import load_framework
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import Model, load_model
from perfmodel.specs.system import System
from perfmodel.specs.workload import TrainingWorkload, Workload, load_workload, revise

if TYPE_CHECKING:
    from perfmodel.insight.fleet import FleetAnswer
    from perfmodel.insight.lengths import MixedLengths
    from perfmodel.insight.roofline import Roofline
    from perfmodel.insight.scaling import Scaling

__all__ = [
    "Rooflines",
    "ScaleStudy",
    "across",
    "assign_sequences",
    "fleet",
    "roofline",
    "scale",
]


@dataclass(frozen=True)
class Rooflines:
    """The passes of one plan, every operator under the roofs of the machine."""

    model: Model
    system: System
    workload: Workload
    columns: Mapping[str, Any]
    passes: tuple[Roofline, ...]


def roofline(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "chat",
    *,
    phase: str | None = None,
    columns: Mapping[str, Any] | None = None,
    devices: int | None = None,
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> Rooflines:
    """Put every operator of a model on a device under its roofs.

    Parameters
    ----------
    model, hw, workload, devices, changes, workload_changes, framework : as in :func:`estimate`.
    phase : ``prefill``, ``decode`` or ``training``; every phase of the workload if left out.
    columns : plan columns by name, e.g. ``{"tp": 8, "batch": 64}``; the others at their neutral value.

    Raises
    ------
    SpecError
        If the workload has no such phase.
    """
    from perfmodel.insight.roofline import rooflines

    request = Request(model, hw, workload, Question(None, devices), changes, workload_changes, framework)
    loaded, system = load(request)
    setting = settings_of(request, loaded, system)[0]
    x = plan_columns(setting, columns or {}, devices)
    return Rooflines(loaded, system, setting.workload, dict(columns or {}), rooflines(setting, x, phase))


def across(
    model: str | Path,
    machines: Sequence[str | Path],
    workload: str | Path = "chat",
    *,
    objective: str | None = None,
    pin: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    max_quality_loss: float | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> tuple[Answers, ...]:
    """Plan one workload on several machines.

    Parameters
    ----------
    machines : names, aliases or paths; one answer for each.
    model, workload, objective, pin, use, max_quality_loss, workload_changes, framework : as in :func:`plan`.

    Raises
    ------
    PerfmodelError
        If a name is unknown or a file cannot be used.
    """
    return tuple(
        plan(
            model, hw, workload, objective=objective, pin=pin, use=use, max_quality_loss=max_quality_loss,
            workload_changes=workload_changes, framework=framework,
        )
        for hw in machines
    )  # fmt: skip


def assign_sequences(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "pretrain",
    *,
    lengths: Sequence[int],
    devices: int,
    column: str = "ulysses",
    columns: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> MixedLengths:
    """Train one step on sequences of unlike lengths: groups of ranks chosen for the batch, against groups of one size.

    Parameters
    ----------
    lengths : tokens of each sequence of the step; groups of one size must hold the workload's ``sequence``.
    column : how ranks share a sequence: ``ulysses`` (exchange of heads) or ``cp`` (ring).
    model, hw, workload, devices, columns, use, changes, workload_changes, framework : as in :func:`estimate`.

    Raises
    ------
    SpecError
        If the devices are no power of two, a sequence fits no group, or the states alone do not fit.
    """
    from perfmodel.insight.lengths import mixed_lengths

    if column not in ("ulysses", "cp"):
        raise SpecError(
            "ranks share a sequence by one of two ways", field="column", found=column, allowed="ulysses, cp"
        )
    if not lengths or min(lengths) < 1:
        raise SpecError("sequences of one token or more are needed", field="lengths", found=list(lengths)[:3])
    request = Request(
        model, hw, workload, Question(None, devices, use=tuple(use)), changes, workload_changes, framework
    )
    setting = settings_of(request, *load(request))[0]
    plan_columns(setting, {**(columns or {}), column: 1}, devices)
    trading = devices if column == "ulysses" else 1
    return mixed_lengths(setting, lengths, trading=trading, columns=dict(columns or {}))


def fleet(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "pretrain",
    *,
    pin: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> FleetAnswer:
    """Plan training on a fleet of unlike groups: stages of one pipeline on groups, or replicas on groups.

    Parameters
    ----------
    model, workload, workload_changes, framework : as in :func:`plan`; without a framework each group has its usual one.
    hw : name or path of a fleet file.
    pin : ``tp``, ``pp``, ``dp``, ``micro_batch``, ``recompute`` of each group; or ``kind``: ``pipeline``, ``replicas``.

    Raises
    ------
    PerfmodelError
        If a name is unknown, a file cannot be used, or the workload is not training.
    """
    from perfmodel.insight.fleet import plan_fleet
    from perfmodel.specs.fleet import load_fleet

    joined, asked = load_fleet(hw), load_workload(workload)
    if workload_changes:
        asked = revise(asked, workload_changes)
    if not isinstance(asked, TrainingWorkload):
        raise SpecError("fleets are planned for training", field="workload", found=str(workload))
    software = {n: load_framework(framework or usual_framework(s, "training")) for n, s in joined.systems.items()}
    return plan_fleet(load_model(find_model(model)), joined, asked, software, pin or {})


@dataclass(frozen=True)
class ScaleStudy:
    """The best plan of every size of a machine."""

    model: Model
    system: System
    workload: Workload
    found: Scaling


def scale(
    model: str | Path,
    hw: str | Path,
    workload: str | Path = "pretrain",
    *,
    devices: Sequence[int] | None = None,
    step: str = "doubling",
    pin: Mapping[str, Any] | None = None,
    use: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    workload_changes: Mapping[str, Any] | None = None,
    framework: str | Path | None = None,
) -> ScaleStudy:
    """Find the best training plan of every size.

    Parameters
    ----------
    devices : two numbers are a range of sizes, more are the sizes themselves; the whole machine if left out.
    step : sizes of a range, as in :data:`perfmodel.insight.scaling.STEPS`.
    model, hw, workload, pin, use, changes, workload_changes, framework : as in :func:`perfmodel.plan`.

    Raises
    ------
    UnknownName
        If there is no such step.
    SpecError
        If the workload serves, or a size is beyond the machine.
    """
    from perfmodel.insight.scaling import STEPS, device_counts, scaling

    if step not in STEPS:
        raise UnknownName("step", step, STEPS, remedy="there are " + ", ".join(STEPS))
    request = Request(model, hw, workload, Question(None, None, pin, tuple(use)), changes, workload_changes, framework)
    loaded, system = load(request)
    setting = settings_of(request, loaded, system)[0]
    machine = setting.machine
    counts = tuple(devices or (machine.per_node, machine.devices))
    if len(counts) == 2:
        counts = device_counts(machine.per_node, counts[0], min(counts[1], machine.devices), step)
    return ScaleStudy(loaded, system, setting.workload, scaling(setting, counts))
