"""What the software between model and machine costs: host time, exposed communication, memory of its own.

These numbers are fits to published measurements of one software generation: no physics, each with its spread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import create_model, model_validator

from perfmodel.specs.facts import Capacity, Count, Duration, Number, Ratio, Share, Spec, fact
from perfmodel.specs.load import parse_kind
from perfmodel.specs.locate import find_framework
from perfmodel.specs.sources import check_sources
from perfmodel.specs.yamlfile import read

__all__ = [
    "Framework",
    "ServingConstants",
    "ServingFramework",
    "TrainingConstants",
    "TrainingFramework",
    "constants_stated",
    "load_framework",
]


class TrainingConstants(Spec):
    """Constants of a training framework."""

    launch_per_layer: Duration
    """Host time to launch one layer's forward pass; backward and recomputation cost as much each [s]."""
    elementwise_scale: Number
    """Memory traffic of norms, activations and residuals over that of fused kernels [1]."""
    tensor_exposed: Number
    """Share of tensor-parallel communication that computation does not hide [1]."""
    gradient_exposed: Number
    """Share of gradient communication that the backward pass does not hide [1]."""
    overlap_interference: Share
    """Share of hidden communication that still costs computing time: it takes compute units and bandwidth [1]."""
    pipeline_exposed: Number
    """Share of the transfers between pipeline stages that computation does not hide [1]."""
    step_overhead: Duration
    """Time per optimizer step for data loading, logging and synchronisation [s]."""
    runtime_memory: Capacity
    """Device memory for context, communication buffers and library workspaces [B]."""
    logit_bytes: Capacity
    """Memory and traffic of the loss per logit, all copies together [B]."""
    fragmentation: Share
    """Share of the device memory that the allocator cannot use [1]."""
    gather_exposed: Share = fact(0.0, "0")
    """Share of gathering weights and scattering gradients that waits for no computation beside it: 1 where it is never
    hidden [1]."""
    gathers_per_layer: Count = fact(1.0, "1")
    """Collectives in which the weights of one layer are gathered: 1, or one per matrix [1]."""
    collective_share: Ratio = fact(1.0, "1")
    """Share of the bandwidth of collectives run alone that they reach inside a training job [1]."""
    ring_only: Share = fact(0.0, "0")
    """1 where the communication library gathers and scatters along rings only [1]."""
    launch_backward: Number = fact(1.0, "1")
    """Host time of a layer's backward pass over that of its forward pass [1]."""
    launch_tensor: Number = fact(0.0, "0")
    """Host time that eight tensor ranks on a node add to every launch, relative; fewer by the square of their number,
    since each launch waits for the last of them [1]."""
    product_scale: Number = fact(1.0, "1")
    """Time of matrix products over that of the library the device was measured with [1]."""
    expert_scale: Number = fact(1.0, "1")
    """Time of the products of routed experts over that of the kernels the device was measured with [1]."""
    expert_launch: Duration = fact(0.0, "0 s")
    """Time that each expert of a rank adds to every product of its layer: kernels of its own instead of a part of one
    [s]."""
    cast_scale: Number = fact(1.0, "1")
    """Time of the passes that write operands in a narrow format over that of two reads and one write per layout [1]."""
    expert_exposed: Number = fact(1.0, "1")
    """Share of the exchange between expert ranks that computation does not hide [1]."""
    attention_scale: Number = fact(1.0, "1")
    """Time of the attention core forward over that of the fused kernels the device was measured with [1]."""
    attention_backward: Number = fact(1.0, "1")
    """The same for the attention core backward [1]."""
    misalignment: Number = fact(0.0, "0")
    """Power of 64 / (largest power of two up to 64 that divides the sides of a product) in its time [1]."""
    attention_misalignment: Number = fact(0.0, "0")
    """The same for the head width in attention that writes its scores [1]."""
    tensor_latency: Duration = fact(0.0, "0 s")
    """Waiting per sum of tensor parallelism for every further rank [s]."""
    tensor_latency_far: Duration = fact(0.0, "0 s")
    """Waiting per sum of tensor parallelism for every further node [s]."""
    gradient_pieces: Count = fact(1.0, "1")
    """Collectives in which a layer's gradients are scattered to the shards of the optimizer, and its weights gathered
    after the step: 1, or one per parameter tensor; whole gradients are summed in buckets [1]."""
    gradient_window: Share = fact(0.9, "0.9")
    """Share of the last backward pass beside which gradients can travel: the first bucket must fill first [1]."""
    whole_exposed: Number = fact(1.0, "1")
    """Time that sums of whole gradients expose over what scatters to shards of the optimizer would: below 1 where
    buckets are summed during the backward pass and shards after it [1]."""
    update_exposed: Number = fact(1.0, "1")
    """Share of gathering updated weights after the step that the next forward pass does not hide [1]."""
    hand_over: Duration = fact(0.0, "0 s")
    """Host time per transfer between pipeline stages [s]."""
    pipelined_launch: Duration = fact(0.0, "0 s")
    """Least time of a layer, forward and backward, per tensor rank once stages exchange across nodes [s]."""
    pipelined_far: Number = fact(0.0, "0")
    """Part of ``pipelined_launch`` that every further node of a tensor group adds [1]."""
    head_balanced: Share = fact(0.0, "0")
    """1 where stages are cut by work with the output head counted in, 0 where every stage has as many layers [1]."""
    head_spread: Share = fact(0.0, "0")
    """Share of the output head's work that stages share evenly, by fewer layers on the last one or a head cut among
    all; the rest is the last stage's alone [1]."""
    kept_scale: Number = fact(1.0, "1")
    """Activations kept for the backward pass over those that the operators need [1]."""
    kept_extra: Number = fact(0.0, "0")
    """Bytes per token and hidden number that a layer keeps beyond what its operators need [1]."""
    gathered_inputs: Share = fact(0.0, "0")
    """1 where inputs gathered for tensor parallelism are kept whole for the backward pass [1]."""
    states_scale: Number = fact(1.0, "1")
    """Memory of weights and gradients over their size: buckets and copies [1]."""
    logit_memory: Capacity | None = None
    """Memory of the loss per logit, where it is not the traffic [B]."""
    weights_wire: Capacity | None = None
    """Bytes per weight when weights are gathered, where they do not travel as stored [B]."""
    gradients_wire: Capacity | None = None
    """Bytes per gradient when gradients are summed, where they do not travel as stored [B]."""


