"""Long contexts by four numbers: users at a time, time of a prompt, time of an answer, time to change users.

Each is given twice: as no machine of these rates can do better (products and attention at peak, or their compulsory
bytes at full bandwidth; nothing but weights and cache in memory), and as the plan is modelled.

References
----------
.. [1] Y. Fu, "Challenges in deploying long-context transformers: a theoretical peak performance analysis",
   arXiv:2405.08944.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from perfmodel.errors import SpecError
from perfmodel.insight.setting import Setting
from perfmodel.operators.layers import head_calls, layer_calls
from perfmodel.operators.state import cache_bytes
from perfmodel.phases.serving import settle_passes
from perfmodel.serving.steady import Replica
from perfmodel.solver.problems import ServingProblem
from perfmodel.techniques.base import Line
from perfmodel.techniques.settled import Plan, Settled, tokens_kept

__all__ = ["LongContext", "Pair", "long_context"]


class Pair(NamedTuple):
    """A number at its best and as modelled."""

    bound: float
    modelled: float


@dataclass(frozen=True)
class LongContext:
    """One context length on one replica.

    Parameters
    ----------
    context, output : tokens of the prompt and of the answer.
    devices : devices of the replica.
    cache_bytes : keys, values and states of one user, over all devices [B].
    concurrency : users whose caches fit at the same time.
    prefill : one prompt alone [s].
    decode : an answer of one user alone [s].
    switch : one user's cache to host memory and another's back [s]; ``None`` without a link to the host.
    """

    context: int
    output: int
    devices: float
    cache_bytes: float
    concurrency: Pair
    prefill: Pair
    decode: Pair
    switch: Pair | None

    @property
    def session(self) -> Pair:
        """Prompt, answer and change of users, one after the other [s]."""
        parts = (self.prefill, self.decode, self.switch or Pair(0.0, 0.0))
        return Pair(sum(p.bound for p in parts), sum(p.modelled for p in parts))

    @property
    def binding(self) -> str:
        """What takes most of a session: ``prefill``, ``decode`` or ``switch``."""
        parts = {"prefill": self.prefill, "decode": self.decode, "switch": self.switch or Pair(0.0, 0.0)}
        return max(parts, key=lambda name: parts[name].modelled)


def _cache(s: Settled, tokens: float) -> float:
    """Cache of one sequence on one rank of the fuller stage [B]."""
    kept = tokens_kept(s.layout, tokens)
    each = cache_bytes(s.architecture, kept, kv_split=s.split("kv"), kv_bytes=s.sizes.kv_bytes)
    return float(s.first_layers * each)


def _room(lines: Sequence[Line], capacity: float, names: Sequence[str] | None) -> float:
    """Memory beside the named lines, or beside all but the cache [B]."""
    taken = [e for e in lines if e.name != "KV cache" and (names is None or e.name in names)]
    return max(capacity - sum(float(e.bytes) for e in taken), 0.0)


def _bound(s: Settled, problem: ServingProblem) -> float:
    """Products and attention of one pass at peak, or their compulsory bytes at full bandwidth; the rest hides [s]."""
    engine, sizes = problem.machine.main, s.sizes
    calls = [(c.work, c.share * s.layers * s.architecture.prompt_passes) for c in layer_calls(s.architecture, sizes)]
    calls += [(c.work, 1.0) for c in head_calls(s.architecture, sizes, rows=sizes.sequences, logit_bytes=0.0)]
    kept = [(work, float(times)) for work, times in calls if work.operator not in ("elementwise", "scan")]
    compute = sum(float(w.flops) * n / engine.peak(w.format) for w, n in kept)
    return float(max(compute, sum(float(w.compulsory_bytes) * n for w, n in kept) / engine.bandwidth))


def _users(replica: Replica, problem: ServingProblem, cache: float) -> Pair:
    """Users that fit, on the fuller stage, for the whole replica."""
    lines = replica.ledgers["first"]
    tier = next(e.tier for e in lines if e.name == "KV cache")
    here, ranks = [e for e in lines if e.tier == tier], float(replica.settled.split("batch"))
    capacity = float(problem.machine.tiers[tier])
    found = (ranks * (_room(here, capacity, names) // cache) for names in (("weights",), None))
    return Pair(*found)


def long_context(setting: Setting, x: Plan) -> LongContext:
    """Evaluate the workload's prompt and output for one user on one replica of a plan.

    Parameters
    ----------
    setting : model, machine and a serving workload.
    x : plan of a replica; its batch is taken as one.

    Raises
    ------
    SpecError
        If the model keeps nothing of its context.
    """
    problem, workload = setting.problem, setting.workload
    assert isinstance(problem, ServingProblem)  # noqa: S101 - narrows the type, checked by the caller
    assert workload.kind == "serving"  # noqa: S101 - the same
    one = Plan(**{**vars(x), "batch": 1.0})
    replica = problem.evaluate(one)
    s, link = replica.settled, problem.machine.host_link
    cache = _cache(s, float(workload.prompt))
    if not cache:
        raise SpecError("the model keeps nothing of its context", field="model", found=setting.model.name)
    devices = float(replica.devices)
    passes = settle_passes(one, problem.techniques, problem.situation, problem.network, problem.framework)
    swap = None if link is None else Pair(2.0 * cache / link, 2.0 * cache / link)
    return LongContext(
        context=workload.prompt,
        output=workload.output,
        devices=devices,
        cache_bytes=cache * float(s.split("kv") * s.stages),
        concurrency=_users(replica, problem, cache),
        prefill=Pair(_bound(passes["prefill"], problem), float(replica.prefill.elapsed())),
        decode=Pair(
            workload.output * _bound(passes["decode"], problem) / float(s.layout.tokens_per_pass),
            workload.output * float(replica.pass_seconds) / float(s.layout.tokens_per_pass),
        ),
        switch=swap,
    )
