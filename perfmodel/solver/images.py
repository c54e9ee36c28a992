"""The planning problem of image generation: latency of one batch, or images per device and second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perfmodel.elementwise import Scalar
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.operators.denoiser import product_flops
from perfmodel.phases.image import Images, check_images, evaluate_images
from perfmodel.solver.evaluate import bottleneck_of, stage_ledgers, summary_of, term_rows
from perfmodel.solver.outcome import Judged
from perfmodel.solver.problems import quality_ratio
from perfmodel.solver.result import Degree, EvaluatedPlan, Interval
from perfmodel.techniques.base import Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["IMAGE_OBJECTIVES", "ImageProblem", "evaluate_image_plan"]

IMAGE_OBJECTIVES = ("time", "throughput")


@dataclass
class ImageProblem:
    """Judge replicas that make images.

    Parameters
    ----------
    techniques, situation, machine, network : as in :func:`perfmodel.phases.image.evaluate_images`.
    framework : behaviour of the software.
    objective : ``time`` (of a batch) or ``throughput`` (device time per image).
    quality_budget : largest published loss that a plan may spend.
    """

    techniques: Sequence[Technique]
    situation: Situation
    machine: Machine
    network: Network
    framework: Mapping[str, float]
    objective: str = "time"
    quality_budget: float | None = None
    wants_front: bool = True

    def evaluate(self, x: Plan) -> Images:
        """Full evaluation of one plan or a block."""
        return evaluate_images(x, self.techniques, self.situation, self.machine, self.network, self.framework)

    def form(self, x: Plan) -> Mapping[str, Scalar]:
        """Whether counts come out whole."""
        return check_images(x, self.techniques, self.situation, self.network)

    def spent(self, x: Plan) -> None:
        """A limit of the latency needs times."""
        del x

    def judge(self, x: Plan) -> Judged:
        """Score, device count and constraints of a block."""
        run = self.evaluate(x)
        budget = {n: r for n, r in run.ratios.items() if n.endswith("memory") or n == "latency"}
        form = {n: r for n, r in run.ratios.items() if n not in budget}
        budget.update(quality_ratio(run.passes[1].layout, self.quality_budget))
        per_image = run.devices * run.seconds / run.passes[1].layout.images
        score = run.seconds * (1.0 + 1e-6 * run.devices) if self.objective == "time" else per_image
        return Judged(score, run.devices, run.seconds, budget, form)


def evaluate_image_plan(problem: ImageProblem, x: Plan) -> EvaluatedPlan:
    """Evaluate one plan as numbers, with its terms, ledger and metrics."""
    run, machine = problem.evaluate(x), problem.machine
    usual, workload = run.passes[1], problem.situation.workload
    images, seconds, each = float(usual.layout.images), float(run.seconds), round(float(run.devices))
    replicas = max(problem.situation.devices // each, 1)
    denoiser = usual.denoiser
    flops = sum(
        float(p.count * product_flops(denoiser.parts, p.sizes) * p.layout.guidance_split ** (p.kind != "last"))
        for p in run.passes
    )
    whole = sum(float(p.count * product_flops(denoiser.parts, p.sizes)) for p in run.passes)
    rate = replicas * images / seconds
    price = machine.price
    rows = term_rows(run.tree.exposed())
    metrics: dict[str, float | None] = {
        "latency_seconds": seconds,
        "step_seconds": (seconds - sum(r.seconds for r in rows if r.name == "image decoder")) / workload.steps,
        "images_per_second": rate,
        "images_per_second_per_device": rate / (replicas * each),
        "replicas": float(replicas),
        "devices_per_replica": float(each),
        "images_per_replica": images,
        "tera_operations_per_image": flops * float(usual.layout.image_split) / images / 1e12,
        "mfu": whole / seconds / (machine.main.peak(usual.sizes.format) / machine.main.clock),
        "usd_per_thousand_images": None if price is None else 1000.0 * price * replicas * each / rate,
    }
    lines = run.ledgers["only"]
    loss = float(usual.layout.quality_loss + usual.layout.quality_accepted)
    return EvaluatedPlan(
        columns=dict(vars(x)),
        degrees=tuple(Degree(d.name, round(float(d.degree)), "") for d in usual.dims),
        summary=summary_of(x, problem.techniques),
        devices=replicas * each,
        seconds=seconds,
        metrics=metrics,
        terms=rows,
        timed_seconds=seconds,
        bound_seconds=sum(row.bound for row in run.tree.exposed()),
        ledgers=stage_ledgers({"only": lines}, machine.tiers, 1.0),
        bottleneck=bottleneck_of(rows),
        interval=Interval(0.0, 0.0, "not drawn"),
        quality=None if loss != loss or usual.layout.quality_unknown else loss,
        constraints={n: float(r) for n, r in run.ratios.items()},
    )
