"""Storage formats of weights: bytes per number with their scales, and the format the products use."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["STORAGE", "VARIANTS", "Storage", "storage"]


class Storage(NamedTuple):
    """Bytes per stored number, and the formats of its products from fastest to most general."""

    bytes: float
    compute: tuple[str, ...]


STORAGE: dict[str, Storage] = {
    "fp32": Storage(4.0, ("fp32",)),
    "bf16": Storage(2.0, ("bf16",)),
    "fp16": Storage(2.0, ("fp16",)),
    "fp8": Storage(1.0, ("fp8", "bf16")),
    "fp8_block": Storage(1.0 + 4.0 / 128.0**2, ("fp8", "bf16")),
    "int8": Storage(1.0, ("int8", "bf16")),
    "nvfp4": Storage(0.5 + 1.0 / 16.0, ("nvfp4", "fp4", "bf16")),
    "mxfp4": Storage(0.5 + 1.0 / 32.0, ("mxfp4", "bf16")),
    "int4": Storage(0.5 + 2.5 / 128.0, ("bf16",)),
}
"""Scales included: one byte per 16 (nvfp4) or 32 (mxfp4) numbers, 20 bits per 128 (int4 groups), 4 bytes per block of
128 x 128 (fp8)."""

VARIANTS = {"fp8_block": "fp8"}
"""Formats with scales of their own, and the one whose multiplier they use."""


def storage(name: str) -> Storage:
    """Storage of a format; 16 bits for names that only name a product format."""
    return STORAGE.get(name, STORAGE["bf16"])
