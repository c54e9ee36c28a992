"""What is asked of a machine and a model: training so many tokens, or serving such requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from perfmodel.errors import nearest
from perfmodel.specs.facts import FieldError, Spec
from perfmodel.specs.lengths import Document as Class
from perfmodel.specs.lengths import Lengths
from perfmodel.specs.load import parse, parse_kind
from perfmodel.specs.locate import find_workload, recipe_file
from perfmodel.specs.quantities import Count, NotNegative, PerSecond, Positive, Seconds, SomeTokens, Tokens
from perfmodel.specs.quantities import number as _number
from perfmodel.specs.slo import Slo
from perfmodel.specs.yamlfile import Document, read
from perfmodel.units import UnitError, parse_quantity

__all__ = [
    "FORMAT_BYTES",
    "Features",
    "Loading",
    "Recipe",
    "ServingWorkload",
    "Slo",
    "TrainingWorkload",
    "Workload",
    "load_recipe",
    "load_workload",
    "recipe_names",
    "revise",
]

FORMAT_BYTES = {
    "fp64": 8.0,
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp6": 0.75,
    "fp4": 0.5,
    "nvfp4": 0.5,
    "int4": 0.5,
}
"""Bytes per element of every number format, without scales."""

Format = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp6", "fp4", "nvfp4", "int4"]


def _state_bytes(data: Any) -> Any:
    """Read bytes per parameter from a format's name or from a size."""
    if isinstance(data, str) and data in FORMAT_BYTES:
        return FORMAT_BYTES[data]
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        raise ValueError("the unit is missing; write a number format (bf16) or a size (2 B)")
    try:
        value = parse_quantity(data, "B") if isinstance(data, str) else -1.0
    except UnitError:
        value = -1.0
    if not 0 <= value <= 64:
        near = nearest(data, FORMAT_BYTES) if isinstance(data, str) else []
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"write a number format ({', '.join(FORMAT_BYTES)}) or a size up to 64 B{hint}")
    return value


StateBytes = Annotated[float, BeforeValidator(_state_bytes)]


class Recipe(Spec):
    """Number formats of a training run: bytes that every parameter costs, state by state."""

    name: str = "own"
    compute: Format
    """Format of the matrix products of the layers."""
    weights: StateBytes
    """Weights that forward and backward read [B per parameter]."""
    gradients: StateBytes
    """Gradient buffer, which is also what gradient synchronisation sends [B per parameter]."""
    optimizer: dict[str, StateBytes]
    """States that only the update touches, by name: fp32 master copy, momentum, variance [B per parameter]."""
    note: str = ""

    @property
    def optimizer_bytes(self) -> float:
        """All optimizer states together [B per parameter]."""
        return sum(self.optimizer.values())

    @property
    def total_bytes(self) -> float:
        """All states together [B per parameter]."""
        return self.weights + self.gradients + self.optimizer_bytes


class RecipeFile(Spec):
    """The shipped recipes."""

    recipes: dict[str, Recipe]


class Loading(Spec):
    """What it takes to bring the tokens of a step to the devices."""

    token_bytes: Annotated[float, _number("B")]
    """Read from storage per token; images and sound count by the tokens they become [B]."""
    token_seconds: Annotated[float, _number("s", zero=True)] = 0.0
    """Time of one host core to decode, cut and tokenise what becomes a token; 0 where that is done before [s]."""
    workers: Count = 1
    """Host cores per device that do so; no more than there are."""
    local: bool = False
    """Read from the storage of the node instead of the shared one."""
    ahead: bool = True
    """The next step's tokens are loaded beside this step."""


class Features(Spec):
    """Rows of a table in host memory that the tokens of a step refer to: features of nodes, embeddings of items."""

    row_bytes: Annotated[float, _number("B", whole=True)]
    """One row, packed behind the one before [B]."""
    rows_per_token: Annotated[float, _number("1")] = 1.0
    """Rows that a token needs [1]."""
    table_rows: Annotated[float, _number("1", zero=True)] = 0.0
    """Rows of the table, held in the host memory of every node [1]."""


