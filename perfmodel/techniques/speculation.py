"""Speculative decoding: something cheap drafts tokens, and one pass of the model verifies them all.

The technique knows no method by name: what drafts is a record (`specs/drafters.yaml`), how much of it is accepted a row
of published numbers or the workload's word. Where neither is there, nothing is proposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from perfmodel.elementwise import Scalar, ceil, maximum
from perfmodel.errors import SpecError
from perfmodel.machine.build import Machine
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.collectives import all_reduce
from perfmodel.network.topology import Network
from perfmodel.operators.drafting import Drafting, drafting
from perfmodel.operators.drafts import Tree, draft_tree, first_acceptance
from perfmodel.operators.layers import Call
from perfmodel.operators.state import key_value_bytes, recurrent_bytes
from perfmodel.specs.architecture import Architecture, Attention
from perfmodel.specs.drafters import drafter, drafters
from perfmodel.specs.quality.acceptance import Accepted, accepted_rows, published_acceptance
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import Seconds

__all__ = ["TECHNIQUE"]

OFF = "none"
NAME = "speculation"
TOKEN_BYTES = 4.0
"""A token on the way [B]."""
CHAINS = (1, 2, 3, 4, 5, 6, 7, 8)
"""Lengths of chains that are searched."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, and drafters with the numbers of tokens they draft, as chains and as trees.

    Those that were named; without names those that something was published about for this very model.
    """
    named = situation.choices(NAME)
    for name in named:
        if _acceptance(name, situation) is None:
            raise SpecError(
                "nobody published how much of these drafts this model accepts", field="use", found=f"{NAME}={name}",
                allowed="--set-workload acceptance=0.7, the share of drafted tokens that is accepted; published for "
                "some model: " + ", ".join(sorted({row.drafter for row in accepted_rows()})),
            )  # fmt: skip
    known = named or tuple(n for n in drafters() if _published(n, situation) is not None)
    values = [(OFF, 0, 0), *(v for name in known for v in _sizes(name, situation.architecture))]
    sizes = Axis((NAME, "drafted", "branching"), tuple(values), structural=True)
    return (sizes, Axis.of("draft_engine", ["main", *_elsewhere(situation.machine)], structural=True))


def _elsewhere(machine: Machine) -> list[str]:
    """Engines with a memory of their own that run whole layers."""
    beside = ((n, e) for n, e in machine.engines.items() if n not in ("main", "host"))
    return [n for n, e in beside if e.link is not None and {"gemm", "attention", "decode_attention"} <= e.runs]


def _sizes(name: str, architecture: Architecture) -> Iterable[tuple[str, int, int]]:
    """Chains, and trees where states of a sequence can branch."""
    record = drafter(name)
    lengths = record.sizes if record.branching == 1 else [n for n in CHAINS if n <= record.depth]
    yield from ((name, n, 1) for n in sorted(set(lengths)))
    if record.branching > 1 and not _recurrent(architecture):
        yield from ((name, n, record.branching) for n in sorted(set(record.sizes)))


def _recurrent(architecture: Architecture) -> bool:
    return bool(recurrent_bytes(architecture, kv_split=1.0))


def _published(name: str, situation: Situation) -> Accepted | None:
    architecture, task = situation.architecture, situation.workload.task
    return published_acceptance(name, architecture.family, architecture.parameters, task)


def _acceptance(name: str, situation: Situation) -> tuple[float, ...] | None:
    """Acceptance of the best candidate, position by position; ``None`` where nobody knows it."""
    record, stated = drafter(name), situation.workload.acceptance
    if stated is not None:
        return (stated,) * record.depth
    row = _published(name, situation)
    if row is None:
        return None
    first = first_acceptance(
        row.tokens, record.fade.value, record.breadth.value, row.drafted, record.depth, row.branching
    )
    return tuple(first * record.fade.value**i for i in range(record.depth))


def _tree(x: Plan, situation: Situation) -> Tree:
    """Candidates of a plan and what they gain; sizes left at 0 are those of the record."""
    record, accepted = drafter(x.speculation), _acceptance(x.speculation, situation)
    branching = int(x.branching) or (1 if _recurrent(situation.architecture) else record.branching)
    nodes = int(x.drafted) or (record.depth if branching == 1 < record.branching else record.sizes[-1])
    if accepted is None:
        return Tree((nodes,), (1,), float("nan"))
    return draft_tree(accepted, record.breadth.value, nodes, branching)


@lru_cache(maxsize=64)
def _model(name: str) -> Architecture:
    from perfmodel.specs.locate import find_model
    from perfmodel.specs.model import load_model

    return load_model(find_model(name)).architecture


def _drafting(x: Plan, s: Settled | Situation, tree: Tree) -> Drafting:
    record = drafter(x.speculation)
    model = None if record.model is None else _model(record.model)
    return drafting(record, s.architecture, record.depth if record.together else len(tree.widths), model)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Tokens verified and gained per pass; no loss of quality is published where the distribution is not kept."""
    if x.speculation == OFF:
        return {}
    tree = _tree(x, situation)
    loss = {} if drafter(x.speculation).lossless else {"quality_loss": float("nan")}
    return {"verify_tokens": tree.nodes + 1.0, "tokens_per_pass": tree.tokens, **loss}


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """The drafter over the tokens of every pass, then position by position behind a decode pass."""
    if x.speculation == OFF:
        return []
    tree = _tree(x, s.situation)
    found = _drafting(x, s, tree)
    s, engine = _on(x.draft_engine, s), machine.engine(x.draft_engine)
    calls = found.over_the_pass(s.sizes)
    emitted = []
    for core in (False, True):
        part = [c for c in calls if (c.region == "attention core") is core]
        emitted.append(_term("layer", part, engine, s, 1.0 / s.layers, core=core))
    if calls and engine.name == "main":
        emitted.append(_sums(s, net, found.again + found.once, s.sizes.tokens, "layer", 1.0 / s.layers))
    if s.sizes.decode:
        emitted += [*_positions(found, tree, s, engine, net), *_snapshots(tree, s, machine)]
        emitted += _crossing(found, tree, s, engine)
    return emitted


