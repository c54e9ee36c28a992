"""The shipped hardware: every file loads, every number is sourced, and published totals come out of the facts."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog

from perfmodel.machine.build import build_machine
from perfmodel.network.build import build_network
from perfmodel.network.collectives import all_reduce
from perfmodel.network.topology import Group
from perfmodel.specs.facts import KINDS, Fact, Spec
from perfmodel.specs.hardware import DEVICE_CLASSES
from perfmodel.specs.kernels import KERNEL_CONSTANTS, NEUTRAL_CONSTANTS, STANDS_ON
from perfmodel.specs.system import load_device, load_system
from perfmodel.specs.yamlfile import read

ROOT = Path(__file__).parent.parent / "hardware_specs"
DEVICES = sorted(p.stem for p in (ROOT / "devices").glob("*.yaml"))
CLUSTERS = sorted(p.stem for p in (ROOT / "clusters").glob("*.yaml"))
FILES = [*(ROOT / "devices").glob("*.yaml"), *(ROOT / "clusters").glob("*.yaml")]


def facts(value: object) -> list[Fact]:
    """Every fact inside a specification."""
    if isinstance(value, Fact):
        return [value]
    if isinstance(value, Spec):
        return [f for name in type(value).model_fields for f in facts(getattr(value, name))]
    if isinstance(value, dict):
        return [f for item in value.values() for f in facts(item)]
    if isinstance(value, tuple):
        return [f for item in value for f in facts(item)]
    return []


def specification(name: str) -> Spec:
    system = load_system(name)
    return system.accelerator if name in DEVICES else system.cluster


def graph_of(cluster: str) -> dict[tuple[int, int], float]:
    edges = load_system(cluster).cluster.levels["node"].graph
    return {(min(e.between), max(e.between)): e.bandwidth.value for e in edges}


def cut(edges: dict[tuple[int, int], float], side: set[int]) -> float:
    """Bandwidth per direction between ``side`` and the rest."""
    return sum(b for (i, j), b in edges.items() if (i in side) != (j in side))


def best_rings(edges: dict[tuple[int, int], float], devices: int) -> float:
    """Sum of the rates of all rings over direct links, one way, within the capacity of every link."""
    orders = (p for p in itertools.permutations(range(1, devices)) if p[0] < p[-1])
    rings = [[tuple(sorted(e)) for e in itertools.pairwise((0, *p, 0))] for p in orders]
    rings = [r for r in rings if all(e in edges for e in r)]
    uses = np.array([[ring.count(edge) for ring in rings] for edge in edges], dtype=float)
    return -linprog(-np.ones(len(rings)), A_ub=uses, b_ub=list(edges.values())).fun


@pytest.mark.parametrize("name", [*DEVICES, *CLUSTERS])
def test_every_file_loads_and_every_number_is_sourced(name: str) -> None:
    spec = specification(name)
    assert spec.name == name
    found = facts(spec)
    assert len(found) >= 5
    for fact in found:
        assert fact.kind in KINDS
        assert spec.sources[fact.source].strip()
    assert set(spec.sources) == {f.source for f in found}, "a source that nothing uses"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_aliases_stand_in_the_head_and_name_one_file(path: Path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:15]
    assert sum(line.startswith("aliases: [") for line in head) == 1
    for alias in read(path).data["aliases"]:
        assert load_system(str(alias)).name == path.stem


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_machine_builds(name: str) -> None:
    system = load_system(name)
    machine, network = build_machine(system), build_network(system.cluster)
    assert machine.devices == system.cluster.nodes.value * system.cluster.node.accelerator.count
    assert network.levels[-1].reach >= machine.devices
    rates = [level.bandwidth for level in network.levels]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("name", DEVICES)
def test_fitted_fractions_state_points_and_error(name: str) -> None:
    for formats in load_device(name).kernels.values():
        for constants in formats.values():
            for fraction in (constants.compute_fraction, constants.memory_fraction):
                assert fraction is None or fraction.spread is not None


@pytest.mark.parametrize("name", DEVICES)
def test_matrix_units_are_at_least_as_fast_as_vector_units(name: str) -> None:
    peak = load_device(name).peak
    for key in peak.matrix.keys() & peak.vector.keys():
        assert peak.matrix[key].value >= peak.vector[key].value


@pytest.mark.parametrize("name", DEVICES)
def test_the_last_memory_is_the_largest(name: str) -> None:
    device = load_device(name)
    sizes = [m.capacity.value * (device.units.value if m.per == "unit" else 1) for m in device.memory.values()]
    assert sizes[-1] == max(sizes)


def test_classes_give_every_constant() -> None:
    classes = load_system("h100").class_constants
    assert set(classes) == set(DEVICE_CLASSES)
    for name, operators in classes.items():
        assert set(operators) >= set(KERNEL_CONSTANTS) - set(STANDS_ON), name
        for operator, constants in KERNEL_CONSTANTS.items():
            if operator not in operators:
                continue
            wanted = [c for c in constants if c not in NEUTRAL_CONSTANTS]
            assert all(getattr(operators[operator]["any"], c) is not None for c in wanted), (name, operator)


@pytest.mark.parametrize(("device", "ridge"), [("a100-80gb-sxm", 153), ("h100-sxm", 295), ("h200", 206)])
def test_ridge_points_at_half_precision(device: str, ridge: float) -> None:
    spec = load_device(device)
    intensity = spec.peak.matrix["fp16"].value / spec.memory["hbm"].bandwidth.value
    assert intensity == pytest.approx(ridge, abs=0.5)


@pytest.mark.parametrize(
    ("device", "label"),
    [
        ("a100-40gb-sxm", 40),
        ("a100-80gb-sxm", 80),
        ("h100-sxm", 80),
        ("h200", 141),
        ("b200", 180),
        ("mi250x-gcd", 64),
        ("mi300x", 192),
    ],
)
def test_visible_memory_is_the_label_in_gib_less_a_reserve(device: str, label: int) -> None:
    visible = load_device(device).memory["hbm"].capacity.value / 2**30
    assert 0.98 * label < visible < label


def test_frontier_totals() -> None:
    machine = build_machine(load_system("frontier"))
    assert load_system("frontier").cluster.nodes.value == 9408
    assert machine.devices == 75264
    assert machine.devices * machine.main.matrix["fp64"] == pytest.approx(3.6e18, rel=0.01)
    assert machine.devices * machine.main.vector["fp64"] == pytest.approx(1.8e18, rel=0.01)
    assert machine.storage_read * machine.devices == pytest.approx(75e12, rel=0.01), "75 TB/s were announced"


def test_frontier_interfaces_are_shared_by_two() -> None:
    levels = {level.name: level for level in build_network(load_system("frontier").cluster).levels}
    assert levels["group"].bandwidth == 12.5e9
    assert levels["system"].bandwidth == pytest.approx(0.57 * 12.5e9)
    assert levels["group"].reach == 1024


def test_frontier_bisections() -> None:
    edges = graph_of("frontier")
    assert len(edges) == 12
    assert cut(edges, {0, 1, 2, 3}) == 300e9
    assert cut(edges, {0, 1, 6, 7}) == 300e9
    assert cut(edges, {0, 1, 4, 5}) == 400e9


def test_frontier_node_bandwidth_is_that_of_the_best_rings() -> None:
    both_ways = 2 * best_rings(graph_of("frontier"), 8)
    assert both_ways == pytest.approx(200e9)
    package, node = build_network(load_system("frontier").cluster).levels[:2]
    assert package.reach * node.bandwidth == pytest.approx(both_ways), "rings cross the border of each package once"
    assert node.bandwidth <= cut(graph_of("frontier"), {0, 1}) / 2


@pytest.mark.parametrize(
    ("ranks", "size", "measured", "tolerance"),
    [
        (8, 2**30, 13.8e-3, 0.03),
        (2048, 2**30, 38.0e-3, 0.1),
        (32768, 2**32, 142.2e-3, 0.1),
        (8, 1024, 22.2e-6, 0.2),
        (2048, 1024, 230e-6, 0.3),
    ],
)
def test_frontier_all_reduce_near_published_timings(ranks: int, size: float, measured: float, tolerance: float) -> None:
    network = build_network(load_system("frontier").cluster)
    group = Group(tuple(float(min(ranks, level.reach)) for level in network.levels))
    assert all_reduce(network, group, size) == pytest.approx(measured, rel=tolerance)


def test_pim_shares_the_memory_of_its_accelerator() -> None:
    system = load_system("npu-pim")
    pim, npu = system.engines["pim"], system.accelerator
    assert pim.memory["hbm"].shares == list(npu.memory)[-1]
    assert pim.memory["hbm"].bandwidth.value > 8 * npu.memory["hbm"].bandwidth.value
    assert pim.runs == ("decode_attention",)
    machine = build_machine(system)
    assert machine.engine("pim").tier == machine.main.tier
    assert machine.tiers == {"hbm": npu.memory["hbm"].capacity.value}, "the capacity is counted once"


def test_u280_keeps_weights_in_hbm_and_has_ddr_behind_it() -> None:
    device = load_device("u280")
    assert (device.holding, device.behind) == ("hbm", "ddr")
    assert device.memory["hbm"].bandwidth.value == 460e9
