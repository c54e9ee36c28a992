"""Calibrated constants of kernels: which operator classes there are, and what a device file may say about each."""

from __future__ import annotations

from typing import Literal

from perfmodel.specs.facts import Duration, Number, Ratio, Share, Spec

__all__ = ["KERNEL_CONSTANTS", "NEUTRAL_CONSTANTS", "STANDS_ON", "KernelConstants", "Operator"]

Operator = Literal[
    "gemm", "attention", "decode_attention", "elementwise", "scan", "moe", "latent_attention", "latent_decode"
]
STANDS_ON: dict[str, str] = {"moe": "gemm", "latent_attention": "attention", "latent_decode": "decode_attention"}
"""Operator classes that run with the constants of another where they have none of their own."""

KERNEL_CONSTANTS: dict[str, tuple[str, ...]] = {
    "gemm": (
        "compute_fraction",
        "memory_fraction",
        "launch",
        "wave_quantisation",
        "k_step",
        "prologue",
        "split_launch",
        "corner",
        "quantise_launch",
        "quantise_fraction",
        "pack_fraction",
    ),
    "attention": (
        "compute_fraction",
        "memory_fraction",
        "launch",
        "prologue",
        "exponential_cost",
        "corner",
        "ramp",
        "row_floor",
        "window_margin",
        "masked_share",
    ),
    "decode_attention": (
        "compute_fraction",
        "memory_fraction",
        "launch",
        "prologue",
        "kv_step",
        "split_launch",
        "corner",
        "row_cost",
        "pack_fraction",
    ),
    "elementwise": ("memory_fraction", "launch"),
    "scan": ("compute_fraction", "memory_fraction", "launch"),
    "moe": (
        "compute_fraction",
        "memory_fraction",
        "launch",
        "k_step",
        "prologue",
        "corner",
        "token_cost",
        "expert_cost",
        "permute_fraction",
        "idle_share",
    ),
    "latent_attention": (
        "compute_fraction",
        "memory_fraction",
        "launch",
        "prologue",
        "corner",
        "ramp",
        "row_floor",
    ),
    "latent_decode": (
        "compute_fraction",
        "memory_fraction",
        "launch",
        "prologue",
        "kv_step",
        "split_launch",
        "corner",
        "row_cost",
    ),
}
"""Constants that each operator class understands; what they mean stands in ``perfmodel.machine.kernels``."""
NEUTRAL_CONSTANTS = frozenset(
    {
        "split_launch",
        "corner",
        "quantise_launch",
        "quantise_fraction",
        "pack_fraction",
        "ramp",
        "row_floor",
        "window_margin",
        "masked_share",
        "row_cost",
        "token_cost",
        "expert_cost",
        "permute_fraction",
        "idle_share",
    }
)
"""Constants that a device class may leave out: :class:`perfmodel.machine.engine.Constants` holds a neutral value."""


class KernelConstants(Spec):
    """Calibrated constants of one operator class and format. What is left out comes from the device class."""

    compute_fraction: Ratio | None = None
    """Sustained share of the peak rate at large sizes [1]."""
    memory_fraction: Ratio | None = None
    """Sustained share of the memory bandwidth at large sizes [1]."""
    launch: Duration | None = None
    """Time of the smallest kernel, replayed from a graph [s]."""
    wave_quantisation: Share | None = None
    """0: tiles flow freely over the compute units; 1: whole waves [1]."""
    k_step: Duration | None = None
    """Least time of one 64-wide step of the reduction loop [s]."""
    prologue: Duration | None = None
    """Fill and drain time of one wave of tiles [s]."""
    kv_step: Duration | None = None
    """Least time of one block of 64 keys in decode attention [s]."""
    exponential_cost: Number | None = None
    """Cost of one exponential in units of 256 FLOP of the matrix unit [1]."""
    split_launch: Duration | None = None
    """Synchronisation when partial results of a split are added [s]."""
    corner: Number | None = None
    """Power of the smooth maximum of busy units and memory [1]."""
    quantise_launch: Duration | None = None
    """Launch of the pass that quantises activations in front of a product [s]."""
    quantise_fraction: Number | None = None
    """Share of the bandwidth that this pass reaches; 0: there is none [1]."""
    ramp: Duration | None = None
    """Start and drain of fused attention add the root of this times the busy time [s]."""
    row_floor: Number | None = None
    """Query rows that a tile of fused attention costs at least [1]."""
    window_margin: Number | None = None
    """Keys, in blocks of 128, that a tile reads beyond a sliding window [1]."""
    masked_share: Share | None = None
    """Share of the other masked keys that fused attention does not skip [1]."""
    pack_fraction: Number | None = None
    """Share of the bandwidth at which weights or keys are copied into blocks; 0: they are not [1]."""
    row_cost: Duration | None = None
    """Time per query row of all heads and sequences in decode attention [s]."""
    token_cost: Duration | None = None
    """Routing and sorting in front of fused experts, times the square root of the tokens [s]."""
    expert_cost: Duration | None = None
    """Bookkeeping per expert of the rank [s]."""
    permute_fraction: Number | None = None
    """Share of the bandwidth that gathers and adds up the rows of experts; 0: nothing is moved [1]."""
    idle_share: Number | None = None
    """Share of the (token, expert) pairs of other ranks that is moved as well [1]."""
