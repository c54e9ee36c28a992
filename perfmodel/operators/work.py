"""What an operator asks of a machine, counted without knowing the machine."""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum
from perfmodel.units import Bytes, Flops

__all__ = ["Shape", "Work"]


class Shape(NamedTuple):
    """Sizes that decide how an operator fills the compute units.

    GEMM: ``batch`` products of ``m x k`` by ``k x n``. Attention: ``batch`` (sequence, head) pairs, ``m`` queries,
    ``n`` keys, ``k`` the head dimension.
    """

    m: Scalar = 1.0
    n: Scalar = 1.0
    k: Scalar = 1.0
    batch: Scalar = 1.0


class Work(NamedTuple):
    """Operations and traffic of one operator call.

    Parameters
    ----------
    operator : class that selects the engine's constants: gemm, attention, decode_attention, elementwise, scan.
    format : number format of the multiplications.
    flops : operations, a multiply-add counting 2 [FLOP].
    compulsory_bytes : inputs and outputs, each crossing once [B].
    reuse : traffic beyond the compulsory needs ``reuse / capacity**reuse_power`` bytes through a memory of
        ``capacity`` bytes.
    bound : the same for the I/O lower bound; never above ``reuse``.
    reuse_power : 0.5 for matrix products (Hong-Kung), 1 for exact attention (Saha-Ye), 0 where nothing is reused.
    shape : sizes that decide tile and wave quantisation.
    """

    operator: str
    format: str
    flops: Flops
    compulsory_bytes: Bytes
    reuse: Scalar = 0.0
    bound: Scalar = 0.0
    reuse_power: float = 0.5
    shape: Shape = Shape()

    def traffic(self, capacity: Bytes) -> Bytes:
        """Bytes that cross the boundary of a memory of ``capacity`` bytes with the known matching algorithm [B]."""
        return maximum(self.compulsory_bytes, self.reuse / capacity**self.reuse_power)

    def io_lower_bound(self, capacity: Bytes) -> Bytes:
        """Bytes that any algorithm must move across a memory of ``capacity`` bytes that may start and end full [B]."""
        return maximum(self.compulsory_bytes, self.bound / capacity**self.reuse_power - 2.0 * capacity)

    def intensity(self, capacity: Bytes) -> Scalar:
        """Operations per byte at the boundary of a memory of ``capacity`` bytes [FLOP/B]."""
        return self.flops / self.traffic(capacity)
