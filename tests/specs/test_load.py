"""Validation messages, names and paths, and resolved machines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sample_machines import CLUSTER, DEVICE, toys, write_all

from perfmodel.errors import PerfmodelError, SpecError, UnknownName
from perfmodel.specs import locate
from perfmodel.specs.hardware import Cluster, Device
from perfmodel.specs.load import keys_of, parse
from perfmodel.specs.locate import (
    cluster_names,
    device_names,
    find_hardware,
    find_model,
    find_workload,
    framework_names,
    hardware_names,
    model_names,
    workload_names,
)
from perfmodel.specs.system import load_device, load_system
from perfmodel.specs.yamlfile import Document, read

LISTS = [device_names, cluster_names, model_names, workload_names, framework_names]


def test_first_mistake_in_file_order_and_the_rest_briefly(tmp_path: Path) -> None:
    text = DEVICE.replace("clock:", "clok:").replace("per: unit", "per: nuit").replace("64 GiB", "64 GB/s")
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        parse(Device, read(path))
    first, head, *rest = str(caught.value).split("\n")
    assert first.startswith(f"{path}:6: clok: unknown key `clok`; did you mean `clock`?")
    assert head.strip() == "and 2 more:"
    assert [line.split(":")[0].strip() for line in rest] == ["line 16", "line 21"]
    assert "memory.hbm.capacity" in rest[1]


def test_many_mistakes_are_counted_and_five_listed(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(DEVICE.replace("kind: datasheet", "kind: datashet"))
    with pytest.raises(SpecError) as caught:
        parse(Device, read(path))
    lines = str(caught.value).split("\n")
    assert "did you mean `datasheet`" in lines[0]
    assert "the first 5" in lines[1]
    assert len(lines) == 7


def test_no_jargon_of_the_validator(tmp_path: Path) -> None:
    document = Document(tmp_path / "x.yaml", {"name": 3, "class": [], "units": None, "memory": 1, "peak": "a"})
    with pytest.raises(SpecError) as caught:
        parse(Device, document)
    assert not any(word in str(caught.value) for word in ("pydantic", "http", "input_", "type=", "Value error"))


def test_keys_of_follows_the_schema() -> None:
    assert keys_of(Cluster, ("node", "host"))[:3] == ["device", "count", "memory"]
    assert keys_of(Device, ("memory", "hbm")) == ["capacity", "bandwidth", "per", "shares"]
    assert keys_of(Cluster, ("levels", "x", "graph", 0)) == ["between", "bandwidth"]
    assert "class" in keys_of(Device, ())
    assert "text" not in keys_of(Device, ("units",))
    assert keys_of(Device, ("nothing", "here")) == []


@pytest.mark.parametrize("names", LISTS)
def test_cheap_alias_scan_equals_the_parsed_aliases(names: object) -> None:
    for entry in names():  # type: ignore[operator]
        data = read(entry.path).data
        assert entry.aliases == tuple(str(a) for a in data.get("aliases") or ()), entry.path


@pytest.mark.parametrize("names", [n for n in LISTS if n is not model_names])
def test_files_are_named_after_what_they_describe(names: object) -> None:
    for entry in names():  # type: ignore[operator]
        assert read(entry.path).data["name"] == entry.name


@pytest.mark.parametrize("names", [hardware_names, *LISTS[2:]])
def test_no_name_means_two_files(names: object) -> None:
    seen: dict[str, Path] = {}
    for entry in names():  # type: ignore[operator]
        for name in (entry.name, *entry.aliases):
            key = name.casefold().replace("_", "-").replace(" ", "-")
            assert seen.setdefault(key, entry.path) == entry.path, name


def test_every_shipped_machine_loads() -> None:
    for entry in hardware_names():
        assert load_system(entry.path).files[0] == entry.path


@pytest.mark.parametrize("name", ["frontier", "FRONTIER", "frontier.yaml", "Frontier.YAML"])
def test_names_are_found_in_any_case(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_hardware(name).name == "frontier.yaml"


def test_aliases_are_found() -> None:
    for entry in hardware_names():
        for alias in entry.aliases:
            assert find_hardware(alias.upper()) == entry.path


def test_a_file_of_the_user_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copy(tmp_path / "toys.yaml", tmp_path / "frontier.yaml")
    (tmp_path / "dgx-h100").mkdir()
    assert load_system("frontier.yaml").name == "toys"
    assert load_system("./frontier.yaml").name == "toys"
    assert load_system(str(tmp_path / "toys.yaml")).name == "toys"
    assert find_hardware("frontier").parent.name == "clusters"
    assert find_hardware("dgx-h100").name == "dgx-h100.yaml"


def test_models_by_folder_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text("{}")
    (tmp_path / "hollow").mkdir()
    assert find_model("own") == Path("own/config.json")
    assert find_model(str(tmp_path / "own")) == tmp_path / "own" / "config.json"
    assert find_model("own/config.json") == Path("own/config.json")
    with pytest.raises(SpecError, match="has no config"):
        find_model("./hollow")
    with pytest.raises(UnknownName):
        find_model("hollow")


@pytest.mark.parametrize("name", ["fronteir", "meta/unheard-of", "", "\0", "x" * 5000])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UnknownName, match="cluster or device") as caught:
        find_hardware(name)
    assert len(str(caught.value)) < 400


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="nearest: frontier"):
        find_hardware("fronteer")
    with pytest.raises(UnknownName, match="nearest: chat"):
        find_workload("chatt")


@pytest.mark.parametrize("name", ["./fronteer.yaml", "nowhere/a.yaml", "fronteer.yaml", "."])
def test_paths_that_are_not_there_are_file_errors(name: str) -> None:
    with pytest.raises(PerfmodelError) as caught:
        load_system(name)
    assert isinstance(caught.value, SpecError)


def test_installed_data_folders_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "perfmodel"
    (package / "hardware_specs" / "clusters").mkdir(parents=True)
    (package / "hardware_specs" / "clusters" / "toys.yaml").write_text("name: toys\naliases: [many-toys]\n")
    monkeypatch.setattr(locate.perfmodel, "__file__", str(package / "__init__.py"))
    assert [e.name for e in hardware_names()] == ["toys"]
    assert find_hardware("many_toys") == package / "hardware_specs" / "clusters" / "toys.yaml"


def test_a_cluster_resolves_its_devices(tmp_path: Path) -> None:
    system = toys(tmp_path)
    assert system.accelerator.name == "toy"
    assert system.host is not None
    assert system.host.name == "toy-host"
    assert system.engines["pim"].name == "toy-pim"
    assert system.cluster.nodes.value == 16
    assert system.accelerator.memory["hbm"].bandwidth is not None
    assert system.accelerator.memory["hbm"].bandwidth.value == 2e12
    assert "gpu" in system.class_constants
    assert len(system.files) == 4


def test_a_device_is_a_cluster_of_one(tmp_path: Path) -> None:
    write_all(tmp_path)
    system = load_system(tmp_path / "toy.yaml")
    assert (system.cluster.nodes.value, system.cluster.node.accelerator.count) == (1, 1)
    assert system.cluster.levels == {}
    assert system.host is None
    assert system.cluster.price is not None
    assert system.cluster.price.device_hour == system.accelerator.price.hour


def test_the_kind_of_file_is_told_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\ncolour: blue\n")
    with pytest.raises(SpecError, match="neither a device nor a cluster") as caught:
        load_system(path)
    assert "`nodes`" in str(caught.value)
    assert "`peak`" in str(caught.value)
    path.write_text(CLUSTER)
    with pytest.raises(SpecError, match="this is a cluster file"):
        load_device(path)


def test_unknown_device_of_a_cluster_points_at_the_cluster(tmp_path: Path) -> None:
    write_all(tmp_path)
    path = tmp_path / "toys.yaml"
    path.write_text(CLUSTER.replace("toy-host.yaml", "xeon-8481"))
    with pytest.raises(SpecError, match="nearest: xeon-8480") as caught:
        load_system(path)
    assert (caught.value.line, caught.value.field) == (8, "node.host.device")
