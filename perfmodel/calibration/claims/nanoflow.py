"""Work of one iteration by resource at full rates, and throughput against the optimum."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.build import build_machine
from perfmodel.network.bounds import all_reduce_bound
from perfmodel.network.build import build_network
from perfmodel.network.topology import Group
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.specs.architecture import Architecture
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.specs.system import load_system

__all__ = ["compute_ms", "memory_ms", "network_ms", "of_optimum", "optimum"]

TOKENS, RANKS = 2048.0, 8.0


def _architecture(run: Run) -> Architecture:
    return load_model(find_model(str(run.claim.common.model))).architecture


def _products(architecture: Architecture) -> float:
    """Operations of the products of one token, all layers and the output head [FLOP]."""
    sizes = Sizes(sequences=TOKENS, queries=1.0, context=1.0)
    calls = layer_calls(architecture, sizes)
    layers = architecture.layers * sum(float(c.work.flops * c.share) for c in calls if c.work.operator == "gemm")
    return layers / TOKENS + 2.0 * architecture.hidden * architecture.vocab


def compute_ms(run: Run) -> float:
    """Products of an iteration at the peak of all devices [ms]."""
    peak = build_machine(load_system(str(run.claim.common.hw))).main.peak("bf16")
    return float(_products(_architecture(run)) * TOKENS / (RANKS * peak)) * 1e3


def network_ms(run: Run) -> float:
    """Two all-reduces of every layer, each at full bandwidth [ms]."""
    architecture, network = _architecture(run), build_network(load_system(str(run.claim.common.hw)).cluster)
    group = Group(tuple(min(RANKS, float(level.reach)) for level in network.levels))
    size = TOKENS * architecture.hidden * 2.0
    idle = all_reduce_bound(network, group, 0.0)
    return 2.0 * architecture.layers * float(all_reduce_bound(network, group, size) - idle) * 1e3


def memory_ms(run: Run) -> float:
    """All of a device's memory read once [ms]."""
    main = build_machine(load_system(str(run.claim.common.hw))).main
    return float(main.capacity / main.bandwidth) * 1e3


def optimum(run: Run, sustained: float) -> float:
    """Tokens per second of a device that does nothing but products, at a sustained rate."""
    return sustained / _products(_architecture(run))


def of_optimum(run: Run, plan: str) -> float:
    """Throughput of a plan over the optimum at 260 TFLOP/s."""
    return run.metric(f"{plan}.total_tokens_per_second_per_device") / optimum(run, 2.6e14)
