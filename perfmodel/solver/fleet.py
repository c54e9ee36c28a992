"""Training on groups of unlike machines: stages of one pipeline on groups, or replicas of the whole model on groups.

Every group is a machine with its own engines and network, and its stage times come from the same terms and composition
as any plan. Groups meet in the link between them only: activations of the pipeline cross it, or gradients of replicas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from perfmodel.phases.compose import Exposure, Idle, Longest, Node, Serial, Slot, Times
from perfmodel.phases.training import Pieces, Step, pieces_of
from perfmodel.solver.partition import Partition, fluid_bound, partition
from perfmodel.solver.problems import TrainingProblem
from perfmodel.specs.architecture import Architecture
from perfmodel.techniques.base import Term
from perfmodel.techniques.settled import Plan

__all__ = ["Group", "Layout", "Link", "Staged", "across_pipeline", "replicated"]

MICRO_BATCHES = (1, 2, 4, 8)
STAGES = (1, 2, 4, 8, 16, 32)
ALL = float(2**40)


class Link(NamedTuple):
    """What joins groups: bandwidth of one node [B/s], latency of a message [s], share that large transfers reach."""

    bandwidth: float
    latency: float
    efficiency: float


@dataclass(frozen=True)
class Group:
    """Machines of one kind: the planning problem of training on them, by name."""

    name: str
    problem: TrainingProblem

    @property
    def devices(self) -> int:
        """Main engines of the group."""
        return int(self.problem.machine.devices)

    @property
    def nodes(self) -> int:
        """Nodes of the group."""
        return -(-self.devices // self.problem.machine.per_node)


class Layout(NamedTuple):
    """How one group is used."""

    group: str
    tp: int
    pp: int
    dp: int
    micro_batch: int
    recompute: int
    sharded: bool
    """Whether the optimizer is sharded over the data-parallel ranks."""


@dataclass(frozen=True)
class Staged:
    """An evaluated arrangement.

    Parameters
    ----------
    kind : ``pipeline`` over groups or ``replicas`` on groups.
    layouts : one per group, in the order of the pipeline.
    layers : layers of every stage, all groups in order.
    stage_seconds : one micro-batch of every stage [s].
    micro_batches : passes of a step, by group.
    shares : share of the global batch, by group; all of it in a pipeline.
    tree : composition of the step; its exposed rows add up to ``seconds``.
    bound : the same layouts with layers that flow freely over the stages, and nothing else [s].
    tried : values of the slowest stage for which the dynamic programme ran.
    """

    kind: str
    layouts: tuple[Layout, ...]
    layers: tuple[int, ...]
    stage_seconds: tuple[float, ...]
    micro_batches: tuple[int, ...]
    shares: tuple[float, ...]
    tree: Node
    bound: float
    tried: int

    @cached_property
    def seconds(self) -> float:
        """Time of a step [s]."""
        return float(self.tree.elapsed())

    def exposed(self) -> list[Exposure]:
        """Where the time goes."""
        return self.tree.exposed()


class Stages:
    """Stage costs of a group: evaluations of its machine with so many layers per stage, remembered."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._steps: dict[tuple[Layout, float, int], Step] = {}
        self._pieces: dict[tuple[Layout, float, int], Pieces] = {}
        self._layer: dict[tuple[int, int, int], float] = {}
        situation = group.problem.situation
        self.whole: Architecture = situation.architecture
        self.sequences = situation.workload.global_batch // situation.workload.sequence

    def step(self, layout: Layout, layers: float, stages: int, batch: int | None = None) -> Step:
        """A pipeline of ``stages`` equal stages of ``layers`` layers each on machines of this group."""
        key = (layout, layers, stages) if batch is None else (layout, layers + 1000.0 * batch, stages)
        if key not in self._steps:
            problem = self.group.problem
            share = layers * stages / self.whole.layers
            # a share of the layers may be no whole number of each kind: counts are only ever added up and divided
            runs = tuple(run._replace(count=run.count * share) for run in self.whole.runs)  # type: ignore[arg-type]
            cut = problem.situation._replace(architecture=replace(self.whole, runs=runs))
            if batch is not None:
                tokens = batch * cut.workload.sequence
                cut = cut._replace(workload=cut.workload.model_copy(update={"global_batch": tokens}))
            self._steps[key] = replace(problem, situation=cut).evaluate(self._plan(layout, stages))
        return self._steps[key]

    def _plan(self, layout: Layout, stages: int) -> Plan:
        x = {n: float(v) if isinstance(v, (int, float)) else v for t in self.group.problem.techniques
             for n, v in t.neutral.items()}  # fmt: skip
        x |= {"tp": float(layout.tp), "pp": float(stages), "micro_batch": float(layout.micro_batch)}
        x |= {"recompute": float(layout.recompute), "devices": float(layout.tp * layout.dp * stages)}
        if layout.sharded:
            x["optimizer_group"] = ALL
        return Plan(**x)

    def layer_seconds(self, layout: Layout) -> float:
        """One micro-batch through one layer, forward and backward [s]."""
        key = (layout.tp, layout.micro_batch, layout.recompute)
        if key not in self._layer:
            self._layer[key] = float(self.pieces(layout, 1.0, 1).layer.elapsed())
        return self._layer[key]

    def pieces(self, layout: Layout, layers: float, stages: int) -> Pieces:
        """What the step of such a pipeline is composed of."""
        key = (layout, layers, stages)
        if key not in self._pieces:
            step = self.step(layout, layers, stages)
            self._pieces[key] = pieces_of(step.settled, step.terms)
        return self._pieces[key]

    def legal(self, layout: Layout) -> bool:
        """Whether the counts of the layout come out whole (heads, sequences); memory and layers are judged later."""
        step = self.step(layout, 1.0, 1)
        later = ("device count", "layers", "interleaving")
        return all(r <= 1.0 + 1e-9 for n, r in step.ratios.items() if n not in later and not n.endswith("memory"))

    def most_layers(self, layout: Layout, index: int, stages: int) -> int:
        """Layers that the memory of stage ``index`` holds; every line of its ledger is linear in them."""
        most = self.whole.layers
        for tier, capacity in self.group.problem.machine.tiers.items():
            one, two = (self._bytes(layout, n, index, stages, tier) for n in (1.0, 2.0))
            if two > one:
                most = min(most, int((capacity - one) / (two - one)) + 1)
            if one > capacity:
                return 0
        return most

    def _bytes(self, layout: Layout, layers: float, index: int, stages: int, tier: str) -> float:
        """Memory of a stage: 1F1B holds ``stages - index`` micro-batches on it; inner ones count the embedding."""
        step = self.step(layout, layers, stages)
        last = index == stages - 1
        lines = step.ledgers["last" if last and stages > 1 else "first"]
        held = 1.0 if last else (stages - index) / stages
        return sum(float(x.bytes) * (held if x.name == "activations" else 1.0) for x in lines if x.tier == tier)


