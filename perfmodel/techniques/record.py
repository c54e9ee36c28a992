"""The typed record that techniques declare changes to: each field has a unit, a meaning and ONE merge rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum
from perfmodel.errors import Conflict
from perfmodel.specs.sharing import KvMap

__all__ = ["Layout", "Placed", "Schedule", "merge_layouts"]


def product(default: Scalar = 1.0) -> Any:
    """Field that multiplies: shards, yields."""
    return field(default=default, metadata={"merge": "product"})


def total(default: Scalar = 0.0) -> Any:
    """Field that adds: fractions moved away, quality spent."""
    return field(default=default, metadata={"merge": "total"})


def most(default: Scalar = 0.0) -> Any:
    """Field of which the largest declaration counts."""
    return field(default=default, metadata={"merge": "most"})


def least_of(default: Scalar = 1.0) -> Any:
    """Field of which the smallest declaration counts."""
    return field(default=default, metadata={"merge": "least"})


def owner(default: Any = None) -> Any:
    """Field that one active technique may set; two are a conflict."""
    return field(default=default, metadata={"merge": "owner"})


def each() -> Any:
    """Field of records by part of the model: every part may be placed by one technique."""
    return field(default=(), metadata={"merge": "each"})


class Placed(NamedTuple):
    """Where a part of the model runs.

    Parameters
    ----------
    part : ``attention`` (cores of decode passes, with the cache), ``experts`` (routed ones), ``layers`` (whole ones);
        experts and layers in passes that only decode.
    engine : name of the engine in the node.
    share : how much of the part; the rest stays on the main engine [1].
    """

    part: str
    engine: str
    share: Scalar = 1.0


class Schedule(NamedTuple):
    """A pipeline schedule other than 1F1B; the backward pass comes in two parts, of the inputs and of the weights.

    Parameters
    ----------
    bubble : (forward, inputs, weights) seconds of a stage and micro-batch -> idle seconds for each further stage.
    held : stages -> micro-batches that every stage keeps the activations of.
    order : (stages, micro-batches, stage) -> passes of a stage in order, as (``F``, ``B`` or ``W``, micro-batch).
    staggered : stages end one after another and start the next step so, without a common barrier.
    """

    bubble: Callable[[Scalar, Scalar, Scalar], Scalar]
    held: Callable[[Scalar], Scalar]
    order: Callable[[int, int, int], list[tuple[str, int]]]
    staggered: bool = False


@dataclass(frozen=True)
class Layout:
    """How the state of a model is stored, sharded and scheduled, before sizes are known."""

    weights_format: str | None = owner()
    """Storage format of the matrices; ``None`` keeps the workload's (training) or the checkpoint's (serving)."""
    weights_bytes: Scalar = owner(None)
    """Bytes per stored weight with its scales [B]; ``None`` follows the format."""
    weights_computed: Scalar = owner(1.0)
    """Share of the products with them that the engine computes; it skips those with weights that are not stored [1]."""
    weights_stored: Scalar = owner(1.0)
    """Share of the layers' weights that is stored: layers that run with the weights of another have none [1]."""
    weights_read: Scalar = owner(1.0)
    """Share of the layers' weights that a pass reads from memory; the others are still in the cache [1]."""
    shape: tuple[float, float] | None = owner()
    """(share of the layers left out, share of the inner width that stays); ``None`` is the whole model."""
    weights_wire: Scalar = owner(None)
    """Bytes per weight when gathered [B]; ``None`` is the stored width."""
    scales_wire: Scalar = owner(0.0)
    """Bytes per gathered weight of scales that travel in a collective of their own [B]."""
    gradients_wire: Scalar = owner(None)
    """Bytes per gradient when reduced [B]; ``None`` is the stored width."""
    gradients_gathered: bool = owner(False)
    """Contributions cannot be added on the way: every rank gathers those of all others."""
    uncompressed_steps: float = most(0.0)
    """Share of the steps in which gradients travel as stored [1]."""
    sync_at_update: bool = owner(False)
    """What is exchanged is known only after the whole backward pass, which therefore hides nothing of it."""
    weights_shards: Scalar = product()
    """Ranks of the replica group that share one copy of the weights."""
    gradients_shards: Scalar = product()
    """Ranks that share one copy of the gradients."""
    optimizer_shards: Scalar = product()
    """Ranks that share one copy of the optimizer state."""
    optimizer_off: Scalar = total()
    """Share of the optimizer state kept off the device, where the host updates it [1]."""
    optimizer_stored: Scalar = most()
    """Share of that state that lies on storage and passes through host memory [1]."""
    updated_on_device: Scalar = most()
    """Share of that state that comes back to the device to be updated [1]."""
    weights_off: Scalar = total()
    """Share of the weights kept off the device and streamed to it for every pass [1]."""
    gradients_off: Scalar = total()
    """Share of the gradients that leave the device as soon as they are computed [1]."""
    activations_off: Scalar = total()
    """Share of the kept activations that wait for the backward pass in host memory [1]."""
    overlapping_rings: bool = owner(False)
    """Collectives that the library sends along a ring run on rings of all levels at the same time."""
    forward_passes: Scalar = product()
    """Forward passes over each micro-batch."""
    backward_passes: Scalar = least_of()
    """Backward passes after them; without one there are no gradients, kept activations or optimizer states."""
    checkpoint_staged: Scalar = most()
    """1 where a checkpoint is copied to host memory and written from there beside training [1]."""
    checkpoint_hidden: Scalar = most()
    """1 where that copy hides beside the passes that do not change what is copied [1]."""
    replay: Scalar = most()
    """Share of the layer's forward pass that the backward pass repeats [1]."""
    replay_core: Scalar = most()
    """Share of the attention core that the backward pass repeats [1]."""
    kept: Scalar = least_of()
    """Share of a layer's inner activations kept for the backward pass [1]."""
    activations_whole: Scalar = most()
    """1 where tensor ranks each hold the whole activations between matrices (no sequence parallelism)."""
    kept_scores: Scalar = least_of()
    """Share of materialised attention scores kept for the backward pass [1]."""
    virtual_stages: Scalar = product()
    """Model chunks per pipeline stage."""
    schedule: Schedule | None = owner()
    """Order of the passes of a pipeline; ``None`` is 1F1B, plain or interleaved."""
    state_exchange: Callable[..., tuple[Scalar, bool]] | None = owner()
    """Function (network, group, state bytes, token bytes) -> (seconds, hidden) of ranks that share a sequence; ``None``
    gathers the recurrent states."""
    sums_hidden: Callable[..., Scalar] | None = owner()
    """Function (settled, machine, bytes, reduce-scatter, all-gather seconds) -> seconds of a tensor-parallel sum that
    hide beside products; ``None`` hides nothing."""
    token_exchange: Callable[..., Scalar] | None = owner()
    """Function (network, machine, group, tokens) -> seconds in which tokens travel to their experts and back; ``None``
    is the library's all-to-all."""
    expert_locality: Scalar = most()
    """Share of the token copies that the router keeps inside the node on purpose [1]."""
    copies_at_home: Scalar = most()
    """Share of the token copies bound for other ranks that the placement of experts keeps on their own [1]."""
    exchange_ways: Scalar = least_of(2.0)
    """Ways of a token per expert layer: there and back, or 1 where it goes on from its expert's rank."""
    through_mlp: Scalar = product()
    """Share of the tokens that pass the feed-forward of a layer [1]."""
    idle_choices: Scalar = most()
    """Share of the experts chosen for a token that compute nothing and lie on every rank [1]."""
    tokens_alike: Scalar = product()
    """Tokens of a pass that choose the same experts."""
    experts_off: Scalar = total()
    """Share of the routed experts that lie off the device and are fetched when chosen [1]."""
    placed: tuple[Placed, ...] = each()
    """Parts of the model that run on other engines than the main one, in whose memory they then lie."""
    cache_off: Scalar = total()
    """Share of the KV cache that is kept off the device and streamed to it for every pass [1]."""
    sub_batches: Scalar = product()
    """Parts of the batch in flight at the same time, one per engine."""
    expert_tensor: Scalar = owner(1.0)
    """Tensor ranks that share the experts instead of the width of each; never more than there are."""
    verify_tokens: Scalar = owner(1.0)
    """Tokens per sequence in one decode pass."""
    tokens_per_pass: Scalar = product()
    """Tokens a sequence gains per decode pass."""
    side_by_side: float = owner(0.0)
    """Parts of a pass that run at the same time on units of one device, each waiting for another resource; 0: none."""
    chunk_tokens: Scalar = least_of(2.0**40)
    """Most prompt tokens that one pass computes beside decodes."""
    kv_bytes: Scalar = owner(None)
    """Bytes per cached number, scales included [B]; ``None`` follows the workload."""
    images: Scalar = owner(1.0)
    """Images that a replica makes together."""
    image_split: Scalar = product()
    """Ranks that share an image."""
    others_seen: Scalar = least_of()
    """Share of the other ranks' keys of an image that a query attends to [1]."""
    stale: Scalar = most()
    """1 where ranks that share an image take what the others had in the step before."""
    first_steps: Scalar = most()
    """Steps at the beginning in which they wait for each other nevertheless."""
    rests_after: Scalar = least_of(float("inf"))
    """Steps after which guidance and cross-attention rest."""
    refreshed: Scalar = product()
    """Share of a denoiser's work that a step does on average [1]."""
    guidance_split: Scalar = product()
    """Ranks that share the predictions with and without the prompt."""
    kv_map: KvMap | None = owner()
    """Where each attention layer has its keys and values from; ``None`` as the model has it."""
    kv_fetched: Scalar = most()
    """Share of the reused text whose keys and values are fetched and not computed [1]."""
    pieces_apart: Scalar = most()
    """1 where the pieces of reused text attend within themselves."""
    prefix_together: Scalar = most()
    """1 where the sequences of a batch read the prefix that they share once, all together."""
    kv_kept: Scalar = least_of()
    """Share of a sequence's tokens whose keys and values stay [1]."""
    kv_budget: Scalar = least_of(float("inf"))
    """Most tokens of a sequence whose keys and values stay."""
    kv_read: Scalar = least_of()
    """Share of the keys and values of a fixed context that a query reads [1]."""
    kv_compared: Scalar = total()
    """Keys without values, per token of the fixed context, that a query reads to choose them [1]."""
    attention_format: str | None = owner()
    """Format of the products with cached keys and values; ``None`` follows the cache of the workload."""
    quality_loss: Scalar = total()
    """Published relative loss of quality; NaN where none is published [1]."""
    quality_accepted: Scalar = total()
    """Published loss of techniques that were asked for by name; it does not count against the budget [1]."""
    quality_unknown: Scalar = most()
    """1 where a technique that was asked for by name has no published loss."""
    extra_steps: Scalar = total()
    """Published extra training steps for the same quality [1]."""

    def on(self, part: str) -> Placed:
        """Where a part runs: wholly on the main engine unless a technique says otherwise."""
        return next((p for p in self.placed if p.part == part), Placed(part, "main"))

    @property
    def attention_engine(self) -> str:
        """Engine that runs decode attention and holds the KV cache."""
        return self.on("attention").engine