def _on(engine: str, s: Settled) -> Settled:
    """The pass as another engine sees it, which shares no matrix with other ranks."""
    if engine == "main":
        return s
    return replace(s, sizes=replace(s.sizes, weight_split=1.0, expert_split=1.0, expert_tensor=1.0))


def _positions(found: Drafting, tree: Tree, s: Settled, engine: Engine, net: Network) -> list[Term]:
    """Drafting, position by position or all at once, and the host that launches it."""
    host = (s.framework or {}).get("host_per_draft", 0.0)
    if found.record.together or found.idle:
        once = _term("head", found.at_once(s.sizes), engine, s)
        return [once, Term("draft launches", "head", "host cpu", host)]
    emitted = []
    for position, width in enumerate(tree.parents):
        calls = found.position(s.sizes, position, width, first=position == 0)
        emitted.append(_term("head", calls, engine, s))
        emitted.append(Term("draft launches", "head", "host cpu", host))
        if found.again and engine.name == "main" and not (position == 0 and found.own):
            emitted.append(_sums(s, net, found.again, s.sizes.sequences * width, "head"))
    return emitted


def _crossing(found: Drafting, tree: Tree, s: Settled, engine: Engine) -> list[Term]:
    """Candidates go to the model, and what it found comes back: tokens, or features too; a round trip each pass."""
    if engine.link is None:
        return []
    back = s.architecture.hidden * s.sizes.element_bytes if found.reads_features else 0.0
    moved = s.sizes.sequences * (tree.nodes + 1.0) * (2.0 * TOKEN_BYTES + back)
    return [Term("draft link", "head", f"{engine.name} link", moved / engine.link + 2.0 * engine.link_latency)]


def _term(
    slot: str, calls: Sequence[Call], engine: Engine, s: Settled, scale: float = 1.0, *, core: bool = False
) -> Term:
    """All calls as one term, no quicker than they are launched."""
    seconds: Seconds = 0.0
    compute: Seconds = 0.0
    memory: Seconds = 0.0
    for call in calls:
        kernel = kernel_time(call.work, engine)
        seconds = seconds + kernel.seconds * call.share
        compute, memory = compute + kernel.compute * call.share, memory + kernel.memory * call.share
    launch = (s.framework or {}).get("launch_per_operation", 0.0)
    operations = sum(c.share for c in calls if c.component != "elementwise")
    here = scale if engine.name == "main" else 0.0
    there = scale * (engine.draw.limit - engine.draw.idle) if engine.name != "main" else 0.0
    return Term(
        "draft", slot, engine.tier, maximum(seconds, launch * operations) * scale, core=core,
        compute=compute * here, memory=memory * here, joules=seconds * there,
    )  # fmt: skip