def layouts(group: Group, wave: int) -> Iterator[Layout]:
    """Ways to use all devices of a group so that ``wave`` sequences are in one micro-batch of all its ranks."""
    per_node = group.problem.machine.per_node
    for tp, pp in product([n for n in (1, 2, 4, 8, 16) if n <= per_node], STAGES):
        dp, rest = divmod(group.devices, tp * pp)
        if rest or not dp or wave % dp or wave // dp not in MICRO_BATCHES:
            continue
        for recompute, sharded in product((0, 1, 2), (False, True) if dp > 1 else (False,)):
            yield Layout(group.name, tp, pp, dp, wave // dp, recompute, sharded)


def across_pipeline(groups: Sequence[Group], link: Link, pins: Mapping[str, int]) -> tuple[Staged | None, int]:
    """The best pipeline through all groups, and how many arrangements were considered.

    Arrangements are sorted by a bound that no placement of layers beats (layers flow freely) and evaluated until the
    bound exceeds the best: what is left out is proven not to win.
    """
    costs = {g.name: Stages(g) for g in groups}
    sequences = costs[groups[0].name].sequences
    bounds: list[tuple[float, tuple[Layout, ...], int]] = []
    waves = [w for w in range(1, sequences + 1) if sequences % w == 0]
    for wave in waves:
        choices = [[x for x in layouts(g, wave) if _pinned(x, pins) and costs[g.name].legal(x)] for g in groups]
        speeds = [[costs[x.group].layer_seconds(x) for x in some] for some in choices]
        passes = sequences // wave
        for picked in product(*(range(len(some)) for some in choices)):
            used = tuple(some[i] for some, i in zip(choices, picked, strict=True))
            if len({x.recompute for x in used}) > 1 or sum(x.pp for x in used) > costs[groups[0].name].whole.layers:
                continue
            per_layer = np.array([s[i] for s, i, x in zip(speeds, picked, used, strict=True) for _ in range(x.pp)])
            bounds.append((fluid_bound(per_layer, costs[used[0].group].whole.layers, passes), used, passes))
    bounds.sort(key=lambda item: item[0])
    best: Staged | None = None
    for bound, used, passes in bounds:
        if best is not None and bound >= best.seconds:
            break
        for order in permutations(used):
            found = _staged(costs, order, passes, link, bound)
            if found is not None and (best is None or found.seconds < best.seconds):
                best = found
    return best, len(bounds)


def _pinned(layout: Layout, pins: Mapping[str, int]) -> bool:
    return all(getattr(layout, n) == v for n, v in pins.items() if n in Layout._fields)


def _staged(
    costs: Mapping[str, Stages], order: Sequence[Layout], passes: int, link: Link, bound: float
) -> Staged | None:
    """Partition the layers over the stages of the groups in this order, then compose the step."""
    places = [x for x in order for _ in range(x.pp)]
    stages, layers = len(places), costs[order[0].group].whole.layers
    extra = _ends(costs, places, link)
    table = np.full((stages, layers + 1), np.inf)
    for i, x in enumerate(places):
        most = costs[x.group].most_layers(x, i, stages)
        counts = np.arange(1, most + 1)
        table[i, 1 : most + 1] = costs[x.group].layer_seconds(x) * counts + sum(n.elapsed() for n in extra[i])
    found = partition(table, passes)
    if found is None:
        return None
    tree = _compose(costs, places, found, extra, passes)
    seconds = tuple(float(table[i, n]) for i, n in enumerate(found.layers))
    whole = (1.0,) * len(order)
    return Staged(
        "pipeline", tuple(order), found.layers, seconds, (passes,) * len(order), whole, tree, bound, found.tried
    )


def _ends(costs: Mapping[str, Stages], places: Sequence[Layout], link: Link) -> list[tuple[Node, ...]]:
    """What each stage does beside its layers: embedding, head, and the hand-over to the next one."""
    stages, found = len(places), []
    for i, x in enumerate(places):
        pieces = costs[x.group].pieces(x, 1.0, x.pp)
        edge = (places[i], places[i + 1]) if i + 1 < stages else (places[i - 1], places[i]) if i else None
        hop: Node = pieces.boundary
        if edge is not None and edge[0] is not edge[1]:
            hop = _crossing(costs, edge, link)
        ends = ([pieces.embed] if i == 0 else []) + ([pieces.head] if i == stages - 1 else [])
        found.append((*ends, hop) if stages > 1 else tuple(ends))
    return found


def _crossing(costs: Mapping[str, Stages], edge: tuple[Layout, Layout], link: Link) -> Node:
    """Activations and gradients over the link between two groups; the side with less bandwidth decides."""
    slowest = 0.0
    for x in edge:
        stages = costs[x.group]
        s = stages.step(x, 1.0, 1).settled
        per_device = link.bandwidth * link.efficiency / min(stages.group.problem.machine.per_node, x.tp * x.dp)
        hop = link.latency + float(s.boundary_bytes) / per_device
        exposed = (s.framework or {}).get("pipeline_exposed", 1.0)
        slowest = max(slowest, exposed * sum(p for _, p in s.slots) * hop)
    return _single(Term("hand-over between groups", "boundary", "network", slowest))


def _single(term: Term) -> Node:
    return Slot((term,))


def _compose(
    costs: Mapping[str, Stages],
    places: Sequence[Layout],
    found: Partition,
    extra: Sequence[tuple[Node, ...]],
    passes: int,
) -> Node:
    """The slowest stage every micro-batch, the others once, then the slowest of what each does after the last pass."""
    stages: list[Node] = []
    after: list[Node] = []
    for x, layers, ends in zip(places, found.layers, extra, strict=True):
        pieces = costs[x.group].pieces(x, float(layers), x.pp)
        stages.append(Serial((Times(float(layers), pieces.layer), *ends)))
        after.append(Serial(pieces.after))
    busiest = Longest(tuple(stages))
    fill = sum(float(n.elapsed()) for n in stages) - float(busiest.elapsed())
    return Serial((Times(float(passes), busiest), Idle("pipeline bubble", fill), Longest(tuple(after))))


def replicated(
    groups: Sequence[Group], link: Link, pins: Mapping[str, int], *, equal: bool = False
) -> tuple[Staged | None, int]:
    """Whole replicas on every group, the batch split by speed (or equally), gradients summed over the link."""
    costs = {g.name: Stages(g) for g in groups}
    sequences = costs[groups[0].name].sequences
    options = {g.name: list(_own_layouts(g, costs[g.name], pins)) for g in groups}
    considered = sum(len(some) for some in options.values())
    if not all(options.values()):
        return None, considered
    share = {g.name: 1.0 / len(groups) for g in groups}
    chosen: dict[str, tuple[Layout, int, Node]] = {}
    for _ in range(1 if equal else 4):
        for g in groups:
            chosen[g.name] = min(
                (_alone(costs[g.name], x, share[g.name] * sequences) for x in options[g.name]),
                key=lambda item: float(item[2].elapsed()),
            )
        speed = {n: share[n] / float(tree.elapsed()) for n, (_, _, tree) in chosen.items()}
        share = share if equal else {n: v / sum(speed.values()) for n, v in speed.items()}
    taken = {n: passes * x.dp * x.micro_batch / sequences for n, (x, passes, _) in chosen.items()}
    if sum(taken.values()) < 1.0 - 1e-9:
        return None, considered
    sync = _gradients(groups, costs, [chosen[g.name][0] for g in groups], link)
    tree = Serial((Longest(tuple(chosen[g.name][2] for g in groups)), sync))
    found = [chosen[g.name] for g in groups]
    layers = tuple(n for x, _, _ in found for n in _even(costs[x.group].whole.layers, x.pp))
    seconds = tuple(
        costs[x.group].layer_seconds(x) * n for x, _, _ in found for n in _even(costs[x.group].whole.layers, x.pp)
    )
    shares = tuple(taken[g.name] for g in groups)
    passes = tuple(p for _, p, _ in found)
    return Staged("replicas", tuple(x for x, _, _ in found), layers, seconds, passes, shares, tree, 0.0, 0), considered


def _own_layouts(group: Group, costs: Stages, pins: Mapping[str, int]) -> Iterator[Layout]:
    """Layouts of a group that hold the whole model."""
    for wave in sorted({group.devices // k * b for k in range(1, group.devices + 1) for b in MICRO_BATCHES}):
        for x in layouts(group, wave):
            if x.pp > costs.whole.layers or not _pinned(x, pins) or not costs.legal(x):
                continue
            ratios = costs.step(x, costs.whole.layers / x.pp, x.pp).ratios
            if all(r <= 1.0 + 1e-9 for n, r in ratios.items() if n.endswith("memory")):
                yield x


def _alone(costs: Stages, x: Layout, sequences: float) -> tuple[Layout, int, Node]:
    """One group's step on its share of the batch, in whole micro-batches."""
    passes = max(1, round(sequences / (x.dp * x.micro_batch)))
    step = costs.step(x, costs.whole.layers / x.pp, x.pp, batch=passes * x.dp * x.micro_batch)
    return x, passes, step.tree


def _gradients(groups: Sequence[Group], costs: Mapping[str, Stages], used: Sequence[Layout], link: Link) -> Node:
    """Ring over the groups: every node carries its part of all gradients, the group with fewest nodes decides."""
    count = len(groups)
    wire = max(float(costs[x.group].step(x, 1.0, 1).settled.gradients_wire) for x in used)
    volume = costs[used[0].group].whole.parameters * wire
    rate = min(g.nodes for g in groups) * link.bandwidth * link.efficiency
    seconds = 2.0 * (count - 1) / count * volume / rate + 2.0 * (count - 1) * link.latency if count > 1 else 0.0
    return _single(Term("gradient sync between groups", "sync", "network", seconds))


def _even(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of stages that share them evenly."""
    return tuple(layers // stages + (i < layers % stages) for i in range(stages))
