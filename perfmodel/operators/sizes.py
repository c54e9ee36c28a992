"""What one rank sees of one pass: the sizes that parallelism left of a model and its batch."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.elementwise import Scalar

__all__ = ["Sizes"]


@dataclass(frozen=True)
class Sizes:
    """What one rank sees of one pass; every number may be an array.

    Parameters
    ----------
    sequences : sequences in the pass.
    queries : new tokens per sequence.
    context : keys per sequence, the new ones included.
    context_split : ranks that share a sequence's queries (context parallelism); keys are then exchanged.
    weight_split : ranks that share each matrix (tensor parallelism).
    sequence_split : ranks that share the activations between matrices (sequence parallelism).
    expert_split : data ranks that share the experts.
    expert_tensor : tensor ranks that share the experts instead of the width of each.
    imbalance : load of the busiest expert rank over the mean [1].
    through_mlp : share of the tokens that pass the feed-forward [1].
    idle_choices : share of the experts chosen for a token that compute nothing [1].
    tokens_alike : tokens that choose the same experts.
    element_bytes, kv_bytes : bytes per activation and per cached number [B].
    weight_bytes : bytes per stored weight, scales included [B].
    computed : share of the products with stored weights that is computed [1].
    read : share of the layers' weights that comes from memory; the rest is in the cache from the layer before [1].
    plain_bytes : bytes per weight of the components in ``unquantised`` [B].
    unquantised : components whose matrices keep ``plain_bytes``.
    format, plain_format : formats of the multiplications for both.
    kernels : format whose kernels multiply stored weights, where it is not ``format``.
    cache_format : format of attention over the cache.
    decode : queries attend to a long cache (split-KV kernels, absorbed latent attention).
    materialise : scores are written to memory (attention before fused kernels).
    fused_residual : one kernel adds the residual and normalises.
    fused_latents : one product projects onto the latents of queries and of keys.
    shared_beside : shared experts of a decode pass run on a stream of their own, beside the routed ones.
    ungrouped : attention over the cache reads a key-value head once for every query head that shares it.
    unread : cached tokens of a sequence that a query passes over.
    common : leading keys that sequences of a group have in common and that a decode pass reads once for all of them.
    groups : such groups in the pass.
    compared : keys of a sequence that a query reads without their values, to choose what it reads.
    pieces, piece : sequences begin with so many pieces of so many new tokens each, which attend within themselves.
    documents : lengths of the sequences packed into one of ``context`` tokens, with their share of the tokens;
        attention does not cross from one to another.
    """

    sequences: Scalar
    queries: Scalar
    context: Scalar
    context_split: Scalar = 1.0
    weight_split: Scalar = 1.0
    sequence_split: Scalar = 1.0
    expert_split: Scalar = 1.0
    expert_tensor: Scalar = 1.0
    imbalance: Scalar = 1.0
    through_mlp: Scalar = 1.0
    idle_choices: Scalar = 0.0
    tokens_alike: Scalar = 1.0
    element_bytes: Scalar = 2.0
    kv_bytes: Scalar = 2.0
    weight_bytes: Scalar = 2.0
    computed: Scalar = 1.0
    read: Scalar = 1.0
    plain_bytes: Scalar = 2.0
    unquantised: frozenset[str] = frozenset({"router", "head", "embedding"})
    format: str = "bf16"
    plain_format: str = "bf16"
    kernels: str = ""
    cache_format: str = "bf16"
    decode: bool = False
    materialise: bool = False
    fused_residual: bool = False
    fused_latents: bool = False
    shared_beside: bool = False
    ungrouped: bool = False
    unread: Scalar = 0.0
    common: Scalar = 0.0
    groups: Scalar = 1.0
    compared: Scalar = 0.0
    pieces: Scalar = 0.0
    piece: Scalar = 0.0
    documents: tuple[tuple[float, float], ...] = ()

    @property
    def tokens(self) -> Scalar:
        """New tokens of the pass on this rank."""
        return self.sequences * self.queries

    def stored(self, component: str) -> tuple[Scalar, str, str]:
        """(bytes per weight, format of the products, format whose kernels run) of a component's matrices."""
        if component in self.unquantised:
            return self.plain_bytes, self.plain_format, ""
        return self.weight_bytes, self.format, self.kernels
