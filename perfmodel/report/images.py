"""Plans for images on the screen and as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perfmodel.insight.images import ImageAnswer
from perfmodel.operators.denoiser import ImageSizes, product_flops
from perfmodel.report.bounds import labelled, table
from perfmodel.report.jsonable import plain
from perfmodel.report.markdown import tabled
from perfmodel.report.screen import Line, Page
from perfmodel.report.words import percent, plural
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.specs.images import ImageModel, ImageWorkload, load_image_model, load_image_workload
from perfmodel.specs.system import System
from perfmodel.units import format_bytes, format_number, format_seconds

__all__ = [
    "IMAGES",
    "answer",
    "answer_data",
    "diffusion_spec",
    "estimate",
    "estimate_data",
    "markdown",
    "workload_spec",
]

IMAGES = "perfmodel.images/1"


def _title(model: ImageModel, system: System, workload: ImageWorkload) -> list[Line]:
    size = f"{model.parameters / 1e9:.2f} B parameters"
    guided = "with guidance" if workload.guidance else "without guidance"
    asked = f"{workload.width} × {workload.height} pixels, {workload.steps} steps {guided}"
    return [Line("", f"{model.name} · {size} on {system.name}", "title"), Line("", asked, "title"), Line("", "")]


def _shape(plan: EvaluatedPlan) -> str:
    ranks = " × ".join(f"{d.name} {d.degree}" for d in plan.degrees if d.degree > 1)
    images = plural(plan.metrics["images_per_replica"] or 1.0, "image")
    return f"{images} at a time on {plural(plan.metrics['devices_per_replica'] or 1.0, 'device')}" + (
        f" ({ranks})" if ranks else ""
    )


def _said(plan: EvaluatedPlan) -> list[str]:
    """Techniques in words that the shape does not say already."""
    return [w for w in plan.summary if not w.startswith(("image batch", "guidance parallel", "patch parallel"))]


def _speed(plan: EvaluatedPlan) -> str:
    rate = format_number(plan.metrics["images_per_second"] or 0.0)
    return f"{format_seconds(plan.seconds)}, {rate} images/s on {plural(plan.devices, 'device')}"


def _plan(plan: EvaluatedPlan, page: Page) -> list[Line]:
    lines = page.block("plan", _shape(plan))
    lines += page.block("", _said(plan), "quiet")
    rows = [
        (r.name, r.resource, format_seconds(r.seconds), percent(r.share, 1))
        for r in plan.terms
        if r.share >= 0.001 or r.busy_seconds > 0.01 * plan.seconds
    ]
    lines += [Line("", ""), *labelled("time", table(rows, 2))]
    ledger = plan.ledgers[0]
    lines += [
        Line("", ""),
        *labelled("memory", table([(e.name, e.tier, format_bytes(e.bytes)) for e in ledger.lines], 2)),
    ]
    tier, full = ledger.fullest
    lines += page.block("", f"{tier} {percent(full)} full", "quiet")
    m = plan.metrics
    said = f"{format_number(m['tera_operations_per_image'] or 0.0)} TFLOP per image, MFU {percent(m['mfu'] or 0.0)}"
    lines += [Line("", ""), *page.block("rates", said)]
    dollars = m["usd_per_thousand_images"]
    if dollars is not None:
        lines += page.block("", f"{format_number(dollars)} USD per thousand images")
    quality = (
        "unknown" if plan.quality is None else "unchanged" if plan.quality == 0 else percent(plan.quality, 1) + " lost"
    )
    return [*lines, *page.block("quality", quality)]


def estimate(model: ImageModel, system: System, workload: ImageWorkload, plan: EvaluatedPlan, page: Page) -> list[Line]:
    """One given plan; one that cannot run says what it breaks."""
    broken = [f"{n} {r:.2f} times over" for n, r in (plan.constraints or {}).items() if r > 1.0 + 1e-9]
    verdict = ("cannot run: " + ", ".join(broken), "bad") if broken else (_speed(plan), "verdict")
    return [*_title(model, system, workload), *_plan(plan, page), Line("", ""), *page.block("verdict", *verdict)]


def answer(found: ImageAnswer, page: Page) -> list[Line]:
    """The best plan, why, and what else was considered."""
    lines = _title(found.model, found.system, found.workload)
    if found.best is None:
        said = [f"{r.constraint}: {r.ratio:.2f} times over at best ({_shape(r.plan)})" for r in found.rejected]
        return [*lines, *page.block("why not", said), *page.block("verdict", "no plan fits", "bad")]
    lines += _plan(found.best, page)
    rows = [(_shape(p), "; ".join(_said(p)) or "whole images", _speed(p)) for p in found.others]
    if rows:
        lines += [Line("", ""), *page.block("otherwise", [" · ".join(row) for row in rows])]
    near = [f"{r.constraint} {r.ratio:.2f} times over: {_shape(r.plan)}, {_speed(r.plan)}" for r in found.rejected]
    lines += page.block("rejected", near)
    searched = (
        f"{found.candidates:,} plans, {found.legal:,} legal, in {format_seconds(found.seconds)}; by {found.objective}"
    )
    lines += [
        Line("", ""),
        *page.block("search", searched, "quiet"),
        *page.block("assumed", found.assumptions, "quiet"),
    ]
    return [*lines, Line("", ""), *page.block("verdict", _speed(found.best), "verdict")]


def markdown(found: ImageAnswer, command: str) -> str:
    """The answer as a Markdown report."""
    title, asked = (line.text for line in _title(found.model, found.system, found.workload)[:2])
    text = [f"# {title}", "", asked, "", f"`{command}`"]
    if found.best is None:
        said = [f"- {r.constraint}: {r.ratio:.2f} times over at best ({_shape(r.plan)})" for r in found.rejected]
        return "\n".join([*text, "", "**No plan fits.**", "", *said]) + "\n"
    best = found.best
    text += ["", f"**{_speed(best)}**", "", f"Plan: {_shape(best)}.", *(f"- {word}" for word in _said(best))]
    rows = [(r.name, r.resource, format_seconds(r.seconds), percent(r.share, 1)) for r in best.terms if r.seconds]
    text += ["", "## Time", *tabled(("what", "on", "time", "share"), rows)]
    lines = [(e.name, e.tier, format_bytes(e.bytes)) for e in best.ledgers[0].lines]
    text += ["", "## Memory", *tabled(("what", "where", "size"), lines)]
    others = [(_shape(p), "; ".join(_said(p)) or "whole images", _speed(p)) for p in found.others]
    if others:
        text += ["", "## Otherwise", *tabled(("plan", "techniques", "speed"), others)]
    near = [f"- {r.constraint} {r.ratio:.2f} times over: {_shape(r.plan)}, {_speed(r.plan)}" for r in found.rejected]
    text += ["", "## Ruled out", "", *near] if near else []
    return "\n".join([*text, "", "## Assumed", "", *(f"- {one}" for one in found.assumptions)]) + "\n"


def _data(plan: EvaluatedPlan) -> dict[str, Any]:
    return {
        "columns": plain(plan.columns),
        "metrics": plain(plan.metrics),
        "terms": [plain(r._asdict()) for r in plan.terms],
        "memory": [plain(e._asdict()) for e in plan.ledgers[0].lines],
        "bottleneck": plan.bottleneck,
        "bound_seconds": plan.bound_seconds,
        "quality_loss": plan.quality,
        "constraints": plain(plan.constraints or {}),
        "summary": list(plan.summary),
    }


def _head(model: ImageModel, system: System, workload: ImageWorkload) -> dict[str, Any]:
    asked = {n: getattr(workload, n) for n in type(workload).model_fields if n not in ("aliases", "notes")}
    named = {"name": model.name, "parameters": model.parameters}
    return {"schema": IMAGES, "model": named, "machine": system.name, "workload": plain(asked)}


def estimate_data(model: ImageModel, system: System, workload: ImageWorkload, plan: EvaluatedPlan) -> dict[str, Any]:
    """One given plan as JSON."""
    return {**_head(model, system, workload), "plan": _data(plan)}


def answer_data(found: ImageAnswer) -> dict[str, Any]:
    """The answer as JSON."""
    rejected = [{"constraint": r.constraint, "ratio": r.ratio, "plan": _data(r.plan)} for r in found.rejected]
    return {
        **_head(found.model, found.system, found.workload),
        "objective": found.objective,
        "best": None if found.best is None else _data(found.best),
        "others": [_data(p) for p in found.others],
        "rejected": rejected,
        "candidates": found.candidates,
        "legal": found.legal,
        "seconds": found.seconds,
        "assumptions": list(found.assumptions),
    }


def diffusion_spec(path: Path) -> dict[str, Any]:
    """What a diffusion model is."""
    model = load_image_model(path)
    d = model.denoiser
    sizes = ImageSizes(1.0, d.sample / d.side, d.sample / d.side, text=float(d.text_tokens))
    return {
        "kind": "diffusion model",
        "name": model.name,
        "source": model.source,
        "class": d.family,
        "parameters": d.parameters,
        "decoder_parameters": d.vae_parameters,
        "trained_for_pixels": d.sample,
        "tera_operations_per_pass": round(float(product_flops(d.parts, sizes)) / 1e12, 3),
        "text_tokens": d.text_tokens,
    }


def workload_spec(path: Path) -> dict[str, Any]:
    """What a workload of images asks for."""
    work = load_image_workload(path)
    return {"kind": "workload of images", **{n: getattr(work, n) for n in type(work).model_fields if n != "kind"}}