class ServingConstants(Spec):
    """Constants of a serving framework."""

    host_per_iteration: Duration
    """Host time per pass that the device waits for [s]."""
    host_per_sequence: Duration
    """Host time per sequence and pass: sampling, block tables, detokenising [s]."""
    host_per_piece: Duration = fact(0.0, "0 s")
    """Time that the process which answers clients spends on every piece of a stream, beside the device: detokenising,
    sending [s]."""
    piece_tokens: Count = fact(1.0, "1")
    """Tokens that it sends together [1]."""
    launch_per_operation: Duration
    """Least time of one logical operation of a layer, replayed from a graph [s]."""
    prompt_launches: Number = fact(1.0, "1")
    """Launches of a pass with prompts over those of one that only decodes: sequences of unlike lengths are gathered,
    caches written, attention called apart [1]."""
    request_overhead: Duration
    """Host time of a pass that admits requests: scheduling, and launches that no graph replays [s]."""
    runtime_memory: Capacity
    """Device memory of context and libraries that no tensor holds; with all else where nothing more is stated [B]."""
    memory_utilisation: Ratio
    """Share of the device memory that the engine may use [1]."""
    communication_memory: Capacity = fact(0.0, "0 B")
    """What communicators of a rank hold once there are several ranks [B]."""
    graph_memory: Capacity = fact(0.0, "0 B")
    """Captured graphs, out of the memory that the engine otherwise leaves free [B]."""
    pass_tokens: Count = fact(0.0, "1")
    """Tokens of the pass whose activations the engine reserves memory for [1]."""
    sampled_rows: Count = fact(0.0, "1")
    """Rows of that pass that tokens are sampled for: requests that may run [1]."""
    sampling_bytes: Capacity = fact(0.0, "0 B")
    """Memory of sampling per logit, all copies together [B]."""
    packed_alignment: Count = fact(1.0, "1")
    """Multiple to which kernels for 4-bit experts pad the hidden width [1]."""
    mixed_batches: Share = fact(1.0, "1")
    """1 where a pass may hold decodes and pieces of prompts, 0 where prompts run in passes of their own [1]."""
    chunk_tokens: Count = fact(8192.0, "1")
    """Tokens that a pass may hold: longer prompts are cut [1]."""
    first_token: Duration = fact(0.0, "0 s")
    """Time to the first token that no pass takes: client, HTTP, tokeniser, first launch [s]."""
    first_token_experts: Duration = fact(0.0, "0 s")
    """What every layer with experts adds to that where workers prefill and decode [s]."""
    elementwise_scale: Number = fact(1.0, "1")
    """Memory traffic of norms, activations and residuals over that of the operators counted [1]."""
    most_running: Count = fact(2048.0, "1")
    """Requests that one engine decodes together at most [1]."""
    cache_fill: Share = fact(0.55, "0.55")
    """Share of their output that requests of a full engine hold in the cache on average; 1 where admission reserves all
    of it [1]."""
    polling: Number = fact(1.0, "1")
    """Passes between two looks at the queue of new requests [1]."""
    held_passes: Number = fact(0.0, "0")
    """Passes for which prompts are held back at most, so that others are computed with them [1]."""
    held_tokens: Count = fact(0.0, "1")
    """Tokens, decoded and of prompts that wait, at which a pass computes them at once [1]."""
    bunched_prompts: Number = fact(0.0, "0")
    """Prompts of a pass where all requests are as long as each other, and so end and begin in bunches; else 0 [1]."""
    balanced_passes: Number = fact(0.0, "0")
    """Passes for which prompts are held back at most until every data rank has one [1]."""
    pool_hand_over: Duration = fact(0.0, "0 s")
    """Between pools of prefill and decode workers: what router and connection add to the transfer of a cache [s]."""
    prefill_answers: Share = fact(0.0, "0")
    """1 where prefill workers give the first token of a request, 0 where its first decode pass does [1]."""
    one_shot_tokens: Count = fact(0.0, "1")
    """Tokens of a pass up to which sums of tensor parallelism are one step, whatever their size [1]."""
    one_shot_share: Ratio = fact(1.0, "1")
    """Share of the bandwidth of device links that such a step reaches [1]."""
    exchange_copies: Share = fact(0.0, "0")
    """1 where a token travels once for each of its experts, 0 where once to every rank that has any of them [1]."""
    sums_apart: Share = fact(0.0, "0")
    """1 where attention and feed-forward of a parallel layer are added up among tensor ranks one by one [1]."""
    exchange_quantised: Number = fact(0.0, "0")
    """Bytes of a number up to which the format of the experts' products is that in which tokens travel to them, too; as
    computed in wider ones [B]."""
    latent_passes: Count = fact(0.0, "1")
    """Passes over the latents of an attention layer in kernels of their own, beyond those counted as operators: norms,
    quantising, writing the cache [1]."""
    index_passes: Count = fact(0.0, "1")
    """The same for the indexer of sparse attention: its norm and rotation, quantising, choosing keys [1]."""
    scan_passes: Count = fact(0.0, "1")
    """The same for a layer with a recurrent state: splitting and reordering projections, gates, norms [1]."""
    expert_passes: Count = fact(0.0, "1")
    """The same for a layer with experts: choosing them, quantising, gating and adding shared experts [1]."""
    host_per_check: Duration = fact(0.0, "0 s")
    """Host time per sequence and pass that checks drafts, where the engine then does not schedule beside the device
    [s]."""
    host_per_draft: Duration = fact(0.0, "0 s")
    """Host time per position that something drafts: preparing its inputs, sampling, a share of rejecting [s]."""