class TrainingWorkload(Spec):
    """Train on so many tokens, in steps of ``global_batch`` tokens cut into sequences."""

    kind: Literal["training"] = "training"
    name: str
    aliases: tuple[str, ...] = ()
    notes: str = ""
    sequence: Tokens
    """Tokens per sequence."""
    global_batch: Tokens
    """Tokens per optimizer step, over the whole machine."""
    tokens: Tokens
    """Tokens of the whole run."""
    checkpoint_interval: Seconds | None = None
    """Computing time between checkpoints; without it, the best for the machine's failures is taken [s]."""
    fused_attention: bool = True
    """Attention kernels that do not write scores to memory (FlashAttention)."""
    recipe: Recipe
    """Number formats: the name of a shipped recipe, or a mapping of one's own."""
    expert_variation: NotNegative = 0.0
    """Coefficient of variation of the load among the experts of a layer: 0 is perfect balance [1]."""
    expert_capacity: Positive | None = None
    """Tokens an expert takes at most over the mean: buffers are padded to it and what does not fit is dropped (GShard,
    Switch); without it every token is computed [1]."""
    data: Loading | None = None
    """Loading of data; without it what software spends on it is part of its overhead per step."""
    features: Features | None = None
    """Rows of a table in host memory that every step gathers."""
    lengths: Lengths | None = None
    """Lengths of the sequences that are packed into one of ``sequence`` tokens; without it all are that long."""

    @field_validator("recipe", mode="before")
    @classmethod
    def _by_name(cls, data: Any) -> Any:
        return load_recipe(data) if isinstance(data, str) else data

    @model_validator(mode="after")
    def _whole_steps(self) -> TrainingWorkload:
        if self.global_batch % self.sequence:
            below = self.global_batch // self.sequence * self.sequence
            near = " or ".join(str(n) for n in (below, below + self.sequence) if n)
            raise FieldError(
                f"{self.global_batch} tokens are no whole number of sequences of {self.sequence}; nearest: {near}",
                ("global_batch",),
            )
        if self.tokens < self.global_batch:
            raise FieldError(f"less than one step of {self.global_batch} tokens", ("tokens",))
        return self

    @property
    def sequences(self) -> int:
        """Sequences per optimizer step."""
        return self.global_batch // self.sequence

    @property
    def documents(self) -> tuple[Class, ...]:
        """Classes of sequences packed together, and their share of the tokens; empty where all fill ``sequence``."""
        return self.lengths.documents(self.sequence) if self.lengths else ()

    @property
    def steps(self) -> float:
        """Optimizer steps of the whole run."""
        return self.tokens / self.global_batch


