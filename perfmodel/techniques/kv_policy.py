"""Fewer keys and values: tokens that leave the cache for good, or stay but are read only where a look-up finds them.

The technique knows shares and clusters, not names: each published policy is a record of a table. What it costs in
quality is published for few models; elsewhere it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, maximum
from perfmodel.errors import SpecError
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators.state import key_value_bytes
from perfmodel.operators.streaming import elementwise
from perfmodel.specs.architecture import Architecture, Attention
from perfmodel.specs.kv_policies import kv_policies, kv_policy
from perfmodel.specs.quality import Loss, published_loss, published_rows
from perfmodel.specs.records import OFF
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled, tokens_kept

__all__ = ["TECHNIQUE"]

NAME = "kv_policy"
SCORE_BYTES = 4.0
"""A score is kept in fp32 [B]."""
SCORE_FLOPS = 20.0
"""Operations to add a share of the attention, with noise, to a score: as many as to draw one normal number."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Off, and the policies that were named; without names those whose quality is published for some model.

    A policy for a fixed context is proposed only where requests have one in common.
    """
    named = situation.choices(NAME)
    published = {row.variant for row in published_rows() if row.technique == NAME}
    fixed = situation.workload.shared_prefix > 0
    wanted = named or tuple(n for n, p in kv_policies().items() if n in published and (fixed or not p.levels))
    for name in wanted:
        if kv_policy(name).levels and not fixed:
            raise SpecError(
                "this policy reads a part of a context that all requests share, and the workload has none",
                field=f"use.{NAME}", found=name, allowed="a workload with shared_prefix",
            )  # fmt: skip
    return (Axis.of("kv_policy", (OFF, *wanted), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """What stays and what is read, and the published loss for this very model."""
    if x.kv_policy == OFF:
        return {}
    record, loss = kv_policy(x.kv_policy), quality(x, situation)
    return {
        "kv_kept": record.kept,
        "kv_budget": float("inf") if record.budget is None else float(record.budget),
        "kv_read": record.read,
        "kv_compared": record.compared,
        "quality_loss": float("nan") if loss is None else loss.value,
    }


def quality(x: Plan, situation: Situation) -> Loss | None:
    """What is published for the policy on this model; no loss without one."""
    architecture = situation.architecture
    if x.kv_policy == OFF:
        return Loss(0.0, "", "")
    return published_loss(NAME, x.kv_policy, architecture.family, architecture.parameters)


def _heads(architecture: Architecture) -> float:
    """Query heads of an average layer."""
    mixers = ((run.count, run.layer.mixer) for run in architecture.runs)
    return sum(n * m.heads for n, m in mixers if isinstance(m, Attention)) / architecture.layers


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Scores of the cached tokens: read, added to and written, head by head."""
    del net
    if x.kv_policy == OFF or not kv_policy(x.kv_policy).scored:
        return []
    numbers = s.sizes.sequences * s.sizes.context * _heads(s.architecture) / s.sizes.weight_split
    work = elementwise(numbers, reads=1.0, writes=1.0, flops_per_element=SCORE_FLOPS, element_bytes=SCORE_BYTES)
    seconds = kernel_time(work, machine.main).seconds
    return [Term("token scores", slot, machine.main.tier, n * seconds, memory=n * seconds) for slot, n in s.slots]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Scores; what the prompt in the pass holds before its tokens leave; the clusters of the fixed context."""
    if x.kv_policy == OFF:
        return []
    record, workload = kv_policy(x.kv_policy), s.situation.workload
    tier, split = machine.main.tier, s.split("kv")

    def cached(tokens: Scalar) -> Scalar:
        size = key_value_bytes(s.architecture, tokens, kv_split=split, kv_bytes=s.sizes.kv_bytes)
        return s.first_layers * size

    lines = []
    if record.scored:
        heads = _heads(s.architecture) / s.sizes.weight_split
        kept = tokens_kept(s.layout, s.context)
        lines.append(Line("token scores", tier, s.batch * s.first_layers * heads * kept * SCORE_BYTES))
    if not record.levels:
        prompt = 1.0 * workload.prompt
        leaving = maximum(cached(prompt) - cached(tokens_kept(s.layout, prompt)), 0.0)
        lines.append(Line("prompt before eviction", tier, workload.prompts_per_pass * leaving))
    else:
        lines.append(Line("clusters", tier, 0.5 * cached(record.clusters * workload.shared_prefix)))
    return lines


def describe(x: Plan) -> str:
    """The policy by its title."""
    return "" if x.kv_policy == OFF else kv_policy(x.kv_policy).title


TECHNIQUE = Technique(
    name=NAME,
    summary="fewer keys and values: tokens that leave the cache, or are read only where a look-up finds them",
    source="M. Adnan et al. (Keyformer), arXiv:2403.09054; C. Hooper et al. (Squeezed Attention), arXiv:2411.09688",
    phases=frozenset({"serving"}),
    neutral={"kv_policy": OFF},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    opt_in=True,
    describe=describe,
    choice="kv_policy",
    quality=quality,
    telling=("kv_policy",),
)
