"""What techniques and operators read: dims and declared changes turned into groups, sizes and bytes, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum
from perfmodel.network.topology import Dim, Group, Network, group_along, replicas, subgroup
from perfmodel.operators.layers import Sizes
from perfmodel.operators.state import Kept, ParameterCounts
from perfmodel.specs.architecture import Architecture
from perfmodel.techniques.base import Situation
from perfmodel.techniques.record import Layout
from perfmodel.units import Bytes

__all__ = ["Family", "Plan", "Settled", "TokensSent", "family_sum", "read_in_part", "split_by", "tokens_kept"]

Plan = SimpleNamespace
"""One value (number, array or symbol) per plan column."""


@dataclass(frozen=True)
class Family:
    """Parameters that share a replica group: dense ones, and routed experts.

    Parameters
    ----------
    name : ``dense`` or ``experts``.
    layer : parameters of an average layer on one rank, before sharding among replicas.
    first, last : parameters of the first and of the last pipeline stage on one rank.
    group : ranks that hold the same parameters.
    """

    name: str
    layer: Scalar
    first: Scalar
    last: Scalar
    group: Group

    @property
    def heaviest(self) -> Scalar:
        """Parameters of the heaviest stage on one rank."""
        return maximum(self.first, self.last)

    def shards(self, wanted: Scalar) -> Scalar:
        """Ranks that share a state cut ``wanted`` ways: never more than the group has."""
        return minimum(wanted, self.group.size)

    def among(self, size: Scalar, skip: Scalar = 1.0) -> Group:
        """The nearest ``size`` replicas, one of every ``skip``."""
        return subgroup(self.group, size, skip)


class TokensSent(NamedTuple):
    """What a rank sends to the ranks that hold the experts of its tokens, per layer and pass.

    Parameters
    ----------
    count : tokens, those of the busiest rank.
    top_k, experts : experts of a token, and of the layer.
    vectors : what a token becomes where the library sends it: a copy per expert, or one per rank that has any.
    width : numbers of a token.
    element_bytes : of a number as computed [B].
    format : of the experts' products.
    outward_bytes : of a number on its way to the experts; as computed if 0 [B].
    """

    count: Scalar
    top_k: Scalar
    experts: Scalar
    vectors: Scalar
    width: Scalar
    element_bytes: Scalar
    format: str = "bf16"
    outward_bytes: float = 0.0

    @property
    def outward(self) -> Bytes:
        """Bytes of all vectors on their way to the experts, those that stay included [B]."""
        return self.count * self.vectors * self.width * (self.outward_bytes or self.element_bytes)

    @property
    def size(self) -> Bytes:
        """Bytes of all vectors, those that stay included [B]."""
        return self.count * self.vectors * self.width * self.element_bytes

    def part(self, share: Scalar) -> TokensSent:
        """A share of the tokens."""
        return self._replace(count=self.count * share)


@dataclass(frozen=True)
class Settled:
    """Everything operators and techniques may read; see ``perfmodel.techniques``.

    Parameters
    ----------
    layout : the merged record.
    dims : rank dimensions, data included.
    sizes : what one rank sees of one pass.
    counts : parameters of an average layer.
    families : parameters by replica group.
    layers : layers of the model.
    stages : pipeline stages.
    first_layers, last_layers : layers of the first and last stage.
    micro_batches : passes per step and rank.
    weights_bytes, gradients_bytes, optimizer_bytes : per parameter as stored [B].
    weights_wire, gradients_wire : per parameter on the wire [B].
    kept : activations of a layer kept per token [B].
    boundary_bytes : activations that cross between stages per pass and rank [B].
    layer_stored, experts_stored : stored weights of an average layer on one rank; its routed experts among them [B].
    slots : (slot, passes) in which a layer's forward work appears: forward and backward, or one serving pass.
    """

    situation: Situation
    network: Network
    layout: Layout
    dims: tuple[Dim, ...]
    sizes: Sizes
    counts: ParameterCounts
    families: tuple[Family, ...]
    layers: int
    stages: Scalar
    first_layers: Scalar
    last_layers: Scalar
    micro_batches: Scalar
    weights_bytes: Scalar
    gradients_bytes: Scalar
    optimizer_bytes: Scalar
    weights_wire: Scalar
    gradients_wire: Scalar
    boundary_bytes: Bytes
    slots: tuple[tuple[str, float], ...]
    kept: Kept | None = None
    framework: Mapping[str, float] | None = None
    batch: Scalar = 1.0
    context: Scalar = 1.0
    cache_per_sequence: Bytes = 0.0
    embedding: Scalar = 0.0
    head: Scalar = 0.0
    layer_stored: Bytes = 0.0
    experts_stored: Bytes = 0.0

    @property
    def architecture(self) -> Architecture:
        """The model."""
        return self.situation.architecture

    @property
    def saved_bytes(self) -> Bytes:
        """Weights and optimizer state that a device of the heaviest stage saves: replicas share a checkpoint [B]."""
        return family_sum(self.families, lambda f: f.heaviest / f.group.size) * (
            self.weights_bytes + self.optimizer_bytes
        )

    def degree(self, name: str) -> Scalar:
        """Ranks along a dimension; 1 where it does not exist."""
        return next((d.degree for d in self.dims if d.name == name), 1.0)

    def along(self, name: str) -> Group:
        """Group of the ranks that differ only in dimension ``name``."""
        return group_along(self.network, self.dims, frozenset({name}))

    def split(self, state: str) -> Scalar:
        """Ranks that divide a state."""
        return split_by(self.dims, state)

    def replicas(self, state: str) -> Group:
        """Synchronous ranks that hold the same part of a state."""
        return replicas(self.network, self.dims, state)


def split_by(dims: Iterable[Dim], state: str) -> Scalar:
    """Product of the degrees of the dims that split ``state``."""
    result: Scalar = 1.0
    for dim in dims:
        if state in dim.splits:
            result = result * dim.degree
    return result


def tokens_kept(layout: Layout, context: Scalar) -> Scalar:
    """Tokens of a text of ``context`` tokens whose keys and values are cached."""
    return minimum(context * layout.kv_kept, layout.kv_budget)


def groups_sharing(workload: Any, sequences: Scalar) -> Scalar:
    """Groups with a prefix of their own among so many sequences of a rank."""
    if not workload.shared_prefix or workload.shared_by is None:
        return minimum(1.0, sequences)
    return minimum(maximum(sequences / workload.shared_by, 1.0), sequences)


def read_in_part(layout: Layout, fixed: Scalar) -> tuple[Scalar, Scalar]:
    """Tokens of a fixed context that a query passes over, and keys it is compared with to choose the others."""
    none = isinstance(layout.kv_compared, (int, float)) and layout.kv_compared == 0.0
    return fixed * (1.0 - layout.kv_read), 0.0 if none else maximum(fixed * layout.kv_compared, 1.0)


def family_sum(families: Iterable[Family], value: Any) -> Scalar:
    """Sum of ``value(family)``."""
    result: Scalar = 0.0
    for family in families:
        result = result + value(family)
    return result