_RULES: dict[str, str] = {f.name: f.metadata["merge"] for f in fields(Layout)}
_MERGE: dict[str, Callable[[Scalar, Scalar], Scalar]] = {
    "product": lambda a, b: a * b,
    "total": lambda a, b: a + b,
    "most": maximum,
    "least": minimum,
    "each": lambda a, b: (*a, *b),
}


def merge_layouts(declared: Iterable[tuple[str, Mapping[str, Any]]]) -> Layout:
    """Merge what techniques declared, field by field; order does not matter.

    Parameters
    ----------
    declared : (technique name, field -> value).

    Raises
    ------
    Conflict
        If two techniques set the same owned field, naming both.
    """
    values: dict[str, Any] = {f.name: f.default for f in fields(Layout) if f.default is not MISSING}
    owners: dict[str, str] = {}
    for technique, changes in sorted(declared, key=lambda item: item[0]):
        for name, value in changes.items():
            if name not in _RULES:
                raise KeyError(f"{technique} declares {name!r}, which the record does not have")
            owned = [p.part for p in value] if _RULES[name] == "each" else [name] * (_RULES[name] == "owner")
            for what in owned:
                if what in owners:
                    raise Conflict(f"{owners[what]} and {technique} both set {what.replace('_', ' ')}; choose one")
                owners[what] = technique
            values[name] = value if _RULES[name] == "owner" else _MERGE[_RULES[name]](values[name], value)
    return Layout(**values)
