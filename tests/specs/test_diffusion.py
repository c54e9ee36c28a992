"""Diffusion models: exact parameters, published multiply-adds, bad files."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from perfmodel.cli.main import app
from perfmodel.errors import SpecError, UnknownName
from perfmodel.operators.denoiser import ImageSizes, denoiser_calls, product_flops
from perfmodel.specs.images import asks_for_images, load_image_model, load_image_workload, revise_images
from perfmodel.specs.locate import find_model, image_model_names


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("sdxl", 2567463684), ("sd-1.5", 859520964), ("sd-2.1", 865910724), ("pixart-alpha", 611349152)],
)
def test_parameters_are_those_of_the_published_weights(name: str, parameters: int) -> None:
    model = load_image_model(name)
    assert model.parameters == parameters
    assert model.denoiser.vae_parameters == 49490199  # decoder with the projection in front of it


@pytest.mark.parametrize(
    ("name", "side", "published"),
    [("sdxl", 1024, 149.438), ("sd-1.5", 512, 16.938), ("sd-2.1", 768, 38.041), ("pixart-alpha", 1024, 107.031)],
)
def test_multiply_adds_are_those_published(name: str, side: int, published: float) -> None:
    """T-GATE README: 25 steps with guidance, products and convolutions [T]."""
    denoiser = load_image_model(name).denoiser
    sizes = ImageSizes(2.0, side / 8.0, side / 8.0, text=float(denoiser.text_tokens))
    assert 25 * product_flops(denoiser.parts, sizes, cores=False) / 2e12 == pytest.approx(published, rel=1e-3)


def test_calls_do_all_the_work_once() -> None:
    denoiser = load_image_model("sdxl").denoiser
    sizes = ImageSizes(2.0, 128.0, 128.0)
    calls = denoiser_calls(denoiser.parts, sizes)
    counted = sum(c.share * c.work.flops for c in calls if c.component != "elementwise")
    assert counted == pytest.approx(product_flops(denoiser.parts, sizes))


def test_strips_share_the_work_of_an_image() -> None:
    """What belongs to pixels is divided; time and text are computed by every rank."""
    denoiser = load_image_model("sdxl").denoiser
    whole, strip = (product_flops(denoiser.parts, ImageSizes(1.0, 128.0, 128.0, split=n)) for n in (1.0, 8.0))
    assert whole / 8 < strip < whole / 8 * 1.1


def test_every_shipped_model_loads_and_is_told_from_language_models() -> None:
    for entry in image_model_names():
        assert load_image_model(entry.name).parameters > 1e8
        assert all(asks_for_images(name, None) for name in (entry.name, *entry.aliases))
    assert not asks_for_images("llama-3-8b", "chat")
    assert asks_for_images("llama-3-8b", "image")


def test_a_config_json_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "unet.json"
    file.write_text('{"_class_name": "UNet2DConditionModel", "block_out_channels": [32, 64], "layers_per_block": 1, '
                    '"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "attention_head_dim": 4, '
                    '"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}')  # fmt: skip
    assert load_image_model(file).parameters > 0
    assert asks_for_images(str(file), None)
    file.write_text('{"_class_name": "UNet1D"}')
    with pytest.raises(SpecError, match=r"_class_name.*UNet1D"):
        load_image_model(file)
    file.write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(SpecError, match="block_out_channels"):
        load_image_model(file)


@pytest.mark.parametrize("asked", [["list", "diffusion"], ["list", "images"], ["show", "sdxl"], ["show", "image"]])
def test_they_are_listed_and_shown(asked: list[str]) -> None:
    shown = CliRunner().invoke(app, ["specs", *asked])
    assert shown.exit_code == 0
    assert {"sdxl", "image", "Diffusion XL"} & {w for w in ("sdxl", "image", "Diffusion XL") if w in shown.output}


def test_their_files_are_checked() -> None:
    for entry in image_model_names():
        shown = CliRunner().invoke(app, ["specs", "check", str(entry.path)])
        assert shown.exit_code == 0, shown.output


def test_the_wrong_kind_of_model_is_told() -> None:
    with pytest.raises(SpecError, match=r"language model.*sdxl"):
        load_image_model("llama-3-8b")
    with pytest.raises(SpecError, match="makes images"):
        find_model("sdxl")
    with pytest.raises(UnknownName, match="sdxl"):
        load_image_model("sdxxl")


def test_workloads() -> None:
    work = load_image_workload("image")
    assert revise_images(work, {"steps": 20, "latency": "2 s"}).latency == 2.0
    with pytest.raises(SpecError, match="steps"):
        revise_images(work, {"steps": 0})
    with pytest.raises(UnknownName):
        load_image_workload("picture")