def _sums(s: Settled, net: Network, layers: float, tokens: Scalar, slot: str, scale: float = 1.0) -> Term:
    """Two sums per decoder layer among tensor ranks."""
    seconds = all_reduce(net, s.along("tensor"), tokens * s.architecture.hidden * s.sizes.element_bytes)
    return Term("draft sync", slot, "network", 2.0 * layers * scale * seconds)


def _snapshots(tree: Tree, s: Settled, machine: Machine) -> list[Term]:
    """Recurrent states are kept behind every drafted token, for those that are rejected have changed them."""
    state = recurrent_bytes(s.architecture, kv_split=s.split("kv"))
    if not state:
        return []
    moved = s.sizes.sequences * tree.nodes * state
    return [Term("state snapshots", "layer", machine.main.tier, moved / machine.main.bandwidth)]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Weights of the drafter, its own keys and values, and those of tokens that may be rejected."""
    if x.speculation == OFF:
        return []
    tree = _tree(x, s.situation)
    found = _drafting(x, s, tree)
    kv = s.split("kv")
    grown = key_value_bytes(s.architecture, 1.0, kv_split=kv, kv_bytes=s.sizes.kv_bytes)
    held = grown + recurrent_bytes(s.architecture, kv_split=kv)
    tier = machine.engine(s.layout.attention_engine).tier
    there, own = _on(x.draft_engine, s).sizes, machine.engine(x.draft_engine).tier
    split = kv if x.draft_engine == "main" else 1.0
    return [
        Line("draft weights", own, found.weights(there.weight_split, there.expert_split)),
        Line("draft KV cache", own, s.batch * found.cache(s.context, split, s.sizes.kv_bytes)),
        Line("tokens to verify", tier, s.batch * tree.nodes * s.first_layers * held),
    ]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Heads of a model that drafts divide among tensor ranks as those of the model do."""
    del situation
    worst: Scalar = 1.0
    record = None if x.speculation == OFF else drafter(x.speculation)
    if record is not None and record.model is not None:
        for run in _model(record.model).runs:
            if isinstance(run.layer.mixer, Attention):
                heads, split = run.layer.mixer.heads, _on(x.draft_engine, s).sizes.weight_split
                worst = maximum(worst, ceil(heads / split) * split / heads)
    return {"draft heads": worst}


def describe(x: Plan) -> str:
    """Who drafts, and how many tokens."""
    if x.speculation == OFF:
        return ""
    record = drafter(x.speculation)
    many = int(x.drafted) or record.sizes[-1]
    form = "tree" if (int(x.branching) or record.branching) > 1 else "chain"
    where = "" if x.draft_engine == "main" else f" on {x.draft_engine}"
    which = x.speculation.partition(":")[2]
    return f"drafts by {record.title}{', ' + which if which else ''} ({form} of {many}){where}"


def assumes(x: Plan, situation: Situation) -> Sequence[tuple[str, str]]:
    """The acceptance that the plan stands on, and where it comes from; why nothing drafts where somebody could."""
    if x.speculation == OFF:
        known = bool(situation.choices(NAME)) or any(_published(n, situation) for n in drafters())
        why = "no drafts that were searched pay in this plan"
        unknown = "no drafts: nobody published how much of any this model accepts"
        flag = "--pin speculation=…" if known else "--use speculation=NAME --set-workload acceptance=…"
        return [(why if known else unknown, flag)]
    tree, row = _tree(x, situation), _published(x.speculation, situation)
    gain = f"{tree.nodes} drafted tokens gain {tree.tokens:.2f} per pass"
    stated = situation.workload.acceptance
    if stated is not None:
        return [(f"{gain}: acceptance of {stated:.0%} at every position, as stated", "--set-workload acceptance=…")]
    if row is None:
        return []
    measured = f"{row.tokens:g} with {row.drafted} published for {row.model}, {row.task} ({row.source})"
    return [(f"{gain}, from {measured}", "--set-workload acceptance=…")]


TECHNIQUE = Technique(
    name=NAME,
    summary="tokens drafted by something cheap are verified in one pass",
    source="Y. Leviathan et al., arXiv:2211.17192; T. Cai et al. (Medusa), arXiv:2401.10774; "
    "Y. Li et al. (EAGLE), arXiv:2401.15077",
    phases=frozenset({"serving"}),
    neutral={NAME: OFF, "drafted": 0, "branching": 0, "draft_engine": "main"},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    by_name=True,
    describe=describe,
    choice=NAME,
    assumes=assumes,
    pays_within="batch",
    telling=("speculation",),
)
