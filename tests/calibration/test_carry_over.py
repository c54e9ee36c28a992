"""How constants reach devices that were never measured."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.calibration import validate as validation
from perfmodel.calibration.fit import fit_groups
from perfmodel.calibration.model import Key
from perfmodel.calibration.operators import model_named
from perfmodel.calibration.store import Store
from perfmodel.calibration.validate import predict_group
from perfmodel.machine.measured import cut_down, feed_of
from perfmodel.specs.system import load_device
from tests.calibration.test_fit import made


def slowed(factor: float, **key: object) -> object:
    """Timings of a device on which everything takes longer than its datasheet says."""
    group = made(60, **key)  # type: ignore[arg-type]
    return group.__class__(**{**group.__dict__, "seconds": factor * group.seconds})


def test_an_odd_family_does_not_move_what_the_others_agree_on() -> None:
    """Products of one library: the middle of the families, whoever called it."""
    usual = [made(60, "vllm", d, seed=i) for i, d in enumerate(("h100-sxm", "a100-80gb-sxm", "l40s", "b200"))]
    odd = slowed(4.0, framework="vllm", device="mi210", seed=9)
    wanted = made(60, "vllm", "v100-pcie", seed=11, format="fp16")
    store = Store(tuple(fit_groups([*usual, odd])))  # type: ignore[list-item]
    found = predict_group(wanted, store)
    assert found.tier == "library"
    assert np.median(np.abs(found.seconds / wanted.seconds - 1.0)) < 0.08


def test_a_name_says_nothing_of_a_product_of_one_library() -> None:
    fits = fit_groups([made(60, "vllm", "h100-sxm"), made(60, "sglang", "b200", seed=2)])
    store, model = Store(tuple(fits)), model_named("gemm")
    chosen = [store.choose(model, Key("gemm", "mi300x", "bf16", name, "synthetic")) for name in ("vllm", "sglang")]
    ours = [p.name for p in model.parameters(Key("gemm", "mi300x", "bf16", "vllm", "synthetic")) if not p.artefact]
    assert all(chosen[0].values[name] == chosen[1].values[name] for name in ours)


@pytest.mark.parametrize(
    ("device", "other", "same"),
    [("a100-80gb-sxm", "l40s", True), ("h100-sxm", "b200", True), ("h200", "a100-80gb-sxm", False)],
)
def test_kernels_follow_how_matrix_units_are_fed(device: str, other: str, same: bool) -> None:
    assert (feed_of(load_device(device)) == feed_of(load_device(other))) is same


def test_devices_fed_alike_come_before_others() -> None:
    """Experts of an L40S stand on those of another device with small matrix units, not on a Hopper's."""
    fits = fit_groups([made(60, "vllm", "h100-sxm"), made(60, "vllm", "rtx-pro-6000-se", seed=2)])
    renamed = [f._replace(group=f.group.model_copy(update={"operator": "moe", "format": "fp8"})) for f in fits]
    marked = [
        f._replace(group=f.group.model_copy(update={"constants": {**f.group.constants, "launch": mark}}))
        for f, mark in zip(renamed, (9e-6 if f.device == "h100-sxm" else 3e-6 for f in renamed), strict=True)
    ]
    chosen = Store(tuple(marked)).choose(model_named("moe"), Key("moe", "l40s", "fp8", "vllm", "synthetic"))
    assert chosen.values["launch"] == pytest.approx(3e-6)


def test_a_product_cut_to_half_the_rate_is_no_sibling() -> None:
    assert cut_down(load_device("rtx-4090"), load_device("l40s"))
    assert not cut_down(load_device("h100-sxm"), load_device("h200"))
    store = Store(tuple(fit_groups([made(60, "vllm", "l40s"), made(60, "vllm", "h100-sxm", seed=2)])))
    assert store.choose(model_named("gemm"), Key("gemm", "rtx-4090", "bf16", "vllm", "synthetic")).tier == "library"


def test_a_host_that_launches_one_by_one_sets_a_floor_though_it_was_never_measured() -> None:
    store, model = Store(tuple(fit_groups([made(60)]))), model_named("gemm")
    values = {
        v: store.choose(model, Key("gemm", "v100-pcie", "fp16", v, "elsewhere")).values for v in ("cublas", "vllm")
    }
    assert values["cublas"]["host_floor"] > 0.0
    assert "host_floor" not in values["vllm"]


def test_holding_devices_out_fits_a_pool_once() -> None:
    """Shared fits change no number: those of a device are the fits to everything else."""
    groups = [made(40, "vllm", d, seed=i) for i, d in enumerate(("h100-sxm", "h200", "b200"))]
    shared = validation._carried_over(groups)
    for group in groups:
        alone = Store(tuple(fit_groups([g for g in groups if g.key.device != group.key.device])))
        assert shared(group).seconds == pytest.approx(predict_group(group, alone).seconds, rel=1e-9)
