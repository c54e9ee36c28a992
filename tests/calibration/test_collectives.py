"""Calibration of collectives: rows to machines and libraries, reasons, and fits that find what made the timings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration.fit import fit_groups
from perfmodel.calibration.model import Group, Key
from perfmodel.calibration.operators import model_named
from perfmodel.calibration.operators.collective import MODEL, library_named, with_constants
from perfmodel.calibration.operators.expert_exchange import MODEL as EXCHANGE
from perfmodel.calibration.rows import read_tables
from perfmodel.calibration.store import Store, shipped
from perfmodel.calibration.subjects import place_of
from perfmodel.calibration.validate import predict_group, validate
from perfmodel.network.build import build_network
from perfmodel.specs.system import load_system

HEAD = "system,kind,ranks,ranks_per_node,bytes,dtype,time_us,backend,version,source\n"


def table(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "collectives.csv"
    path.write_text(HEAD + "".join(row + "\n" for row in rows))
    return path


def made(machine: str, rows: int = 60, noise: float = 0.03, seed: int = 3) -> Group:
    """Timings by the shipped constants of a machine, with noise."""
    rng = np.random.default_rng(seed)
    columns = {
        "ranks": 2.0 ** rng.integers(1, 4, rows),
        "bytes": np.floor(2.0 ** rng.uniform(9, 29, rows)),
        "kind": rng.integers(0, 4, rows).astype(float),
    }
    columns["per_node"] = columns["ranks"]
    key = Key("collective", machine, "nccl", "NCCL", "aiconfigurator")
    lines = tuple(range(rows))
    empty = Group(key, "made.csv", "made", "NCCL", machine, "half", columns, np.ones(rows), lines)
    seconds = predict_group(empty, shipped()).seconds * np.exp(rng.normal(0.0, noise, rows))
    return Group(key, "made.csv", "made", "NCCL", machine, "half", columns, seconds, lines)


def test_labels_mean_machines_and_backends_libraries(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "H100-SXM5-80GB,all_reduce,8,8,1024,half,16.0,NCCL,2.27,x:y",
        "h100,all_gather,4,4,1024,half,8.0,NCCL,2.27,x:y",
        "Frontier,all_reduce,64,8,1024,int32,90,RCCL 2.20.5 via MPICH CCL backend,,x:y",
        "Frontier,all_reduce,64,8,1024,int32,60,Cray MPICH GPU-aware,,x:y",
        "B200-SXM,all_reduce,8,8,1024,bfloat16,6,TRTLLM,,x:y",
    )
    groups = read_tables([path])[0].groups
    assert [(g.key.device, g.key.format) for g in groups] == [
        ("dgx-h100", "nccl"),
        ("dgx-h100", "nccl"),
        ("frontier", "rccl"),
        ("frontier", "cray-mpich"),
        ("b200-8x", "custom"),
    ]
    assert library_named("SGLang_CustomAllReduce_eager") == "custom"


def test_every_row_is_predicted_or_has_a_reason(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "H100-SXM5-80GB,all_reduce,8,8,1024,half,16.0,NCCL,2.27,x:y",
        "H100-SXM5-80GB,alltoallw,8,8,1024,half,16.0,NCCL,2.27,x:y",
        "H200-SXM-141GB,all_reduce,16,8,1024,half,16.0,NCCL,2.27,x:y",
        "Abacus,all_reduce,8,8,1024,half,16.0,NCCL,2.27,x:y",
        "H100-SXM5-80GB,all_reduce,8,8,,half,16.0,NCCL,2.27,x:y",
    )
    reports = validate([path])
    assert sum(r.rows for r in reports) == 5
    assert sum(r.predicted for r in reports) == 1
    reasons = " ".join(reason for r in reports for reason in r.skipped)
    for part in ("operation alltoallw", "network between nodes", "no specification of the machine Abacus", "missing"):
        assert part in reasons


@pytest.mark.parametrize("machine", ["b200-8x", "h200-8x"])
def test_a_fit_predicts_rows_it_has_not_seen(machine: str) -> None:
    group = made(machine)
    seen = np.arange(len(group)) % 3 != 0
    store = Store(tuple(fit_groups([group.take(seen)])))
    rest = group.take(~seen)
    error = np.abs(predict_group(rest, store).seconds / rest.seconds - 1.0)
    assert np.median(error) < 0.06
    assert np.quantile(error, 0.9) < 0.2


def test_plans_and_validation_price_a_collective_alike() -> None:
    """The constants of a fit, put on the network of the cluster file, give what the cluster file gives."""
    fit = next(f.group for f in shipped().fits if (f.device, f.group.variant) == ("h200-8x", "NCCL"))
    plans = build_network(load_system("h200-8x").cluster)
    fitted = with_constants(place_of("h200-8x").network("nccl"), "nccl", fit.constants)
    columns = {
        "ranks": np.array([8.0]),
        "per_node": np.array([8.0]),
        "bytes": np.array([2.0**20]),
        "kind": np.array([2.0]),
    }
    validated = MODEL.predict(columns, place_of("h200-8x"), fit.constants, "nccl")
    from perfmodel.network.collectives import all_reduce
    from perfmodel.network.topology import Group as Ranks

    for network in (plans, fitted):
        assert all_reduce(network, Ranks((8.0,)), 2.0**20) == pytest.approx(validated[0], rel=2e-3)


def test_eager_calls_cost_no_less_than_their_launch() -> None:
    columns = {
        "ranks": np.array([8.0, 8.0]),
        "per_node": np.array([8.0, 8.0]),
        "bytes": np.array([256.0, 2.0**28]),
        "kind": np.array([2.0, 2.0]),
    }
    place = place_of("h200-8x")
    plain = MODEL.predict(columns, place, {}, "custom")
    eager = MODEL.predict(columns, place, {"host_floor": 40e-6}, "custom")
    assert eager[0] == pytest.approx(40e-6, rel=0.01)
    assert eager[1] == pytest.approx(plain[1], rel=0.01)


def test_tokens_sent_once_per_rank_cost_less_than_copies() -> None:
    row = {"system": "H100-SXM5-80GB", "kind": "moe_dispatch", "mode": "low_latency", "ranks": "8", "topk": "8"}
    row |= {"tokens_per_rank": "4096", "hidden": "7168", "experts": "256"}
    constants = {p.name: p.default for p in EXCHANGE.parameters(Key("expert_exchange", "dgx-h100", "x", "y", ""))}
    seconds = {}
    for mode in ("low_latency", "normal"):
        _, sizes = EXCHANGE.read({**row, "mode": mode})
        columns = {name: np.array([value]) for name, value in sizes.items()}
        seconds[mode] = EXCHANGE.predict(columns, place_of("dgx-h100"), constants, "x")[0]
    assert seconds["normal"] < seconds["low_latency"]
    assert model_named("expert_exchange") is EXCHANGE
