"""What the schedulers of serving engines do differently, as a record of a few facts.

One loop (:mod:`perfmodel.serving.replica`) reads the record; an engine that decides otherwise is another record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from perfmodel.errors import SpecError, UnknownName

__all__ = ["NO_BUDGET", "SCHEDULERS", "Scheduler", "choose_scheduler", "usual_scheduler"]

NO_BUDGET = 1 << 20
"""Tokens of an iteration where an engine has no budget."""
Reserve = Literal["prompt", "whole", "share"]


@dataclass(frozen=True)
class Scheduler:
    """How an engine forms its iterations.

    Parameters
    ----------
    name : what the user calls it.
    source : where the rules were read.
    max_sequences : most sequences in flight on a replica.
    token_budget : most new tokens of an iteration.
    chunked : a prompt may be cut to what is left of the budget; otherwise it waits for an iteration with room for all.
    mixed : prompts share iterations with decoding sequences; otherwise they go first and decoding stands still.
    reserve : KV blocks that must be free for a request to be admitted: those of its ``prompt`` (others are
        preempted when blocks run out), of the ``whole`` request (nobody is preempted), or of the whole request beside
        a ``share`` of what the running ones may still need, which falls with every decode iteration.
    block : tokens of a KV block.
    together : a batch is admitted when the previous one has left, and no one joins it (static batching).
    """

    name: str
    source: str
    max_sequences: int = 256
    token_budget: int = 8192
    chunked: bool = True
    mixed: bool = True
    reserve: Reserve = "prompt"
    block: int = 16
    together: bool = False


SCHEDULERS: dict[str, Scheduler] = {
    s.name: s
    for s in (
        Scheduler("vllm", "vLLM V1 scheduler and engine arguments: max_num_seqs, max_num_batched_tokens (2025)"),
        Scheduler(
            "sglang", "SGLang scheduler: prompts first, new_token_ratio 0.7 to 0.098 over 600 decode steps (2025)",
            token_budget=8192, mixed=False, reserve="share", block=1,
        ),
        Scheduler(
            "trtllm-no-evict", "TensorRT-LLM documentation, GUARANTEED_NO_EVICT, the default capacity scheduler",
            chunked=False, reserve="whole", block=32,
        ),
        Scheduler(
            "trtllm-max-utilization", "TensorRT-LLM documentation, MAX_UTILIZATION with chunked context",
            block=32,
        ),
        Scheduler(
            "temporal-fusion", "Flover (J. Yao et al., arXiv:2305.13484): a prompt is computed when it comes, then its "
            "steps are fused with those of all live requests; buffers of full length",
            token_budget=NO_BUDGET, chunked=False, mixed=False, reserve="whole", block=1,
        ),
        Scheduler(
            "static", "batching before Orca (G. Yu et al., OSDI 2022): a batch ends with its longest request",
            max_sequences=32, token_budget=NO_BUDGET, chunked=False, mixed=False, reserve="whole", together=True,
        ),
    )
}  # fmt: skip
"""By name; ``max_num_seqs`` and the budgets are the engines' defaults for online serving."""


def choose_scheduler(
    name: str, *, max_sequences: int | None = None, token_budget: int | None = None, block: int | None = None
) -> Scheduler:
    """Return the scheduler of that name with limits of one's own.

    Raises
    ------
    PerfmodelError
        If there is none, or the limits exclude each other.
    """
    if name not in SCHEDULERS:
        raise UnknownName("scheduler", name, SCHEDULERS, remedy="there are " + ", ".join(SCHEDULERS))
    limits = {"max_sequences": max_sequences, "token_budget": token_budget, "block": block}
    for field, value in limits.items():
        if value is not None and value < 1:
            raise SpecError("one or more is needed", field=field, found=value)
    found = replace(SCHEDULERS[name], **{k: v for k, v in limits.items() if v is not None})  # type: ignore[arg-type]
    if found.mixed and found.token_budget <= found.max_sequences:
        raise SpecError(
            "the token budget leaves no room for prompts beside the decoding sequences",
            field="token_budget", found=found.token_budget, allowed=f"more than {found.max_sequences} (max_sequences)",
        )  # fmt: skip
    return found


def usual_scheduler(framework: str) -> str:
    """Scheduler of a framework: that of its name, else of the first that begins with it, else vLLM's.

    Examples
    --------
    >>> usual_scheduler("sglang"), usual_scheduler("own")
    ('sglang', 'vllm')
    """
    near = [name for name in SCHEDULERS if name == framework or name.startswith(framework)]
    return near[0] if near else "vllm"
