"""Fits find the constants that made their data, files round-trip, validation reports what it did."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration.fit import fit_groups, fit_one, predicted, shape_hash
from perfmodel.calibration.model import Group, Key
from perfmodel.calibration.operators import OPERATOR_MODELS, model_named
from perfmodel.calibration.rows import origin_of, read_tables
from perfmodel.calibration.shipping import calibrate, calibration_text
from perfmodel.calibration.store import TIERS, Fitted, Store, regime, shipped
from perfmodel.calibration.subjects import DEVICES, MACHINES, engine_of
from perfmodel.calibration.validate import predict_group, validate
from perfmodel.cli.main import run
from perfmodel.errors import SpecError
from perfmodel.machine.engine import Constants
from perfmodel.specs.calibration import CalibrationFile
from perfmodel.specs.load import parse
from perfmodel.specs.locate import cluster_names, device_names
from perfmodel.specs.system import load_device
from perfmodel.specs.yamlfile import read

TRUE = {
    "compute_fraction": 0.7,
    "memory_fraction": 0.9,
    "launch": 4e-6,
    "wave_quantisation": 0.6,
    "k_step": 0.15e-6,
    "prologue": 2e-6,
    "split_launch": 4e-6,
    "corner": 3.0,
}


def shapes(rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    m = np.round(2.0 ** rng.uniform(0, 14, rows))
    n, k = (64.0 * np.round(2.0 ** rng.uniform(1, 8, rows)) for _ in range(2))
    return {"m": m, "n": n, "k": k, "resident": np.zeros(rows), "copies": np.ones(rows), "until_full": np.zeros(rows)}


def made(
    rows: int,
    framework: str = "vllm",
    device: str = "h100-sxm",
    noise: float = 0.03,
    seed: int = 1,
    format: str = "bf16",
) -> Group:
    key = Key("gemm", device, format, framework, "synthetic")
    columns = shapes(rows, seed)
    group = Group(key, "made.csv", "synthetic", framework, device, format, columns, np.ones(rows), tuple(range(rows)))
    seconds = predicted(model_named("gemm"), group, TRUE)
    factor = np.exp(np.random.default_rng(seed + 99).normal(0.0, noise, rows))
    return Group(*group_fields(group), seconds=seconds * factor, lines=group.lines)


def group_fields(g: Group) -> tuple[object, ...]:
    return (g.key, g.file, g.source, g.framework, g.label, g.dtype, g.columns)


def table(path: Path, groups: list[Group]) -> Path:
    names = ["device", "dtype", "m", "n", "k", "time_us", "framework", "kernel", "weight_fits_l2", "source"]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(names)
        for g in groups:
            for i, seconds in enumerate(g.seconds):
                sizes = [int(g.columns[n][i]) for n in ("m", "n", "k")]
                rows.writerow([g.label, g.dtype, *sizes, seconds * 1e6, g.framework, "", 0, f"{g.key.origin}:x"])
    return path


def test_a_fit_recovers_the_constants_of_synthetic_timings() -> None:
    model, group = model_named("gemm"), made(400, noise=0.01)
    parameters = [p for p in model.parameters(group.key) if not p.artefact]
    centre = np.log([p.default for p in parameters])
    sigma = np.array([3.0 * p.sigma for p in parameters])
    fit = fit_one(model, [group], parameters, centre, sigma)
    for name in ("compute_fraction", "memory_fraction", "launch"):
        assert fit.values[name] == pytest.approx(TRUE[name], rel=0.05), name
    assert np.median(np.abs(fit.residuals)) < 0.015


def test_a_few_wild_rows_do_not_move_a_fit() -> None:
    group = made(200, noise=0.01)
    seconds = group.seconds.copy()
    seconds[::20] *= 3.0
    wild = Group(*group_fields(group), seconds=seconds, lines=group.lines)
    store = Store(tuple(fit_groups([wild])))
    error = predict_group(group, store).seconds / group.seconds - 1.0
    assert np.median(np.abs(error)) < 0.03


def test_what_the_data_cannot_tell_is_named() -> None:
    group = made(200)
    small = group.take(group.columns["m"] * group.columns["n"] < 64.0 * 64.0 * 10)
    fits = {f.group.variant: f.group for f in fit_groups([small])}
    assert "compute_fraction" in fits["vllm"].undetermined


def test_few_rows_keep_the_constants_of_the_pool() -> None:
    many, few = made(120), made(4, framework="sglang", seed=5)
    fits = {f.group.variant: f.group for f in fit_groups([many, few])}
    assert fits["sglang"].rows == 4
    assert fits["sglang"].constants["launch"] == pytest.approx(fits["vllm"].constants["launch"], rel=0.2)


def test_tiers_go_from_the_framework_to_the_class() -> None:
    fits = fit_groups([made(60, device="h100-sxm"), made(60, device="b200", seed=2)])
    store, model = Store(tuple(fits)), model_named("gemm")

    def tier(device: str, framework: str, format: str = "bf16") -> str:
        return store.choose(model, Key("gemm", device, format, framework, "synthetic")).tier

    assert tier("h100-sxm", "vllm") == "fitted"
    assert tier("h100-sxm", "other") == "device"
    assert tier("h200", "vllm") == "sibling"
    assert tier("h200", "other") == "family"
    assert tier("h100-sxm", "vllm", "fp16") == "family", "another format of 16 bits"
    assert tier("mi300x", "vllm") == tier("mi300x", "vllm", "fp16") == "library"
    assert tier("mi300x", "vllm", "w8a16") == "foreign", "formats that 16 bits stand in for"
    assert tier("mi300x", "vllm", "nvfp4") == "class"
    assert set(TIERS) >= {"fitted", "device", "sibling", "family", "library", "foreign", "class"}


def test_stated_intervals_hold_what_they_say() -> None:
    group = made(600, noise=0.08)
    part = shape_hash(group) % 2 == 0
    store = Store(tuple(fit_groups([group.take(part)], folds=3)))
    rest = group.take(~part)
    found = predict_group(rest, store)
    inside = np.mean((rest.seconds >= found.low) & (rest.seconds <= found.high))
    assert 0.72 <= inside <= 0.90


def test_predictions_are_those_of_the_planner() -> None:
    from perfmodel.machine.kernels import kernel_time
    from perfmodel.operators.gemm import gemm

    group = made(50)
    engine = engine_of("h100-sxm").calibrated("gemm", "bf16", Constants(**TRUE))
    work = gemm(group.columns["m"], group.columns["n"], group.columns["k"])
    ours = predicted(model_named("gemm"), group, TRUE)
    assert np.allclose(ours, kernel_time(work, engine).seconds, rtol=1e-12)


def test_calibrate_then_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = table(tmp_path / "mine.csv", [made(80), made(80, framework="sglang", seed=3)])
    out = tmp_path / "tuned.yaml"
    assert run(["calibrate", str(measured), "--hw", "h100", "-o", str(out), "--date", "2026-11-23"]) == 0
    device = load_device(out)
    assert device.name == "tuned"
    assert device.kernels["gemm"]["any"].compute_fraction is not None
    assert {g.variant for g in device.calibration} == {"vllm", "sglang", "any"}
    capsys.readouterr()
    assert run(["validate", str(measured), "--hw", str(out), "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [r["tier"] for r in reports] == ["fitted", "fitted"]
    for report in reports:
        assert report["median_abs_error"] < 0.04
        assert report["rows"] == report["predicted"] == 80
        assert report["metric"] == "time"


def test_skipped_rows_are_counted_by_reason(tmp_path: Path) -> None:
    path = table(tmp_path / "odd.csv", [made(10)])
    with path.open("a") as file:
        file.write("no-such-device,bf16,1,1,1,5.0,vllm,,0,synthetic:x\n")
        file.write("h100-sxm,int3,1,1,1,5.0,vllm,,0,synthetic:x\n")
        file.write("h100-sxm,bf16,1,,1,5.0,vllm,,0,synthetic:x\n")
        file.write("h100-sxm,bf16,1,1,1,0,vllm,,0,synthetic:x\n")
    reports = validate([path])
    reasons = {reason: count for r in reports for reason, count in r.skipped.items()}
    assert sum(reasons.values()) == 4
    assert sum(r.predicted for r in reports) == 10
    assert sum(r.rows for r in reports) == 14
    assert any("device" in reason for reason in reasons)


def test_unreadable_measurements_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        read_tables([tmp_path / "absent.csv"])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(SpecError, match="empty"):
        read_tables([tmp_path / "empty.csv"])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (report,) = validate([tmp_path / "other.csv"])
    assert report.predicted == 0
    assert sum(report.skipped.values()) == 1
    with pytest.raises(SpecError, match="no row"):
        calibrate([tmp_path / "other.csv"], "h100", "x")


def test_shipped_calibrations_load_and_name_devices() -> None:
    names = {e.name for e in (*device_names(), *cluster_names())}
    fits = shipped().fits
    assert {f.device for f in fits} <= names
    operators = {m.name for m in OPERATOR_MODELS}
    for fit in fits:
        model = model_named(fit.group.operator)
        key = Key(fit.group.operator, fit.device, fit.group.format, fit.group.variant, fit.group.origin)
        assert fit.group.operator in operators
        assert set(fit.group.constants) <= {p.name for p in model.parameters(key)}
        assert len(fit.group.constants) <= 12 or model.subject is MACHINES
        bounds = {p.name: p for p in model.parameters(key)}
        for name, value in fit.group.constants.items():
            assert bounds[name].low * 0.999 <= value <= bounds[name].high * 1.001, (key, name)


def test_calibration_files_round_trip(tmp_path: Path) -> None:
    fits = fit_groups([made(60)], date="2026-11-23", folds=3)
    path = tmp_path / "h100-sxm.yaml"
    path.write_text(calibration_text("h100-sxm", [f.group for f in fits], "hopper"))
    found = parse(CalibrationFile, read(path))
    again = tuple(Fitted(found.device, found.family, g) for g in found.groups)
    assert {f.group for f in map(_plain, again)} == {f.group for f in map(_plain, fits)}


def _plain(fit: Fitted) -> Fitted:
    return fit._replace(group=fit.group.model_dump_json())  # type: ignore[arg-type]


def test_regimes_and_origins() -> None:
    assert regime(1e-6) != regime(1e-3)
    assert origin_of("vidur:a100/x") == "vidur"
    assert origin_of("owner/repo@abc:path") == "owner/repo"
    assert origin_of("") == "unnamed"


def test_at_most_twelve_constants_per_group() -> None:
    for model in (m for m in OPERATOR_MODELS if m.subject is DEVICES):
        for format in ("bf16", "fp8_block", "nvfp4"):
            for variant in ("vllm", "pytorch"):
                assert len(model.parameters(Key(model.name, "h100-sxm", format, variant, "x"))) <= 12


def test_a_million_shapes_per_second_and_core() -> None:
    """Generous by a factor of ten: shared machines are slow at times."""
    import time

    group = made(200_000)
    start = time.process_time()
    predicted(model_named("gemm"), group, TRUE)
    assert len(group) / (time.process_time() - start) > 1e5