class ServingWorkload(Spec):
    """Answer requests of so many prompt and output tokens."""

    kind: Literal["serving"] = "serving"
    name: str
    aliases: tuple[str, ...] = ()
    notes: str = ""
    prompt: Tokens
    """Prompt tokens of a request, shared prefix included."""
    output: Tokens
    """Output tokens of a request."""
    shared_prefix: SomeTokens = 0
    """First tokens of the prompt that all requests have in common and whose KV is kept."""
    shared_by: Count | None = None
    """Requests that have one such prefix in common; left out, all have."""
    reused: SomeTokens = 0
    """Tokens of the prompt, behind the shared prefix, that were seen before (documents, passages found by a search)
    and whose keys and values a store may hold."""
    pieces: Count = 1
    """Independent pieces, in any order, that the reused text consists of; one begins the same way every time."""
    collection: SomeTokens = 0
    """Tokens of everything that may be asked for again, all of which a store holds."""
    prompts_per_pass: Count = 1
    """Prompts that one prefill pass takes together."""
    rate: PerSecond | None = None
    """Arriving requests per second; without it, the most that the machine sustains is sought."""
    prompt_peak: Positive = 1.0
    """Rate at which prompts come at their busiest over ``rate``; a prefill pool of its own is sized for it [1]."""
    output_peak: Positive = 1.0
    """The same of outputs, for a decode pool: the two need not be busiest at the same time [1]."""
    slo: Slo = Field(default_factory=Slo)
    kv_format: Format = "bf16"
    """Format of the KV cache."""
    expert_variation: NotNegative = 0.0
    """Coefficient of variation of the load among the experts of a layer: 0 is perfect balance [1]."""
    models: Count = 1
    """Models of the same size that requests choose among, all equally often (a composition of experts)."""
    models_alike: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of their weights that all of them have in common and that is stored once: blocks, a common base [1]."""
    concurrency: Count | None = None
    """Most requests in flight at the same time, over the whole machine."""
    task: str | None = None
    """What is asked for (chat, code, math, summary …): drafted tokens are accepted as published for it."""
    acceptance: Annotated[float, Field(ge=0, le=1)] | None = None
    """Probability that a drafted token is accepted if those before it were, at every position, in place of published
    rates [1]."""
    length_variation: NotNegative = 0.0
    """Coefficient of variation of the lengths of prompts and outputs, which are log-normal [1]."""

    @property
    def random_arrivals(self) -> bool:
        """Whether requests come at random, at a rate: where one is given, or a share of them is limited."""
        return self.rate is not None or any(limit.percentile for limit in self.slo.limits)

    @model_validator(mode="after")
    def _prefix_fits(self) -> ServingWorkload:
        if self.shared_prefix >= self.prompt:
            raise FieldError(f"must be shorter than the prompt of {self.prompt} tokens", ("shared_prefix",))
        if self.reused and self.shared_prefix + self.reused >= self.prompt:
            raise FieldError(f"leaves nothing of the prompt of {self.prompt} tokens to read", ("reused",))
        if self.pieces > max(self.reused, 1):
            raise FieldError(f"more pieces than the {self.reused} reused tokens", ("pieces",))
        return self


Workload = TrainingWorkload | ServingWorkload
KINDS: dict[str, type[TrainingWorkload] | type[ServingWorkload]] = {
    "training": TrainingWorkload,
    "serving": ServingWorkload,
}


def load_workload(name: str | Path) -> Workload:
    """Return the workload of that name or path."""
    return parse_kind(KINDS, read(find_workload(name)))


def recipe_names() -> list[str]:
    """List the shipped training recipes."""
    return list(_recipes())


def load_recipe(name: str) -> Recipe:
    """Return the shipped recipe of that name; ``ValueError`` names the nearest ones."""
    recipes = _recipes()
    if name not in recipes:
        near = ", ".join(nearest(name, recipes)) or ", ".join(recipes)
        raise ValueError(f"unknown recipe; nearest: {near}")
    return recipes[name].model_copy(update={"name": name})


def _recipes() -> dict[str, Recipe]:
    return parse(RecipeFile, read(recipe_file())).recipes


def revise(workload: Workload, changes: Mapping[str, object]) -> Workload:
    """Return the workload with some fields changed, checked like a file.

    Parameters
    ----------
    workload : the one to start from.
    changes : new values by field, written as in a file; ``slo.ttft`` reaches inside, ``None`` removes a limit.

    Raises
    ------
    SpecError
        Naming the field, if there is none or the value does not fit.
    """
    data = _written(workload)
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        if rest:
            inner = data.get(head)
            data[head] = {**(inner if isinstance(inner, dict) else {}), rest: value}
        else:
            data[head] = value
    if isinstance(data.get("slo"), dict):
        data["slo"] = {k: v for k, v in data["slo"].items() if v is not None}
    kept = {k: v for k, v in data.items() if v is not None}
    return parse_kind(KINDS, Document(Path(workload.name), kept))


def _written(workload: Workload) -> dict[str, Any]:
    """Return the workload as a file would say it, durations and rates with their units."""
    data: dict[str, Any] = {name: getattr(workload, name) for name in type(workload).model_fields}
    if isinstance(workload, TrainingWorkload) and workload.checkpoint_interval is not None:
        data["checkpoint_interval"] = f"{workload.checkpoint_interval!r} s"
    if isinstance(workload, TrainingWorkload) and workload.data is not None:
        units = {"token_bytes": "B", "token_seconds": "s"}
        data["data"] = {n: f"{v!r} {units[n]}" if n in units else v for n, v in workload.data}
    if isinstance(workload, TrainingWorkload) and workload.features is not None:
        data["features"] = {n: f"{v!r} B" if n == "row_bytes" else v for n, v in workload.features}
    if isinstance(workload, TrainingWorkload) and workload.lengths is not None:
        data["lengths"] = workload.lengths.model_dump(exclude_none=True)
    if isinstance(workload, ServingWorkload):
        data["rate"] = None if workload.rate is None else f"{workload.rate!r} requests/s"
        limits = {k: v if k == "percentile" else f"{v!r} s" for k, v in workload.slo if v is not None}
        data["slo"] = limits
    return data
