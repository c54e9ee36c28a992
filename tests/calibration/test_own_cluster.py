"""A user times collectives on a cluster of their own, fits a cluster file to them, and plans with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration.operators.collective import OPERATIONS, group_of, library_named
from perfmodel.calibration.shipping import calibrate
from perfmodel.calibration.subjects import place_of
from perfmodel.calibration.validate import validate
from perfmodel.errors import SpecError
from perfmodel.network.build import build_network
from perfmodel.network.library import Library, Protocol
from perfmodel.network.topology import Group
from perfmodel.specs.system import load_system

CLUSTER = """\
name: mybox
sources: {own: "our machine"}
nodes: {value: 1, kind: assumed, source: own}
node: {accelerator: {device: epyc-7742, count: 8}}
levels:
  node:
    kind: scaleup
    members:    {value: 8, kind: assumed, source: own}
    bandwidth:  {value: 10 GB/s, kind: assumed, source: own}
    latency:    {value: 1 us, kind: assumed, source: own}
    efficiency: {value: 0.5, kind: assumed, source: own}
"""
HEAD = "operator,system,kind,ranks,ranks_per_node,bytes,dtype,time_us,backend,version,source\n"
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")


def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "mybox.yaml"
    path.write_text(CLUSTER)
    return path


def timings(tmp_path: Path, base: Path, noise: float = 0.04) -> Path:
    """Rows as ``perfmodel measure --ranks`` writes them, of a library with 25 us a step, 70 us a call and 6 GB/s."""
    place, rng = place_of(str(base)), np.random.default_rng(5)
    made = Protocol(launch=70e-6, latency=25.0)
    truth = Library("gloo", {name: (made,) for name in ("ring", "pairwise", "broadcast_tree", "neighbour")})
    network = place.network("gloo")._replace(library=truth)
    network = network._replace(levels=tuple(level._replace(efficiency=0.6) for level in network.levels))
    rows = []
    for ranks in (2, 4, 8):
        group: Group = group_of(place, network, np.array(float(ranks)), np.array(float(ranks)))
        for kind in KINDS:
            for size in 2.0 ** np.arange(10, 29, 2):
                seconds = float(OPERATIONS[kind](network, group, size)) * np.exp(rng.normal(0.0, noise))
                rows.append(
                    f"collective,mybox,{kind},{ranks},{ranks},{size:.0f},fp32,{seconds * 1e6:.3f},gloo,2.9,own\n"
                )
    path = tmp_path / "mine.csv"
    path.write_text(HEAD + "".join(rows))
    return path


def test_gloo_is_a_library() -> None:
    assert library_named("gloo") == "gloo"


def test_a_cluster_file_is_written_that_predicts_the_rows_and_is_planned_with(tmp_path: Path) -> None:
    base = cluster(tmp_path)
    rows = timings(tmp_path, base)
    text, fits = calibrate([rows], base, "mine")
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    assert {f.group.format for f in fits} == {"gloo"}
    reports = [r for r in validate([rows], device=mine) if r.predicted]
    assert reports
    assert max(r.median_abs_error or 1.0 for r in reports) < 0.06
    network = build_network(load_system(mine).cluster)
    assert network.library is not None
    assert network.library.name == "gloo"
    group = Group((8.0,))
    assert network.levels[0].efficiency == pytest.approx(0.6, rel=0.1)
    small = float(OPERATIONS["all_reduce"](network, group, 4.0))
    assert small == pytest.approx(70e-6 + 14 * 25e-6, rel=0.1)  # launch and two rings of seven steps


def test_rows_of_another_machine_are_told(tmp_path: Path) -> None:
    base = cluster(tmp_path)
    rows = timings(tmp_path, base)
    rows.write_text(rows.read_text().replace("mybox", "dgx-h100"))
    with pytest.raises(SpecError, match="no measured row is of this machine") as told:
        calibrate([rows], base, "mine")
    assert "system: mybox" in str(told.value)
