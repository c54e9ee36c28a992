"""Attention and feed-forwards as families describe them: small records of switches that read a configuration's fields.

Each record is callable: given the fields it returns one component per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from perfmodel.specs.architecture import Attention, FeedForward, Mlp, Moe
from perfmodel.specs.huggingface.fields import Fields, Switch

__all__ = ["Dense", "Gqa", "Sparse", "head_dim", "key_value_heads", "layer_types", "place"]

Layers = list[bool]
T = TypeVar("T")


def head_dim(f: Fields, *, given: bool = False, default: int | None = None) -> int:
    """Width of a head; unless ``given``, a missing one is the hidden size divided by the heads."""
    found = f.optional("head_dim")
    if found is not None:
        return found
    if given or default is not None:
        return f.count("head_dim", default)
    if f.hidden % f.heads:
        raise f.error("must be a multiple of the number of heads", "hidden_size", found=f"{f.hidden} / {f.heads} heads")
    return f.hidden // f.heads


def key_value_heads(f: Fields, *, given: bool = False, default: int | None = None) -> int:
    """Key and value heads; unless ``given``, missing means as many as query heads."""
    value = f.count("num_key_value_heads", default if given or default is not None else f.heads)
    if f.heads % value:
        spelling = f.find("num_key_value_heads")[0]
        raise f.error(
            "must divide the number of query heads", spelling, found=f"{f.heads} heads, {value} key-value heads"
        )
    return value


def layer_types(f: Fields, known: tuple[str, ...], default: Callable[[int], str] | None = None) -> list[str]:
    """Return one word per layer, from ``layer_types`` or else from ``default`` of the layer's number."""
    spare = f.count("num_nextn_predict_layers", 0, least=0)
    given = f.listed("layer_types", f.layers, spare=spare)
    if given is None:
        if default is None:
            raise f.error(f"is required for model_type {f.family!r}", "layer_types")
        return [default(i) for i in range(f.layers)]
    for word in given:
        if word not in known:
            raise f.error("names an unknown kind of layer", "layer_types", found=word, allowed=", ".join(known))
    return given


def place(which: Sequence[str], kinds: Mapping[str, Callable[[], T]]) -> list[T]:
    """Make each kind of component that ``which`` names once, and put it where it is named."""
    made = {name: kinds[name]() for name in dict.fromkeys(which)}
    return [made[name] for name in which]


# ---- attention -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gqa:
    """Softmax attention with grouped keys and values.

    ``qk_norm``: ``head`` normalises with one vector per head width, ``full`` with a vector as long as all heads.
    ``window``: ``all`` applies ``sliding_window`` to every layer if it is set, ``every N`` to all but each N-th layer,
    ``late`` to layers from ``max_window_layers`` on if ``use_sliding_window``, ``early`` to every second before,
    ``no`` never. ``layer_types`` overrides it.
    """

    bias: Switch = "attention_bias"
    out_bias: Switch | None = None
    qk_norm: Literal["", "head", "full"] = ""
    qk_norm_if: Switch = True
    qk_norm_bias: bool = False
    given_kv: bool = False
    given_head: bool = False
    default_head: int | None = None
    window: str = "no"
    sinks: bool = False
    gated: bool = False

    def __call__(self, f: Fields) -> list[Attention]:
        """Return one attention per layer."""
        which = windows(f, self.window)
        made = {w: self.one(f, w) for w in set(which)}
        return [made[w] for w in which]

    def one(self, f: Fields, window: int | None) -> Attention:
        """Return the attention of a layer with this window."""
        d = head_dim(f, given=self.given_head, default=self.default_head)
        kv = key_value_heads(f, given=self.given_kv)
        extra = self.biases(f, d, kv) + self.norms(f, d, kv) + (f.heads if self.sinks else 0)
        return Attention(f.hidden, f.heads, kv, d, d, window=window, gated=self.gated, extra=extra)

    def biases(self, f: Fields, d: int, kv: int) -> int:
        """Parameters of the projections' biases."""
        out = self.bias if self.out_bias is None else self.out_bias
        query = f.heads * d * (2 if self.gated else 1)
        return (query + 2 * kv * d if f.on(self.bias) else 0) + (f.hidden if f.on(out) else 0)

    def norms(self, f: Fields, d: int, kv: int) -> int:
        """Parameters of the query and key norms."""
        if not self.qk_norm or not f.on(self.qk_norm_if):
            return 0
        size = 2 * d if self.qk_norm == "head" else (f.heads + kv) * d
        return size * (2 if self.qk_norm_bias else 1)