def constants_stated(facts: Any) -> dict[str, float]:
    """Values of the facts that are there."""
    stated = {name: getattr(facts, name) for name in type(facts).model_fields}
    return {name: fact.value for name, fact in stated.items() if fact is not None}


class _Described(Spec):
    """What both kinds of framework say about themselves."""

    name: str
    aliases: tuple[str, ...] = ()
    version: str
    kernels: str = ""
    """Name under which its kernels were measured; without one, plans use what the frameworks of a device share."""
    stand_in: str = ""
    """Name of kernels that stand for those of its own that were not measured on a device."""
    covers: tuple[Literal["rotary", "residual", "quantise", "ungrouped", "latents", "shared"], ...] = ()
    """Work that its kernels do besides: rotation inside measured attention; the residual addition inside norms; writing
    activations in the format of the next product inside the kernel in front of it; ``ungrouped``, reading a cached head
    again for every query head that shares it; ``latents``, projecting onto the latents of queries and of keys in one
    product; ``shared``, running shared experts of decode passes on a second stream, beside the routed ones."""
    tuned: tuple[Literal["gemm"], ...] = ()
    """Operators whose kernels it chooses by timing those of all libraries at start: the fastest on the device."""
    all_reduce: str = ""
    """Library of all-reduces of its own, used where it is the quicker and ranks share device links."""
    sources: dict[str, str]
    notes: str = ""

    @model_validator(mode="after")
    def _sources_exist(self) -> _Described:
        check_sources(self, self.sources)
        return self

    @property
    def constants(self) -> dict[str, float]:
        """Every stated constant in base units."""
        return constants_stated(self.facts)  # type: ignore[attr-defined]  # both kinds have them


