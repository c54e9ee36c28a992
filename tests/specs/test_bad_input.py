# ruff: noqa: E501  (one row per case)
"""Whatever a machine file gets wrong, one message says it: file, line, field, what was found, what is allowed."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_machines import CLUSTER, DEVICE, PIM, write_all

from perfmodel.errors import PerfmodelError, SpecError
from perfmodel.specs import plausible, ranges
from perfmodel.specs.facts import Fact
from perfmodel.specs.hardware import DEVICE_CLASSES, Device
from perfmodel.specs.load import parse
from perfmodel.specs.locate import device_names, hardware_names
from perfmodel.specs.system import System, load_system
from perfmodel.specs.yamlfile import Document, read
from perfmodel.units import parse_quantity

Case = tuple[str, str, int | None, str | None, str]

DEVICES: dict[str, Case] = {
    # what: (text in the file, what it becomes, line counted from there, field, part of the message)
    "capacity unit for a bandwidth": ("2 TB/s", "2 TB", 0, "memory.hbm.bandwidth", "unit B is not B/s"),
    "bandwidth unit for a capacity": ("64 GiB", "64 GB/s", 0, "memory.hbm.capacity", "unit B/s is not B"),
    "no unit": ("value: 2 TB/s", "value: 2e12", 0, "memory.hbm.bandwidth", "the unit is missing"),
    "unknown unit": ("500 W", "500 Watts", 0, "power.limit", "unit"),
    "words": ("1.5 GHz", "fast", 0, "clock", "found 'fast'"),
    "empty value": ("1.5 GHz", "''", 0, "clock", "not a number"),
    "null value": ("1.5 GHz", "~", 0, "clock", "must be a number"),
    "truth value": ("value: 100,", "value: true,", 0, "units", "must be a number"),
    "list value": ("value: 100,", "value: [100],", 0, "units", "must be a number"),
    "bare number for a fact": ("{value: 1.5 GHz, kind: datasheet, source: sheet}", "1.5 GHz", 0, "clock", "write {value:"),
    "null for a fact": ("{value: 1.5 GHz, kind: datasheet, source: sheet}\npeak", "\npeak", None, None, ""),
    "negative": ("2 TB/s", "-2 TB/s", 0, "memory.hbm.bandwidth", "greater than zero"),
    "zero": ("64 GiB", "0 GiB", 0, "memory.hbm.capacity", "greater than zero"),
    "not finite": ("value: 100,", "value: .nan,", 0, "units.value", "finite"),
    "not finite with a unit": ("2 TB/s", "inf TB/s", 0, "memory.hbm.bandwidth", "finite"),
    "beyond floats": ("2 TB/s", "2e400 TB/s", 0, "memory.hbm.bandwidth", "2e400"),
    "share above one": ("value: 0.7", "value: 70", 0, "kernels.gemm.any.compute_fraction", "at most 1.05"),
    "misspelt key": ("host_link:", "hostlink:", 0, "hostlink", "did you mean `host_link`"),
    "misspelt key inside": ("    bandwidth: {value: 2 TB/s", "    bandwith: {value: 2 TB/s", 0, None, "bandwith"),
    "misspelt key of a fact": ("spread: 0.1", "sprad: 0.1", 0, "kernels.gemm.any.compute_fraction.sprad", "`spread`"),
    "misspelt class": ("class: gpu", "class: gpuu", 0, "class", "did you mean `gpu`"),
    "misspelt kind": ("kind: fitted, source: sheet, spread", "kind: fited, source: sheet, spread", 0, None, "`fitted`"),
    "misspelt source": ("kind: assumed, source: sheet", "kind: assumed, source: shet", 0, "price.hour.source", "nearest: sheet"),
    "misspelt operator": ("  gemm:", "  gem:", 0, "kernels.gem", "did you mean `gemm`"),
    "misspelt format": ("    bf16:", "    bf61:", 0, "peak.matrix.bf61", "did you mean `bf16`"),
    "misspelt constant": ("launch:", "lanch:", 0, "kernels.gemm.any.lanch", "did you mean `launch`"),
    "constant of another operator": ("launch:", "kv_step:", 0, "kernels.gemm.any.kv_step", "have no `kv_step`"),
    "unsourced": ("clock: {value: 1.5 GHz, kind: datasheet, source: sheet}", "clock: {value: 1.5 GHz, kind: datasheet}", 0,
                  "clock.source", "missing"),
    "empty source": ("1.5 GHz, kind: datasheet, source: sheet", "1.5 GHz, kind: datasheet, source: ''", 0, "clock", "source"),
    "no units": ("units: {value: 100, kind: datasheet, source: sheet}\n", "", None, "units", "`units` is missing"),
    "no class": ("class: gpu\n", "", None, "class", "`class` is missing"),
    "no capacity": ("    capacity: {value: 64 GiB, kind: datasheet, source: sheet}\n", "", -1, "memory.hbm.capacity", "missing"),
    "no bandwidth at the end": ("    bandwidth: {value: 2 TB/s, kind: datasheet, source: sheet}\n", "", None, "memory",
                                "hbm is the last memory"),
    "empty peak": ("peak:\n  matrix:\n", "peak: {}\nnotes:\n  matrix:\n", 0, "peak", "at least one rate"),
    "text for a mapping": ("sources:\n  sheet: \"a data sheet\"", "sources: sheet", 0, "sources", "a mapping"),
    "mapping for text": ("name: toy", "name: {a: b}", 0, "name", "text is needed"),
    "year in words": ("class: gpu", "class: gpu\nyear: lately", 1, "year", "whole number"),
    "duplicate key": ("clock:", "units:", 0, "units", "lines 5 and 6"),
    "half a unit": ("value: 100,", "value: 100.5,", 0, "units", "whole number"),
    "slow memory": ("2 TB/s", "2 GB/s", 0, "memory.hbm.bandwidth", "implausible for class gpu"),
    "fast memory": ("2 TB/s", "2 PB/s", 0, "memory.hbm.bandwidth", "20 GB/s to 25 TB/s"),
    "small memory": ("64 GiB", "64 MiB", 0, "memory.hbm.capacity", "implausible"),
    "large memory": ("64 GiB", "64 TiB", 0, "memory.hbm.capacity", "implausible"),
    "slow matrix": ("400 TFLOP/s", "400 GFLOP/s", 0, "peak.matrix.bf16", "implausible"),
    "fast matrix": ("800 TFLOP/s", "800 PFLOP/s", 0, "peak.matrix.fp8", "implausible"),
    "slow vector": ("40 TFLOP/s", "40 GFLOP/s", 0, "peak.vector.fp32", "implausible"),
    "clock in MHz": ("1.5 GHz", "1.5 MHz", 0, "clock", "implausible"),
    "power in mW": ("500 W", "500 mW", 0, "power.limit", "implausible"),
    "idle above the limit": ("500 W, kind: datasheet, source: sheet}",
                             "500 W, kind: datasheet, source: sheet}\n  idle: {value: 600 W, kind: assumed, source: sheet}",
                             1, "power.idle", "more than the limit"),
    "cents for dollars": ("2 USD/h", "2000 USD/h", 0, "price.hour", "implausible"),
    "seconds for microseconds": ("3 us", "3 s", 0, "kernels.gemm.any.launch", "implausible"),
    "cache in GiB": ("40 MiB", "40 GiB", 0, "memory.l2.capacity", "implausible"),
    "cache slower than memory": ("8 TB/s", "1 TB/s", 0, "memory.l2.bandwidth", "slower than hbm"),
    "unit memory larger than the next": ("128 KiB", "20 MiB", None, None, ""),
    "far memory first": ("40 MiB", "64 KiB", 0, "memory.l2.capacity", "implausible"),
    "matrix far below vector": ("    fp32: {value: 40 TFLOP/s", "    bf16: {value: 401000 TFLOP/s", 0, "peak.vector.bf16",
                                "implausible"),
}  # fmt: skip

CLUSTERS: dict[str, Case] = {
    "unknown level key": ("    efficiency: {value: 0.8", "    efficency: {value: 0.8", 0, None, "efficency"),
    "efficiency in percent": ("    efficiency: {value: 0.8", "    efficiency: {value: 80", 0, "levels.node.efficiency", "1.05"),
    "two bandwidths": ("    nics:", "    taper: {value: 0.5, kind: assumed, source: site}\n    nics:", -3, "levels.rail",
                       "exactly one"),
    "levels too small": ("members: {value: 16", "members: {value: 8", None, None, "levels reach 32 devices"),
    "host misspelt": ("  host:", "  hots:", 0, "node.hots", "did you mean `host`"),
    "count of zero": ("count: 4}", "count: 0}", 0, "node.accelerator.count", "at least 1"),
    "count in words": ("count: 4}", "count: four}", 0, "node.accelerator.count", "whole number"),
    "no such interface": ("[0, 2]", "[0, 4]", 0, "levels.rail.nics.attached_to.1", "0 to 3"),
    "more places than interfaces": ("[0, 2]", "[0, 1, 2]", 0, "levels.rail.nics.attached_to", "interfaces"),
    "edge out of range": ("between: [2, 3]", "between: [2, 9]", 0, "levels.node.graph.1.between", "0 to 3"),
    "edge to itself": ("between: [2, 3]", "between: [2, 2]", 0, "levels.node.graph.1.between", "two different"),
    "edge twice": ("between: [2, 3]", "between: [1, 0]", 0, "levels.node.graph.1.between", "twice"),
    "edge of one": ("between: [2, 3]", "between: [2]", 0, "levels.node.graph.1.between", "at least 2 items"),
    "key like a mark": ("nodes:", "'[key]': 1\nnodes:", 0, "[key]", "unknown key"),
    "edge of three": ("between: [2, 3]", "between: [1, 2, 3]", 0, None, "between"),
    "link in Mb/s": ("100 GB/s", "100 MB/s", 0, "levels.node.bandwidth", "implausible for a level of kind scaleup"),
    "link in TB/s": ("100 GB/s", "100 TB/s", 0, "levels.node.bandwidth", "4 GB/s to 5 TB/s"),
    "interface in Tb/s": ("25 GB/s", "25 TB/s", 0, "levels.rail.nics.bandwidth", "implausible"),
    "latency in ms": ("2 us", "2 ms", 0, "levels.node.latency", "implausible"),
    "latency in ns": ("5 us", "5 ns", 0, "levels.rail.latency", "implausible"),
    "taper at the first level": ("    bandwidth: {value: 100 GB/s", "    taper: {value: 0.5", 0, "levels.node.taper", "a level below"),
    "unknown kind of level": ("kind: nic", "kind: nics", 0, "levels.rail.kind", "did you mean `nic`"),
    "half a node": ("nodes: {value: 16", "nodes: {value: 15.5", 0, "nodes", "whole number"),
    "host memory in MB": ("memory: {value: 512 GB", "memory: {value: 512 MB", 0, "node.host.memory", "implausible"),
    "host link in MB/s": ("link: {value: 32 GB/s", "link: {value: 32 MB/s", 0, "node.host.link", "implausible"),
    "storage in GB": ("4 TB", "4 GB", 0, "node.storage.capacity", "implausible"),
    "missing device": ("toy.yaml", "tooy.yaml", None, None, "not found; nearest in its folder: toy.yaml"),
    "cluster as device": ("toy.yaml", "toys.yaml", None, None, "this is a cluster file"),
    "name of no device": ("toy-host.yaml", "epyc-7a35", 0, "node.host.device", "nearest: epyc-7a53"),
    "carbon in grams": ("nodes:", "carbon: {value: 350, kind: assumed, source: site}\nnodes:", 0, "carbon", "0.001 to 2"),
}  # fmt: skip


def check(folder: Path, name: str, text: str, case: Case) -> None:
    """Write the mistake and compare what is said about it."""
    old, new, line, field, part = case
    assert old in text, "the case no longer matches the sample"
    path = folder / name
    path.write_text(text.replace(old, new, 1))
    if not part:
        load_system(path)
        return
    with pytest.raises(PerfmodelError) as caught:
        load_system(path)
    error = caught.value
    assert isinstance(error, SpecError)
    assert part in str(error)
    assert error.file is not None
    assert len(str(error).split("\n")[0]) < 500
    if line is not None:
        at = text.count("\n", 0, text.index(old)) + 1 + line
        assert (error.file, error.line) == (str(path), at)
    if field is not None:
        assert error.field == field


@pytest.mark.parametrize("case", DEVICES)
def test_bad_devices(case: str, tmp_path: Path) -> None:
    check(tmp_path, "toy.yaml", DEVICE, DEVICES[case])


@pytest.mark.parametrize("case", CLUSTERS)
def test_bad_clusters(case: str, tmp_path: Path) -> None:
    write_all(tmp_path)
    check(tmp_path, "toys.yaml", CLUSTER, CLUSTERS[case])


def test_engines_need_a_way_to_the_accelerator(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "toy-pim.yaml").write_text(PIM.replace("    shares: hbm\n", ""))
    with pytest.raises(SpecError, match="`link` is missing") as caught:
        load_system(tmp_path / "toys.yaml")
    assert caught.value.field == "node.engines.pim.link"
    (tmp_path / "toy-pim.yaml").write_text(PIM.replace("shares: hbm", "shares: gddr"))
    with pytest.raises(SpecError, match="shares a memory that toy does not have") as caught:
        load_system(tmp_path / "toys.yaml")
    assert caught.value.allowed == "l1, l2, hbm"


def test_a_bad_device_is_reported_in_its_own_file(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "toy.yaml").write_text(DEVICE.replace("64 GiB", "64 GB/s"))
    with pytest.raises(SpecError) as caught:
        load_system(tmp_path / "toys.yaml")
    assert caught.value.file == str(tmp_path / "toy.yaml")


# Real devices by class: memory bandwidth, capacity, matrix rate of a 16-bit format where there is one, clock, power, units.
REAL = {
    "gpu": ["204.8 GB/s, 64 GiB, 42.5 TFLOP/s, 1.3 GHz, 60 W, 16", "456 GB/s, 24 GiB, 98.3 TFLOP/s, 2.4 GHz, 200 W, 20",
            "900 GB/s, 16 GiB, 125 TFLOP/s, 1.53 GHz, 300 W, 80", "2.039 TB/s, 80 GiB, 312 TFLOP/s, 1.41 GHz, 400 W, 108",
            "4 TB/s, 96 GB, 148 TFLOP/s, 1.98 GHz, 400 W, 78", "5.3 TB/s, 192 GiB, 1307 TFLOP/s, 2.1 GHz, 750 W, 304",
            "8 TB/s, 278 GiB, 2500 TFLOP/s, 2.06 GHz, 1400 W, 152"],
    "npu": ["819 GB/s, 16 GB, 197 TFLOP/s, 1.5 GHz, 200 W, 4", "2.765 TB/s, 95 GiB, 459 TFLOP/s, 1.75 GHz, 400 W, 8",
            "2.46 TB/s, 96 GB, 432 TFLOP/s, 1.65 GHz, 600 W, 2", "3.67 TB/s, 128 GB, 1677 TFLOP/s, 1.6 GHz, 900 W, 8"],
    "cpu": ["89.6 GB/s, 64 GB, 1.38 TFLOP/s, 5.5 GHz, 253 W, 8", "204.8 GB/s, 512 GB, 5 TFLOP/s, 2.45 GHz, 280 W, 64",
            "307.2 GB/s, 1 TiB, 114.7 TFLOP/s, 2 GHz, 350 W, 56", "460.8 GB/s, 6 TB, 10 TFLOP/s, 2.4 GHz, 360 W, 96"],
    "fpga": ["460 GB/s, 8 GB, 12 TFLOP/s, 300 MHz, 225 W, 9024", "819 GB/s, 32 GB, 22 TFLOP/s, 400 MHz, 180 W, 7392"],
    "pim": ["1.229 TB/s, 6 GB, 1.2 TFLOP/s, 300 MHz, 10 W, 128", "1.024 TB/s, 1 GB, 1 TFLOP/s, 1 GHz, 5 W, 32",
            "1.79 TB/s, 160 GB, 0.4 TFLOP/s, 350 MHz, 400 W, 2556", "16.4 TB/s, 16 GB, 16.4 TFLOP/s, 1 GHz, 150 W, 512"],
    "storage": ["3 GB/s, 3.84 TB, 0.5 TFLOP/s, 300 MHz, 25 W, 1", "11.2 GB/s, 2 TB, 1 TFLOP/s, 1 GHz, 25 W, 16"],
    "dataflow": ["1.6 TB/s, 64 GB, 638 TFLOP/s, 1.6 GHz, 600 W, 1040", "100 GB/s, 1.5 TB, 638 TFLOP/s, 1.6 GHz, 600 W, 1040",
                 "21 PB/s, 44 GB, 12.5 PFLOP/s, 1.1 GHz, 23 kW, 900000", "80 TB/s, 230 MB, 188 TFLOP/s, 0.9 GHz, 215 W, 5120"],
}  # fmt: skip
FIELDS = ("bandwidth", "capacity", "matrix", "clock", "power", "units")
DIMENSIONS = {"bandwidth": "B/s", "capacity": "B", "matrix": "FLOP/s", "clock": "Hz", "power": "W", "units": "1"}


WIDE = {
    ("cpu", "capacity", 0.001),  # a server's 6 TB are a small board's 6 GB
    ("pim", "matrix", 0.001),  # a chip, or the cards of a node
    ("pim", "power", 0.001),
    ("dataflow", "bandwidth", 1000.0),  # DDR behind an array, or SRAM all over it
    ("dataflow", "capacity", 0.001),
}
"""Where real devices of one class lie so far apart that a thousand times one is another; counts have no unit to get wrong."""


def device_of(kind: str, values: dict[str, float]) -> tuple[Device, Document]:
    """Build the device with these values in base units."""

    def of(name: str) -> dict[str, str]:
        unit = DIMENSIONS[name].replace("1", "")
        return {"value": f"{values[name]!r} {unit}".strip(), "kind": "datasheet", "source": "s"}

    data = {
        "name": "real",
        "class": kind,
        "sources": {"s": "its sheet"},
        "units": of("units"),
        "clock": of("clock"),
        "peak": {"matrix": {"bf16": of("matrix")}},
        "memory": {"main": {"capacity": of("capacity"), "bandwidth": of("bandwidth")}},
        "power": {"limit": of("power")},
    }
    document = Document(Path("real.yaml"), data)
    return parse(Device, document), document


def test_every_class_has_ranges_and_real_devices() -> None:
    assert set(ranges.CLASS_RANGES) == set(DEVICE_CLASSES) == set(REAL)


@pytest.mark.parametrize(("kind", "row"), [(kind, row) for kind, rows in REAL.items() for row in rows])
def test_real_devices_pass_and_a_thousand_times_off_fails(kind: str, row: str) -> None:
    real = {f: parse_quantity(text, DIMENSIONS[f]) for f, text in zip(FIELDS, row.split(", "), strict=True)}
    plausible.check_device(*device_of(kind, real))
    for name in ("bandwidth", "capacity", "matrix", "clock", "power"):
        for factor in (1000.0, 0.001):
            if (kind, name, factor) in WIDE:
                continue
            with pytest.raises(SpecError, match=r"implausible|would take"):
                plausible.check_device(*device_of(kind, {**real, name: real[name] * factor}))


def test_shipped_devices_leave_the_ranges_when_their_prefix_is_wrong() -> None:
    for entry in device_names():
        document = read(entry.path)
        device = parse(Device, document)
        last = list(device.memory)[-1]
        memory = device.memory[last]
        assert memory.bandwidth is not None
        wrong: Fact = memory.bandwidth.model_copy(update={"value": memory.bandwidth.value * 1000})
        worse = {**device.memory, last: memory.model_copy(update={"bandwidth": wrong})}
        with pytest.raises(SpecError):
            plausible.check_device(device.model_copy(update={"memory": worse}), document)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_mutation_of_a_file_breaks_the_reader(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutations"
    if not folder.exists():
        folder.mkdir()
        write_all(folder)
    name, text = data.draw(st.sampled_from([("toy.yaml", DEVICE), ("toys.yaml", CLUSTER)]))
    content = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 30))
        content[at : at + length] = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from(TOKENS)))
    path = folder / f"mutated-{name}"
    path.write_bytes(bytes(content))
    with contextlib.suppress(PerfmodelError):
        assert isinstance(load_system(path), System)


TOKENS = [b"[", b"]", b"{", b"}", b": ", b"\n", b"\t", b"- ", b"&a ", b"*a", b"<<: *a\n", b"!!int ", b"null", b"1e400", b"-1",
          b"''", b"#", b"%", b"true", b".inf", b"? ", b"|\n", b"\xff", b"\x00", b"x2", b"99999999999999999999"]  # fmt: skip


def test_a_large_file_is_read_quickly(tmp_path: Path) -> None:
    rows = [f"  f{i}: {{value: {i + 1}.5 TB/s, kind: datasheet, source: a, note: words}}" for i in range(300)]
    path = tmp_path / "large.yaml"
    path.write_text("\n".join(["facts:", *rows]))
    read(path)
    start = time.perf_counter()
    read(path)
    assert time.perf_counter() - start < 0.5  # 8 ms; the bound only catches another order


def test_names_are_cheap_to_list() -> None:
    start = time.perf_counter()
    hardware_names()
    assert time.perf_counter() - start < 0.5
