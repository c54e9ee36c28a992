"""What an operator asks of a machine, counted without knowing the machine."""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum
from perfmodel.units import Bytes, Flops

__all__ = ["Routed", "Shape", "Work"]


class Shape(NamedTuple):
    """Sizes that decide how an operator fills the compute units.

    GEMM: ``batch`` products of ``m x k`` by ``k x n``. Attention: ``batch`` (sequence, head) pairs, ``m`` queries,
    ``n`` keys, ``k`` the head dimension. Fused experts: ``m`` (token, expert) pairs, ``n`` inner width, ``k`` hidden
    size, ``batch`` active experts.
    """

    m: Scalar = 1.0
    n: Scalar = 1.0
    k: Scalar = 1.0
    batch: Scalar = 1.0


class Routed(NamedTuple):
    """What a fused mixture-of-experts call has beside the sizes of its products.

    Parameters
    ----------
    tokens : tokens presented to the rank.
    top_k : experts that every token chooses.
    experts : experts that live on the rank.
    gated : 1 for three matrices per expert, 0 for two.
    tiles : tiles that hold the rows, by height (``perfmodel.operators.moe.HEIGHTS``).
    """

    tokens: Scalar
    top_k: Scalar
    experts: Scalar
    gated: Scalar
    tiles: tuple[Scalar, ...]


class Work(NamedTuple):
    """Operations and traffic of one operator call.

    Parameters
    ----------
    operator : class that selects the engine's constants: gemm, attention, decode_attention, elementwise, scan,
        moe, latent_attention, latent_decode.
    format : number format of the multiplications.
    flops : operations, a multiply-add counting 2 [FLOP].
    compulsory_bytes : inputs and outputs, each crossing once [B].
    reuse : traffic beyond the compulsory needs ``reuse / capacity**reuse_power`` bytes through a memory of
        ``capacity`` bytes.
    bound : the same for the I/O lower bound; never above ``reuse``.
    reuse_power : 0.5 for matrix products (Hong-Kung), 1 for exact attention (Saha-Ye), 0 where nothing is reused.
    shape : sizes that decide tile and wave quantisation.
    routed : sizes of fused experts only.
    masked : (query, key) pairs that a sliding window hides, relative to those that are computed [1].
    knee : capacity below which blocked products take the place of tiles of whole rows (attention: d * d) [B].
    slack : memories full that the lower bound may save: what its first and last phase hold.
    kernels : format whose kernels run where it is not that of the products: block-scaled fp8, weights in 4 bits.

    Notes
    -----
    The leading terms of the exact functions in :mod:`perfmodel.operators.bounds`, in bytes and without edge blocks.
    """

    operator: str
    format: str
    flops: Flops
    compulsory_bytes: Bytes
    reuse: Scalar = 0.0
    bound: Scalar = 0.0
    reuse_power: float = 0.5
    shape: Shape = Shape()
    routed: Routed | None = None
    masked: Scalar = 0.0
    knee: Bytes = 0.0
    slack: Scalar = 0.0
    kernels: str = ""

    def portion(self, share: Scalar) -> Work:
        """A share of the sequences of attention, or of the experts of a layer: work that meets only in its sum."""
        rows = self.shape.m * share if self.routed else self.shape.m
        routed = self.routed
        if routed is not None:
            tiles = tuple(t * share for t in routed.tiles)
            routed = routed._replace(experts=routed.experts * share, tiles=tiles)
        return self._replace(
            flops=self.flops * share,
            compulsory_bytes=self.compulsory_bytes * share,
            reuse=self.reuse * share,
            bound=self.bound * share,
            shape=self.shape._replace(m=rows, batch=self.shape.batch * share),
            routed=routed,
        )

    def traffic(self, capacity: Bytes) -> Bytes:
        """Bytes that cross the boundary of a memory of ``capacity`` bytes with the known matching algorithm [B]."""
        reach = maximum(capacity**self.reuse_power, (capacity * self.knee) ** 0.5)
        return maximum(self.compulsory_bytes, self.reuse / reach)

    def io_lower_bound(self, capacity: Bytes) -> Bytes:
        """Bytes that any algorithm must move across a memory of ``capacity`` bytes [B]."""
        reach = capacity**self.reuse_power + (capacity * self.knee) ** 0.5
        return maximum(self.compulsory_bytes, self.bound / reach - self.slack * capacity)

    def intensity(self, capacity: Bytes) -> Scalar:
        """Operations per byte at the boundary of a memory of ``capacity`` bytes [FLOP/B]."""
        return self.flops / self.traffic(capacity)