_HINTS = get_type_hints(TrainingConstants, include_extras=True)
_CHANGES: dict[str, Any] = {name: (_HINTS[name] | None, None) for name in TrainingConstants.model_fields}
TrainingChanges: Any = create_model("TrainingChanges", __base__=Spec, **_CHANGES)
"""Any of the constants of a training framework."""


class Variant(Spec):
    """What is different on a device family, in a number format, or from a release on."""

    family: str | None = None
    """Family of the devices, as their files state it."""
    format: str | None = None
    """Format of the matrix products of the layers, or its scaling recipe (`fp8-rowwise`, `mxfp8`)."""
    release: str | None = None
    """First release to which this applies, as `YY.MM`."""
    facts: TrainingChanges
    note: str = ""

    def fits(self, family: str | None, formats: tuple[str, ...], release: str) -> bool:
        """Whether it applies."""
        right = self.family in (None, family) and self.format in (None, *formats)
        return right and (self.release or "") <= (release or "99.99")


class TrainingFramework(_Described):
    """A training framework."""

    kind: Literal["training"]
    facts: TrainingConstants
    variants: tuple[Variant, ...] = ()
    """Exceptions, later ones winning."""

    def on(self, family: str | None, *formats: str, release: str = "") -> dict[str, float]:
        """Constants on a device family in a format (and its scaling recipe); without a release, the newest's."""
        found = self.constants
        for variant in self.variants:
            if variant.fits(family, formats, release):
                found |= constants_stated(variant.facts)
        return found


_SERVING = get_type_hints(ServingConstants, include_extras=True)
_SERVING_CHANGES: dict[str, Any] = {name: (_SERVING[name] | None, None) for name in ServingConstants.model_fields}
ServingChanges: Any = create_model("ServingChanges", __base__=Spec, **_SERVING_CHANGES)
"""Any of the constants of a serving framework."""


class ServingVariant(Spec):
    """What is different on the hosts of a device family, or on small devices."""

    family: str | None = None
    below: Capacity | None = None
    """Device memory below which it applies [B]."""
    facts: ServingChanges
    note: str = ""

    def fits(self, family: str | None, memory: float) -> bool:
        """Whether it applies to a device of that family with so much memory [B]."""
        return self.family in (None, family) and (self.below is None or memory < self.below.value)


class ServingFramework(_Described):
    """A serving framework."""

    kind: Literal["serving"]
    facts: ServingConstants
    variants: tuple[ServingVariant, ...] = ()

    def on(self, family: str | None, memory: float = float("inf")) -> dict[str, float]:
        """Constants on a device of that family with so much memory [B]."""
        found = self.constants
        for variant in self.variants:
            if variant.fits(family, memory):
                found |= constants_stated(variant.facts)
        return found


Framework = TrainingFramework | ServingFramework
KINDS: dict[str, type[TrainingFramework] | type[ServingFramework]] = {
    "training": TrainingFramework,
    "serving": ServingFramework,
}


def load_framework(name: str | Path) -> Framework:
    """Return the framework of that name or path."""
    return parse_kind(KINDS, read(find_framework(name)))
