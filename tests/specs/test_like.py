"""Collectives of a cluster: its own, those of another, the usual ones of its devices, none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from perfmodel.errors import PerfmodelError
from perfmodel.network.build import build_network
from perfmodel.specs.like import likened
from perfmodel.specs.locate import cluster_names, find_hardware
from perfmodel.specs.system import System, known_libraries, load_system
from perfmodel.specs.yamlfile import read


def changed(tmp_path: Path, machine: str, name: str = "mine", **changes: object) -> Path:
    """A user's copy of a shipped cluster with some sections replaced, or left out (``None``)."""
    data = yaml.safe_load(find_hardware(machine).read_text()) | changes | {"name": name, "aliases": []}
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}, sort_keys=False))
    return path


def launch(system: System) -> tuple[float, str, float | None]:
    fact = next(iter(system.cluster.collectives.values())).protocols["ring"]["LL"].launch
    assert fact is not None
    return fact.value, fact.source, fact.spread


def test_what_is_taken_over_equals_the_original_and_keeps_its_source() -> None:
    original, like = load_system("dgx-h100"), load_system("aws-p5")
    assert like.libraries_of == "dgx-h100"
    assert original.libraries_of == ""
    assert launch(like)[0] == launch(original)[0]
    assert launch(like)[1].startswith("dgx-h100 ")
    assert launch(like)[1] in like.cluster.sources
    mine, theirs = like.cluster.levels["node"], original.cluster.levels["node"]
    assert (mine.latency.value, mine.efficiency.value) == (theirs.latency.value, theirs.efficiency.value)
    assert like.cluster.levels["pod"].latency.value > 2 * original.cluster.levels["pod"].latency.value


def test_what_a_file_states_goes_before_what_it_takes_over(tmp_path: Path) -> None:
    levels = yaml.safe_load(find_hardware("aws-p5").read_text())["levels"]
    levels["node"]["latency"] = {"value": "9 us", "kind": "assumed", "source": "mleng"}
    own = {"like": "dgx-h100", "custom": {"protocols": {}}}
    system = load_system(changed(tmp_path, "aws-p5", levels=levels, collectives=own))
    assert system.cluster.levels["node"].latency.value == pytest.approx(9e-6)
    assert system.cluster.levels["node"].efficiency.source.startswith("dgx-h100 ")
    assert next(iter(system.cluster.collectives)) == "nccl"


def test_a_chain_of_likes_ends_and_a_circle_is_told(tmp_path: Path) -> None:
    first = changed(tmp_path, "aws-p5", "first", collectives={"like": "aws-p5"})
    assert launch(load_system(first))[0] == launch(load_system("dgx-h100"))[0]
    changed(tmp_path, "aws-p5", "second", collectives={"like": "third.yaml"})
    third = changed(tmp_path, "aws-p5", "third", collectives={"like": "second.yaml"})
    with pytest.raises(PerfmodelError, match="like itself"):
        load_system(third)


@pytest.mark.parametrize(
    ("like", "message"),
    [("dgx-h1000", "dgx-h100"), ("h100-sxm", "no communication library"), (5, "name or path"), ([], "name or path")],
)
def test_a_wrong_reference_is_one_message_with_a_line(tmp_path: Path, like: object, message: str) -> None:
    path = changed(tmp_path, "aws-p5", collectives={"like": like})
    with pytest.raises(PerfmodelError, match=message) as told:
        load_system(path)
    assert str(path) in str(told.value)
    assert "collectives.like" in str(told.value)


def test_without_a_word_devices_run_their_usual_library_less_surely(tmp_path: Path) -> None:
    silent = load_system(changed(tmp_path, "dgx-2"))
    spread, fitted = launch(silent)[2], launch(load_system("dgx-h100"))[2]
    assert list(silent.cluster.collectives) == ["nccl"]
    assert spread is not None
    assert fitted is not None
    assert spread > 2 * fitted
    none = build_network(load_system(changed(tmp_path, "dgx-2", "none", collectives={"ideal": {}})).cluster)
    usual = build_network(silent.cluster)
    assert usual.library is not None
    assert none.library is not None
    assert usual.library.protocols
    assert not none.library.protocols


def test_every_cluster_of_a_known_family_has_a_library() -> None:
    known = known_libraries()
    for entry in cluster_names():
        system = load_system(entry.path)
        if known.usual_for(system.accelerator.family) and system.cluster.levels:  # a single device exchanges nothing
            assert system.cluster.collectives, entry.name
            document, origin = likened(read(entry.path))
            assert origin == system.libraries_of
            assert "like" not in document.data.get("collectives", {})
