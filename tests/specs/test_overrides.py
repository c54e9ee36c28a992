"""What-ifs: what changes, what does not, and what is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_machines import toys, write_all

from perfmodel.errors import PerfmodelError, SpecError, UnknownName
from perfmodel.specs.overrides import override, paths
from perfmodel.specs.system import System, load_system

NAMES = (
    "hbm_bandwidth",
    "peak_flops",
    "levels.node.bandwidth",
    "accelerator.kernels.gemm.bf16.launch",
    "nodes",
    "price",
    "node.host.link",
    "levels.rail.nics.bandwidth",
    "node.engines.pim.per_accelerator",
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    return toys(tmp_path_factory.mktemp("toys"))


def changed(old: System, new: System) -> dict[str, float]:
    before = paths(old)
    return {path: fact.value for path, fact in paths(new).items() if before.get(path) != fact}


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("accelerator.memory.hbm.bandwidth", "x2", {"accelerator.memory.hbm.bandwidth": 4e12}),
        ("hbm_bandwidth", "3 TB/s", {"accelerator.memory.hbm.bandwidth": 3e12}),
        ("memory.hbm.bandwidth", "+10%", {"accelerator.memory.hbm.bandwidth": 2.2e12}),
        ("hbm_capacity", "x0.5", {"accelerator.memory.hbm.capacity": 32 * 2**30}),
        ("l2_capacity", "100 MiB", {"accelerator.memory.l2.capacity": 100 * 2**20}),
        ("peak_flops", "-20 %", {"accelerator.peak.matrix.bf16": 320e12, "accelerator.peak.matrix.fp8": 640e12}),
        ("accelerator.peak.matrix.bf16", "1 PFLOP/s", {"accelerator.peak.matrix.bf16": 1e15}),
        ("nic_bandwidth", "400 Gb/s", {"levels.rail.nics.bandwidth": 50e9}),
        ("network.nic.bandwidth", "×4", {"levels.rail.nics.bandwidth": 100e9}),
        ("scaleup_bandwidth", "2x", {"levels.node.bandwidth": 200e9}),
        ("levels.rail.nics.bandwidth", "x2", {"levels.rail.nics.bandwidth": 50e9}),
        ("levels.node.graph.1.bandwidth", "x2", {"levels.node.graph.1.bandwidth": 100e9}),
        ("latency", "x0.5", {"levels.node.latency": 1e-6, "levels.rail.latency": 2.5e-6}),
        ("host_bandwidth", "64 GB/s", {"node.host.link": 64e9}),
        ("power_limit", "700 W", {"accelerator.power.cap": 700}),
        ("host.units", "96", {"host.units": 96}),
        ("nodes", 8, {"nodes": 8}),
        ("nodes", "x4", {"nodes": 64, "levels.rail.members": 64}),
        (
            "accelerator.kernels.gemm.any.compute_fraction",
            "0.9",
            {"accelerator.kernels.gemm.any.compute_fraction": 0.9},
        ),
        ("accelerator.kernels.gemm.bf16.launch", "x2", {"accelerator.kernels.gemm.bf16.launch": 6e-6}),
        ("engines.pim.memory.banks.bandwidth", "x2", {"engines.pim.memory.banks.bandwidth": 16e12}),
        ("node.engines.pim.link", "10 GB/s", {"node.engines.pim.link": 10e9}),
        ("price.device_hour", "3.6 USD/h", {"price.device_hour": 0.001}),
        ("price", "x2", {"accelerator.price.hour": 4 / 3600}),
        ("carbon", "0.2", {"carbon": 0.2}),
    ],
)
def test_changes(system: System, name: str, value: str | float, result: dict[str, float]) -> None:
    new = override(system, {name: value})
    assert changed(system, new) == pytest.approx(result)
    fact = paths(new)[next(iter(result))]
    assert (fact.kind, fact.source) == ("assumed", "what-if")
    assert str(value) in fact.text


def test_constants_of_the_class_can_be_scaled(system: System) -> None:
    path = "accelerator.kernels.decode_attention.bf16.launch"
    inherited = system.class_constants["gpu"]["decode_attention"]["any"].launch
    assert inherited is not None
    assert changed(system, override(system, {path: "x2"})) == {path: 2 * inherited.value}


def test_the_original_is_untouched(system: System) -> None:
    before = paths(system)
    override(system, {"hbm_bandwidth": "x2", "nodes": "x2"})
    assert paths(system) == before
    assert override(system, {}) is system


def test_changes_add_up_in_order(system: System) -> None:
    new = override(system, {"hbm_bandwidth": "4 TB/s", "accelerator.memory.hbm.bandwidth": "x2"})
    assert changed(system, new) == {"accelerator.memory.hbm.bandwidth": 8e12}


def test_implausible_values_are_what_a_what_if_is_for(system: System) -> None:
    assert changed(system, override(system, {"hbm_bandwidth": "x100000"}))


UNKNOWN = """hbm_bandwith . accelerator accelerator.memory accelerator.memory.l3.capacity levels.nodes.bandwidth name
node.accelerator.count engines engines.fpga.units wan_bandwidth accelerator.kernels.gemm.bf16.kv_step
accelerator.kernels.bf16 levels.node.graph.7.bandwidth accelerator.peak.matrix.fp4"""


@pytest.mark.parametrize("name", ["", *UNKNOWN.split()])
def test_unknown_paths(system: System, name: str) -> None:
    with pytest.raises(UnknownName, match="unknown field"):
        override(system, {name: "x2"})


def test_unknown_paths_offer_the_nearest(system: System) -> None:
    with pytest.raises(UnknownName, match=r"accelerator\.memory\.hbm\.bandwidth"):
        override(system, {"accelerator.memory.hbm.bandwith": "x2"})


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("hbm_bandwidth", "2 TB", "unit B is not B/s"),
        ("hbm_bandwidth", 2, "unit is missing"),
        ("hbm_bandwidth", "2", "unit"),
        ("hbm_bandwidth", "x0", "greater than zero"),
        ("hbm_bandwidth", "-100 %", "greater than zero"),
        ("hbm_bandwidth", "-3 TB/s", "greater than zero"),
        ("hbm_bandwidth", "nan", "accelerator.memory.hbm.bandwidth"),
        ("hbm_bandwidth", "xinf", "accelerator.memory.hbm.bandwidth"),
        ("hbm_bandwidth", "x1e999", "finite"),
        ("hbm_bandwidth", "x1.2.3", "not a factor"),
        ("hbm_bandwidth", "", "number"),
        ("accelerator.kernels.gemm.any.compute_fraction", "x2", "at most"),
        ("nodes", "x0.3", "whole number"),
        ("nodes", True, "number"),
        ("node.engines.pim.link", "x2", "no value to scale"),
        ("carbon", "x2", "no value to scale"),
        ("levels.node.efficiency", "150 %", "at most"),
    ],
)
def test_values_that_do_not_fit(system: System, name: str, value: str | float, part: str) -> None:
    with pytest.raises(SpecError, match=part) as caught:
        override(system, {name: value})
    assert caught.value.field is not None
    assert len(str(caught.value)) < 300


def test_a_single_device_has_no_second_node(tmp_path: Path) -> None:
    write_all(tmp_path)
    device = load_system(tmp_path / "toy.yaml")
    with pytest.raises(SpecError, match="describe a cluster"):
        override(device, {"nodes": 2})
    assert changed(device, override(device, {"host_bandwidth": "x2"})) == {"accelerator.host_link": 64e9}
    assert changed(device, override(device, {"price": "x2"})) == pytest.approx({"price.device_hour": 4 / 3600})


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    value=st.one_of(st.text(max_size=12), st.floats(), st.from_regex(r"[x+-]?[0-9.e]{0,6} ?[%A-Z/sa-z]{0,5}")),
)
def test_no_value_breaks_it(system: System, name: str, value: str | float) -> None:
    with contextlib.suppress(PerfmodelError):
        override(system, {name: value})


def test_every_path_can_be_scaled(system: System) -> None:
    for path in paths(system):
        factor = "x0.5" if "efficiency" in path or "fraction" in path else "x2"
        assert path in changed(system, override(system, {path: factor})) or paths(system)[path].value == 0
