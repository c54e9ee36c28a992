"""Stacks that took no part in any fit, against throughputs that their authors print; the column ``source`` says where.

Rows: ``tests/reference/training_unfitted.csv``. Layers are those of the models; the node's interfaces are as the README
of fms-fsdp states them (400 and 800 Gb/s per node).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration.training import blocks, predict, stated_constants
from perfmodel.calibration.training_fit import fit_frameworks
from perfmodel.calibration.training_rows import TrainingRow, training_rows
from perfmodel.calibration.training_sources import sources
from perfmodel.specs.framework import TrainingFramework, load_framework

TABLE = Path(__file__).parents[1] / "reference" / "training_unfitted.csv"


@pytest.fixture(scope="module")
def rows() -> list[TrainingRow]:
    found, skipped = training_rows(TABLE)
    assert not skipped
    return found


@pytest.mark.parametrize("framework", ["fms-fsdp", "nemo-24.07"])
def test_unfitted_stacks_meet_the_figure_for_unseen_sources(rows: list[TrainingRow], framework: str) -> None:
    """Median within 10 % and nine of ten within 20 %, from 7B on eight devices to a million tokens on 1,024."""
    own = [r for r in rows if r.setup.framework == framework]
    assert len(own) >= 10
    error = np.abs(predict(blocks(own)).seconds / np.array([r.step_time for r in own]) - 1.0)
    assert np.median(error) < 0.10
    assert np.quantile(error, 0.9) < 0.20


@pytest.mark.parametrize("framework", ["fms-fsdp", "nemo-24.07"])
def test_constants_carried_over_are_those_of_the_fitted_stack(framework: str) -> None:
    entry = next(e for e in sources().fits if e.framework == framework)
    assert entry.like is not None
    assert not entry.times
    own, other = load_framework(framework), load_framework(entry.like)
    assert isinstance(own, TrainingFramework)
    assert isinstance(other, TrainingFramework)
    fitted = next(e for e in sources().fits if e.framework == entry.like).times
    for family, name in (("ampere", "bf16"), ("hopper", "bf16"), ("hopper", "fp8")):
        mine, theirs = own.on(family, name), other.on(family, name)
        moved = {n.partition("@")[0] for n in fitted}
        assert {n: mine[n] for n in moved} == {n: theirs[n] for n in moved}


def test_carrying_over_writes_no_fit(tmp_path: Path) -> None:
    assert not fit_frameworks([TABLE], tmp_path, ["nemo-24.07"])
    text = (tmp_path / "nemo-24.07.yaml").read_text()
    assert "carried over from nemo-25.04" in text
    assert "kind: fitted" not in text


def seconds(row: TrainingRow, **changes: float) -> float:
    def constants(block: object) -> Mapping[str, float]:
        return {**stated_constants(blocks([row])[0]), **changes}

    return float(predict(blocks([row]), constants).seconds[0])


def test_what_travels_costs_by_its_width(rows: list[TrainingRow]) -> None:
    """Where nothing hides it, gathering weights in 4 bytes takes twice the time of 2; sums of gradients too."""
    row = next(r for r in rows if r.case == "fms_README_70b_A100")
    bare = {"gather_exposed": 1.0, "overlap_interference": 0.0}
    for name in ("weights_wire", "gradients_wire"):
        narrow, wide, wider = (seconds(row, **{name: width}, **bare) for width in (2.0, 4.0, 6.0))
        assert narrow < wide < wider
        assert wider - wide == pytest.approx(wide - narrow, rel=0.02)


def test_whole_gradients_travel_in_buckets(rows: list[TrainingRow]) -> None:
    """Pieces are those of scatters to the shards of the optimizer: without shards their number says nothing."""
    row = next(r for r in rows if r.case == "nemo2407_GPT3-20B_64")
    plain = TrainingRow(**{**row.__dict__, "columns": {**row.columns, "optimizer_group": 1.0}})
    assert seconds(plain, gradient_pieces=9.0) == pytest.approx(seconds(plain, gradient_pieces=1.0), rel=1e-12)
    assert seconds(row, gradient_pieces=9.0) > seconds(row, gradient_pieces=1.0)
