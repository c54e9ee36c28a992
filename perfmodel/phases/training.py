"""One training step: settle, emit, compose, and the memory ledger of the first and the last pipeline stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from perfmodel.elementwise import Scalar, is_nothing, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.operators.distinct import collapse
from perfmodel.operators.state import widest
from perfmodel.phases.compose import Beside, Idle, Longest, Node, Serial, Slot, Times
from perfmodel.phases.emit import Known, gathered
from perfmodel.phases.judge import legality, memory_ratios
from perfmodel.phases.loading import loading_terms
from perfmodel.phases.memo import Memo
from perfmodel.phases.pipeline import in_flight, one_forward_one_backward, weight_gradients
from perfmodel.phases.settle_training import settle_training
from perfmodel.phases.training_terms import as_libraries_run, operator_terms, replays, update_terms
from perfmodel.techniques.base import Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, family_sum
from perfmodel.units import Bytes, Seconds

__all__ = [
    "Pieces",
    "Step",
    "check_training",
    "evaluate_training",
    "least_seconds",
    "pieces_of",
    "spend_training",
    "step_tree",
]


@dataclass(frozen=True)
class Step:
    """One evaluated training step; every number may be an array over the mesh.

    Parameters
    ----------
    settled : the record and its derivations.
    tree : composition of the terms.
    seconds : elapsed time of the step [s].
    ledgers : memory lines by stage, ``first`` and ``last``.
    ratios : demand / limit of every constraint; legal up to 1.
    """

    settled: Settled
    tree: Serial
    seconds: Seconds
    ledgers: Mapping[str, tuple[Line, ...]]
    ratios: Mapping[str, Scalar]
    terms: tuple[Term, ...] = field(repr=False, default=())

    @property
    def micro_batches_seconds(self) -> Seconds:
        """All micro-batches on the busiest stage, without the bubble and what comes once [s]."""
        return self.tree.children[0].elapsed()


@dataclass(frozen=True)
class Pieces:
    """What a step is composed of: passes of a layer, the ends and the hand-over, and what comes once after them."""

    layer: Node
    embed: Node
    head: Node
    boundary: Node
    after: tuple[Node, ...]
    outer: tuple[Term, ...]


def pieces_of(s: Settled, terms: Sequence[Term]) -> Pieces:
    """The pieces of a step; gradients travel beside the last backward pass of the heaviest stage."""
    framework = s.framework or {}
    by_slot: dict[str, list[Term]] = {}
    for term in terms:
        by_slot.setdefault(term.slot, []).append(term)

    def slot(name: str) -> Slot:
        interference = framework.get("overlap_interference", 0.0)
        return Slot(tuple(by_slot.get(name, ())), interference=interference, host_late=True)

    last = slot("layer_backward").elapsed()
    if s.layout.schedule is not None:  # gradients are ready with the last pass over the weights alone
        last = weight_gradients(by_slot.get("layer_backward", ()), last)
    window = framework.get("gradient_window", 1.0) * s.first_layers * last
    hidden = 1.0 - framework.get("gradient_exposed", 0.0)
    overhead = Idle("step overhead", framework.get("step_overhead", 0.0) + 0.0 * s.micro_batches)
    forward, backward = s.layout.forward_passes, s.layout.backward_passes
    ends = (forward + 2.0 * backward) / 3.0  # both directions stand in one slot, the backward pass works twice as much
    return Pieces(
        Serial((_passes(forward, slot("layer_forward")), _passes(backward, slot("layer_backward")))),
        _passes(ends, slot("embed")),
        _passes(ends, slot("head")),
        _passes((forward + backward) / 2.0, slot("boundary")),
        (*_syncs(by_slot.get("sync", ()), window, hidden), slot("update"), slot("tail"), overhead),
        tuple(by_slot.get("outer", ())),
    )


def step_tree(s: Settled, terms: Sequence[Term]) -> Serial:
    """Composition of one step: the micro-batches on the busiest stage first, then what comes once."""
    found = pieces_of(s, terms)
    layer, embed, head, boundary = found.layer, found.embed, found.head, found.boundary
    heavy = Times(s.first_layers, layer)
    light = Times(where(s.stages > 1.0, s.last_layers, 0.0), layer)
    spread = (s.framework or {}).get("head_spread", 0.0)
    shared = spread / s.stages
    first = Serial((heavy, embed, Times(where(s.stages > 1.0, shared, 1.0), head)))
    last = Serial((light, Times(where(s.stages > 1.0, 1.0 - spread + shared, 0.0), head)))
    busiest = Serial((Longest((first, last)), boundary))
    every = every_stage(s, found)
    idle = one_forward_one_backward(busiest.elapsed(), every, s)
    if s.layout.schedule is not None:
        others = maximum(every - busiest.elapsed(), 0.0)
        idle = others * s.layout.schedule.bubble(*pass_shares(s, terms))
    bubble = Idle("pipeline bubble", where(s.stages > 1.0, idle, 0.0))
    parts: list[Node] = [Times(s.micro_batches, busiest), bubble, *found.after]
    step = Serial(tuple(parts))
    outer = tuple(_outer(t, step) for t in found.outer)
    return Serial((*parts, *outer)) if outer else step


def every_stage(s: Settled, found: Pieces) -> Seconds:
    """Time of one micro-batch on all stages together [s]."""
    ends = found.embed.elapsed() + found.head.elapsed()
    return s.layers * found.layer.elapsed() + ends + s.stages * found.boundary.elapsed()


def pass_shares(s: Settled, terms: Sequence[Term]) -> tuple[Scalar, Scalar, Scalar]:
    """Shares of a layer's time in the forward pass, the gradients of the inputs and those of the weights.

    What surrounds the layers of a stage is taken to divide likewise.
    """
    layer = pieces_of(s, terms).layer
    assert isinstance(layer, Serial)  # noqa: S101 - narrows the type
    forward, backward = (child.elapsed() for child in layer.children)
    passes = s.layout.backward_passes
    weights = weight_gradients([t for t in terms if t.slot == "layer_backward"], backward / maximum(passes, 1.0))
    weights, whole = weights * passes, layer.elapsed()
    return forward / whole, (backward - weights) / whole, weights / whole


def _passes(count: Scalar, node: Node) -> Node:
    """A node as often as it is passed; plainly once is the node itself."""
    return node if isinstance(count, float) and count == 1.0 else Times(count, node)


def _syncs(terms: Sequence[Term], window: Seconds, hidden: Scalar) -> list[Node]:
    """Gradients travel beside the last backward pass, those on the main lane after it, each in its share of steps."""
    groups: dict[tuple[Scalar, bool], list[Term]] = {}
    for term in terms:
        groups.setdefault((term.every, term.lane == "main"), []).append(term)
    nodes: list[Node] = []
    for (every, after), group in groups.items():
        beside = Beside(0.0 if after else window, tuple(group), 0.0 if after else hidden)
        nodes.append(beside if every == 1.0 else Times(1.0 / every, beside))
    return nodes


def _outer(term: Term, step: Node) -> Node:
    """A term paid every H steps, hidden behind a window of steps."""
    return Times(1.0 / term.every, Beside(term.window * step.elapsed(), (term,)))


def _ledger(
    s: Settled, machine: Machine, extra: Sequence[Line], *, first: bool, framework: Mapping[str, float]
) -> tuple[Line, ...]:
    """Memory of one stage, line by line [B per device]."""
    tier, layout = machine.main.tier, s.layout

    def states(shards: Scalar, width: Scalar) -> Scalar:
        return family_sum(s.families, lambda f: (f.first if first else f.last) / f.shards(shards) * width)

    def of_backward(size: Bytes) -> Bytes:
        """States that exist because a backward pass does."""
        once = layout.backward_passes
        return size if isinstance(once, float) and once == 1.0 else size * once

    layers = s.first_layers if first else s.last_layers
    held = in_flight(s)[0 if first else 1]
    per_token = 0.0
    if s.kept is not None:
        per_token = s.kept.boundary + layout.kept * s.kept.inner + layout.kept_scores * s.kept.scores
    if not is_nothing(framework.get("gathered_inputs", 0.0)):
        whole = 2.0 * s.architecture.hidden * s.sizes.element_bytes
        per_token = per_token + framework["gathered_inputs"] * where(s.sizes.weight_split > 1.0, whole, 0.0)
    if not is_nothing(framework.get("kept_extra", 0.0)):
        extra_bytes = framework["kept_extra"] * s.architecture.hidden / s.sizes.weight_split
        per_token = per_token + layout.kept * extra_bytes
    activations = of_backward(held * layers * s.sizes.tokens * per_token * framework.get("kept_scale", 1.0))
    with_head = where(s.stages > 1.0, 0.0, 1.0) if first else 1.0
    per_logit = framework.get("logit_memory", framework.get("logit_bytes", 10.0))
    logits = per_logit * s.sizes.tokens * s.architecture.vocab / s.sizes.weight_split * with_head
    scale = framework.get("states_scale", 1.0)
    lines = [
        Line("weights", tier, _staying(scale * states(layout.weights_shards, s.weights_bytes), layout.weights_off)),
        Line(
            "gradients",
            tier,
            _staying(of_backward(scale * states(layout.gradients_shards, s.gradients_bytes)), layout.gradients_off),
        ),
        Line(
            "optimizer",
            tier,
            of_backward(states(layout.optimizer_shards, s.optimizer_bytes)) * (1.0 - layout.optimizer_off),
        ),
        Line("activations", tier, _staying(activations, layout.activations_off)),
        Line("logits", tier, logits),
        Line("workspace", tier, s.sizes.tokens * widest(s.architecture) / s.sizes.weight_split * s.sizes.element_bytes),
        *extra,
        Line("fragmentation", tier, framework.get("fragmentation", 0.0) * machine.main.capacity),
        Line("runtime", tier, framework.get("runtime_memory", 0.0)),
    ]
    if not is_nothing(layout.activations_off):
        lines.append(Line("offloaded activations", "host", activations * layout.activations_off))
    return tuple(lines)


def _staying(size: Bytes, off: Scalar) -> Bytes:
    """What stays on the device of a state of which a share leaves it [B]."""
    return size if is_nothing(off) else size * (1.0 - off)


def check_training(
    x: Plan,
    techniques: Sequence[Technique],
    situation: Situation,
    network: Network,
    framework: Mapping[str, float],
) -> tuple[Settled, dict[str, Scalar]]:
    """Settle a plan and say how well formed it is: demand / limit of every count and divisibility."""
    settled, ratios = settle_training(x, techniques, situation, network, framework)
    return settled, legality(x, settled, techniques, situation, ratios)


def spend_training(
    x: Plan,
    techniques: Sequence[Technique],
    situation: Situation,
    machine: Machine,
    network: Network,
    framework: Mapping[str, float],
) -> tuple[Settled, dict[str, tuple[Line, ...]], dict[str, Scalar]]:
    """Settle a plan and say what it takes up, without any time: record, memory by stage, every constraint."""
    settled, ratios = check_training(x, techniques, situation, network, framework)
    lines = [line for technique in techniques for line in technique.memory(x, settled, machine)]
    ledgers = {
        stage: _ledger(settled, machine, lines, first=stage == "first", framework=framework)
        for stage in ("first", "last")
    }
    return settled, ledgers, {**ratios, **memory_ratios(ledgers, machine)}


def _operators(
    s: Settled, machine: Machine, memo: Memo[list[Term]] | None, *, power: bool = False, known: Known = None
) -> list[Term]:
    """Terms of the model itself under sustained load; sizes that repeat over a mesh are timed once."""
    small, expand = collapse(s.sizes)
    loaded = as_libraries_run(machine)
    terms = (memo or Memo()).get(small, lambda: operator_terms(replace(s, sizes=small), loaded, known))
    split = s.layout.schedule is not None
    return gathered(terms, expand, power=power, split=split) if expand else list(terms)


def least_seconds(s: Settled, machine: Machine, memo: Memo[list[Term]] | None = None) -> Seconds:
    """Seconds below which no step of a settled plan gets: the model's own operators alone, nothing exchanged [s]."""
    terms = _operators(s, machine, memo)
    tree = step_tree(s, [*terms, *replays(s, terms)])
    return tree.elapsed() if s.layout.schedule is None else tree.children[0].elapsed()


