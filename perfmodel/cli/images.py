"""Plans and estimates of image generation, behind ``perfmodel plan`` and ``perfmodel estimate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from perfmodel.errors import SpecError

if TYPE_CHECKING:
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


def _shared(asked: Asked, unused: tuple[object, object]) -> dict[str, Any]:
    """Arguments of the library; options that say nothing of images are refused."""
    if any(given is not None for given in unused):
        raise SpecError(
            "images are planned without --framework, --report and --timeline", field="workload",
            found=asked.workload or asked.model,
        )  # fmt: skip
    workload = "image" if asked.workload in (None, "pretrain") else asked.workload
    return {
        "model": asked.model, "hw": asked.hw, "workload": workload, "use": asked.use, "devices": asked.devices,
        "changes": asked.changes or None, "workload_changes": asked.fields or None,
    }  # fmt: skip


def plan(
    asked: Asked, objective: str | None, loss: float | None, unused: tuple[object, object], page: Page | None
) -> None:
    """Search and print."""
    from perfmodel import imaging
    from perfmodel.cli import output
    from perfmodel.report import images as report

    shared = _shared(asked, unused)
    found = imaging.images(**shared, objective=objective, pin=asked.columns or None, max_quality_loss=loss)
    if page is None:
        output.print_json(report.answer_data(found))
    else:
        output.print_lines(report.answer(found, page))


def estimate(asked: Asked, unused: tuple[object, object], page: Page | None) -> None:
    """Evaluate one plan and print."""
    from perfmodel import imaging
    from perfmodel.cli import output
    from perfmodel.report import images as report

    found = imaging.image_estimate(**_shared(asked, unused), columns=asked.columns)
    if page is None:
        output.print_json(report.estimate_data(found.model, found.system, found.workload, found.plan))
    else:
        output.print_lines(report.estimate(found.model, found.system, found.workload, found.plan, page))