WINDOWED = ("full_attention", "sliding_attention", "chunked_attention")


def windows(f: Fields, rule: str) -> list[int | None]:
    """Return the attention window of each layer."""
    if rule == "no":
        f.expect("layer_types", ["full_attention"] * f.layers)
        return [None] * f.layers
    sliding = f.optional("sliding_window", least=0) or None
    if rule in ("late", "early") and not f.flag("use_sliding_window"):
        sliding = None
    types = layer_types(f, WINDOWED, _pattern(f, rule))
    if sliding is None and rule.startswith("every") and "sliding_attention" in types:
        raise f.error("is required: some layers are sliding_attention", "sliding_window")
    size = {
        "full_attention": None,
        "sliding_attention": sliding,
        "chunked_attention": f.optional("attention_chunk_size"),
    }
    return [size[t] for t in types]


def _pattern(f: Fields, rule: str) -> Callable[[int], str]:
    first = f.count("max_window_layers", f.layers, least=0)
    period = _period(f, int(rule.split()[1])) if rule.startswith("every") else 1
    inside: dict[str, Callable[[int], bool]] = {
        "all": lambda i: True,
        "every": lambda i: (i + 1) % period != 0,
        "late": lambda i: i >= first,
        "early": lambda i: (i + 1) % 2 == 1 and i < first,
    }
    test = inside[rule.split()[0]]
    return lambda i: "sliding_attention" if test(i) else "full_attention"


def _period(f: Fields, usual: int) -> int:
    """Every how many layers one has full attention; spelt out in ``layer_types`` it does not matter."""
    f.get("_sliding_window_pattern")
    if f.get("layer_types") is not None:
        f.get("sliding_window_pattern")
        return usual
    return f.count("sliding_window_pattern", usual)


# ---- feed-forward ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dense:
    """The same MLP in every layer; ``four``: a missing width is four times the hidden size."""

    gated: bool = True
    bias: Switch = False
    four: bool = False
    width: str = "intermediate_size"
    scalars: int = 0

    def __call__(self, f: Fields) -> list[FeedForward]:
        """Return one MLP per layer."""
        return [self.one(f)] * f.layers

    def one(self, f: Fields) -> Mlp:
        """Return the MLP."""
        width = f.count(self.width, 4 * f.hidden if self.four else None)
        up = width * (2 if self.gated else 1)
        return Mlp(f.hidden, width, self.gated, extra=(up + f.hidden if f.on(self.bias) else 0) + self.scalars)


@dataclass(frozen=True)
class Sparse:
    """Mixture of experts in the layers that ``where`` marks, an MLP in the others.

    ``shared`` gives the total width of shared experts; ``gate`` adds a scalar gate on them. ``router_bias`` and
    ``expert_bias`` count biases that are parameters.
    """

    width: str = "moe_intermediate_size"
    where: Callable[[Fields], Layers] = lambda f: [True] * f.layers
    shared: Callable[[Fields], int] = lambda f: 0
    gate: bool = False
    shared_bias: Switch = False
    gated: bool = True
    router_bias: bool = False
    expert_bias: bool = False
    dense: Dense = Dense()

    def __call__(self, f: Fields) -> list[FeedForward]:
        """Return one feed-forward per layer."""
        sparse = self.where(f)
        moe = self.one(f) if any(sparse) else None
        mlp = self.dense.one(f) if not all(sparse) or moe is None else None
        if self.width != self.dense.width:
            f.optional(self.dense.width)
        return [x for s in sparse if (x := moe if s else mlp) is not None]

    def one(self, f: Fields) -> Moe:
        """Return the mixture of experts."""
        experts, top_k = f.count("num_experts"), f.count("num_experts_per_tok")
        if top_k > experts:
            spelling = f.find("num_experts_per_tok")[0]
            raise f.error("is more than the number of experts", spelling, found=f"{top_k} of {experts}")
        width, up, shared = f.count(self.width), 2 if self.gated else 1, self.shared(f)
        extra = (experts if self.router_bias else 0) + (f.hidden if self.gate else 0)
        extra += up * shared + f.hidden if shared and f.on(self.shared_bias) else 0
        return Moe(
            f.hidden,
            experts,
            top_k,
            width,
            self.gated,
            shared_width=shared,
            expert_extra=up * width + f.hidden if self.expert_bias else 0,
            extra=extra,
            groups=f.optional("n_group") or 1,
            groups_kept=f.optional("topk_group") or 1,
        )