def evaluate_training(
    x: Plan,
    techniques: Sequence[Technique],
    situation: Situation,
    machine: Machine,
    network: Network,
    framework: Mapping[str, float],
    memo: Memo[list[Term]] | None = None,
    *,
    power: bool = False,
    known: Known = None,
) -> Step:
    """Evaluate one plan, or a whole mesh of plans at once.

    Parameters
    ----------
    x : plan columns; numbers, or arrays that broadcast against each other.
    techniques : the active ones.
    situation, machine, network : what the plan runs on.
    framework : behaviour constants of the training software, in base units.
    memo : remembers operator terms between slabs that share sizes.
    known : kernel times that evaluations of the same rows under other framework constants share.
    power : follow how busy compute units and memory are, for a whole mesh too.
    """
    ring_only = framework.get("ring_only", 0.0) > 0.0
    network = network.in_job(framework.get("collective_share", 1.0), ring_only=ring_only)
    settled, ledgers, ratios = spend_training(x, techniques, situation, machine, network, framework)
    network = network._replace(overlapping=settled.layout.overlapping_rings)
    operators = _operators(settled, machine, memo, power=power, known=known)
    technique_terms = [term for technique in techniques for term in technique.terms(x, settled, machine, network)]
    loading = loading_terms(situation.workload, machine, x.devices)
    terms = [*operators, *technique_terms, *update_terms(settled, machine), *loading]
    terms += replays(settled, terms)
    tree = step_tree(settled, terms)
    return Step(settled, tree, tree.elapsed(), ledgers, ratios, tuple(terms))
