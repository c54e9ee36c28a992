"""Plans and estimates of image generation, behind ``perfmodel plan`` and ``perfmodel estimate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from perfmodel.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from perfmodel.report.screen import Page

__all__ = ["Asked", "estimate", "plan"]


class Asked(NamedTuple):
    """What both commands are asked with."""

    model: str
    hw: str
    workload: str | None
    columns: Mapping[str, Any]
    use: tuple[str, ...]
    changes: Mapping[str, str]
    fields: Mapping[str, Any]
    devices: int | None
    framework: str | None


def _shared(asked: Asked) -> dict[str, Any]:
    """Arguments of the library."""
    workload = "image" if asked.workload in (None, "pretrain") else asked.workload
    return {
        "model": asked.model, "hw": asked.hw, "workload": workload, "use": asked.use, "devices": asked.devices,
        "changes": asked.changes or None, "workload_changes": asked.fields or None, "framework": asked.framework,
    }  # fmt: skip


def plan(asked: Asked, objective: str | None, loss: float | None, written: Path | None, page: Page | None) -> None:
    """Search, print, and write a report where one is wanted."""
    from perfmodel import imaging
    from perfmodel.cli import output
    from perfmodel.report import images as report

    shared = _shared(asked)
    found = imaging.images(**shared, objective=objective, pin=asked.columns or None, max_quality_loss=loss)
    if written is not None:
        output.write_report(written, report.markdown(found, output.command_line()))
    if page is None:
        output.print_json(report.answer_data(found))
    else:
        output.print_lines(report.answer(found, page))


def estimate(asked: Asked, timeline: object, page: Page | None) -> None:
    """Evaluate one plan and print; a timeline is that of training steps and passes of tokens only."""
    if timeline is not None:
        raise SpecError("images have no timeline", field="--timeline", found=str(timeline))
    from perfmodel import imaging
    from perfmodel.cli import output
    from perfmodel.report import images as report

    found = imaging.image_estimate(**_shared(asked), columns=asked.columns)
    if page is None:
        output.print_json(report.estimate_data(found.model, found.system, found.workload, found.plan))
    else:
        output.print_lines(report.estimate(found.model, found.system, found.workload, found.plan, page))
