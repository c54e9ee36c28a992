"""Rings over unequal links: known machines, bounds that no set of rings passes, and levels derived from links."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from planning import system

from perfmodel.errors import PerfmodelError, SpecError
from perfmodel.network.build import build_network
from perfmodel.network.rings import best_ring, rings, rings_bandwidth
from perfmodel.specs.overrides import override
from perfmodel.specs.system import load_system

MESH = [(0, 1, 1), (0, 2, 1), (0, 3, 2), (0, 4, 2), (1, 2, 2), (1, 3, 1), (1, 5, 2), (2, 3, 2), (2, 6, 1), (3, 7, 1),
        (4, 5, 1), (4, 6, 1), (4, 7, 2), (5, 6, 2), (5, 7, 1), (6, 7, 2)]  # fmt: skip
"""NVLinks of a DGX-1 with V100: a hybrid cube mesh of six links of 25 GB/s per device."""


def links(edges: list[tuple[int, int, int]], unit: float) -> tuple[tuple[int, int, float], ...]:
    return tuple((a, b, n * unit) for a, b, n in edges)


def test_all_six_links_of_a_hybrid_cube_mesh_carry_rings() -> None:
    assert rings_bandwidth(links(MESH, 25e9)) == pytest.approx(150e9)
    assert best_ring(links(MESH, 25e9)) == pytest.approx(50e9)


def test_all_links_of_a_full_mesh_carry_rings() -> None:
    """MI300X: seven links of 64 GB/s to each of the others."""
    full = [(a, b, 1) for a, b in itertools.combinations(range(8), 2)]
    assert len(list(rings(links(full, 1.0)))) == 2520
    assert rings_bandwidth(links(full, 64e9)) == pytest.approx(7 * 64e9)


def test_frontier_states_what_its_links_give() -> None:
    level = system("frontier").cluster.levels["node"]
    graph = tuple((*edge.between, edge.bandwidth.value) for edge in level.graph)
    assert best_ring(graph) == pytest.approx(50e9)
    assert level.bandwidth is not None
    assert rings_bandwidth(graph) / 2 == pytest.approx(level.bandwidth.value)


def test_no_set_of_rings_carries_more_than_links_leave_a_device_or_a_part() -> None:
    """And wider links never carry less."""
    rng = np.random.default_rng(5)
    pairs = list(itertools.combinations(range(6), 2))
    for _ in range(20):
        graph = tuple((a, b, float(rng.uniform(1.0, 9.0))) for a, b in pairs)
        found = rings_bandwidth(graph)
        for size in (1, 2, 3):
            for part in itertools.combinations(range(6), size):
                cut = sum(w for a, b, w in graph if (a in part) != (b in part))
                assert found <= cut * (1 + 1e-9)
        assert found >= 2.0 * best_ring(graph) * (1 - 1e-9)
        assert rings_bandwidth(tuple((a, b, 2.0 * w) for a, b, w in graph)) == pytest.approx(2.0 * found)


def written(folder: Path, edges: list[tuple[int, int, int]]) -> Path:
    graph = "\n".join(
        f"      - {{between: [{a}, {b}], bandwidth: {{value: {25 * n} GB/s, kind: datasheet, source: own}}}}"
        for a, b, n in edges
    )
    path = folder / "meshed.yaml"
    path.write_text(f"""
name: meshed
sources: {{own: "test"}}
nodes: {{value: 1, kind: assumed, source: own}}
node: {{accelerator: {{device: v100-sxm2, count: 8}}}}
levels:
  node:
    kind: scaleup
    members: {{value: 8, kind: datasheet, source: own}}
    latency: {{value: 2 us, kind: assumed, source: own}}
    efficiency: {{value: 0.8, kind: assumed, source: own}}
    graph:
{graph}
""", encoding="utf-8")  # fmt: skip
    return path


def test_a_level_may_state_its_links_alone(tmp_path: Path) -> None:
    machine = load_system(written(tmp_path, MESH))
    assert build_network(machine.cluster).levels[0].bandwidth == pytest.approx(150e9)
    doubled = override(machine, {"scaleup_bandwidth": "x2"})
    assert build_network(doubled.cluster).levels[0].bandwidth == pytest.approx(300e9)


def test_links_that_leave_a_device_out_give_no_bandwidth(tmp_path: Path) -> None:
    with pytest.raises(PerfmodelError, match="join all of 8 devices"):
        load_system(written(tmp_path, [edge for edge in MESH if 7 not in edge[:2]]))
    star = [(0, i, 1) for i in range(1, 8)]
    with pytest.raises(SpecError, match="no ring"):
        build_network(load_system(written(tmp_path, star)).cluster)
