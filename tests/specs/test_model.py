"""Model files: every shipped one loads, aliases are unique, errors say file, line and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from perfmodel.errors import SpecError
from perfmodel.specs.model import Model, load_model

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.yaml"))

PUBLISHED = {
    "llama70b": 68_976_648_192,
    "llama405b": 405_853_388_800,
    "mixtral-8x7b": 46_702_792_704,
    "deepseek-v3": 671_026_404_352,
    "gpt-neox-20b": 20_554_567_680,
    "bloom": 176_247_271_424,
    "gpt-oss-120b": 116_829_156_672,
    "gemma-3-27b": 27_432_406_640,
    "falcon-180b": 179_522_565_120,
    "jamba-1.5-mini": 51_570_323_328,
    "nemotron-3-nano": 31_577_937_344,
    "qwen3-32b": 32_762_123_264,
}
ROUNDED = {
    "gpt3": 175e9,
    "megatron-22b": 22e9,
    "megatron-175b": 175e9,
    "megatron-530b": 530e9,
    "megatron-1t": 1008e9,
    "opt-175b": 175e9,
    "mpt-7b": 6.65e9,
    "mpt-30b": 29.96e9,
    "gpt2-xl": 1.5576e9,
}
NEEDED = """
    llama70b llama405b mixtral-8x7b deepseek-v3 gpt-neox-20b llama2-7b llama-2-7b llama3-8b llama-3.1-70b llama3.1-70b
    gpt3-175b gpt3 megatron-22b megatron-1t bloom opt-175b qwen3-32b gpt-oss-120b gemma-3-27b jamba-1.5-mini falcon-180b
    mpt-7b
"""


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {path.stem: load_model(path) for path in MODELS}


def by_alias(models: dict[str, Model]) -> dict[str, Model]:
    return {alias: model for model in models.values() for alias in model.aliases}


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_shipped_file_loads_and_has_a_source(path: Path) -> None:
    model = load_model(path)
    assert model.name
    assert model.aliases
    assert len(model.source) > 10
    assert 0 < model.active_parameters <= model.parameters
    assert model.architecture.max_positions or model.architecture.family in {"bloom", "mamba2", "falcon"}


def test_every_name_means_one_model(models: dict[str, Model]) -> None:
    owners: dict[str, str] = {}
    for stem, model in models.items():
        for name in {stem, model.name.casefold(), *(a.casefold() for a in model.aliases)}:
            assert owners.setdefault(name, stem) == stem
        assert len(set(model.aliases)) == len(model.aliases)


def test_needed_aliases_exist(models: dict[str, Model]) -> None:
    assert set(NEEDED.split()) <= set(by_alias(models))


@pytest.mark.parametrize(("alias", "parameters"), PUBLISHED.items())
def test_published_count(models: dict[str, Model], alias: str, parameters: int) -> None:
    assert by_alias(models)[alias].parameters == parameters


@pytest.mark.parametrize(("alias", "parameters"), ROUNDED.items())
def test_rounded_count(models: dict[str, Model], alias: str, parameters: float) -> None:
    assert by_alias(models)[alias].parameters == pytest.approx(parameters, rel=0.005)


def test_only_the_older_models_have_dropout(models: dict[str, Model]) -> None:
    names = {stem.split("-")[0] for stem, m in models.items() if m.architecture.dropout}
    assert names == {"gpt", "gpt2", "megatron", "opt"}
    assert not models["gpt-neox-20b"].architecture.dropout


# ---- a user's own file -----------------------------------------------------------------------------------------------

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
}


def test_a_plain_config(tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    assert load_model(path).name == "tiny"
    path.write_text(json.dumps({**CONFIG, "_name_or_path": "someone/Tiny-1"}))
    assert load_model(path).name == "Tiny-1"


def test_a_config_is_named_after_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "My-Model" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    assert load_model(path).name == "My-Model"


def test_ours_and_plain_are_the_same_model(tmp_path: Path) -> None:
    plain, ours = tmp_path / "a.json", tmp_path / "b.yaml"
    plain.write_text(json.dumps(CONFIG))
    ours.write_text(yaml.safe_dump({"name": "B", "source": "a test", "config": CONFIG}, sort_keys=False))
    assert load_model(plain).architecture == load_model(ours).architecture


def test_an_error_says_file_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    lines = ["name: Bad", "source: a test", "config:", *(f"  {k}: {v}" for k, v in CONFIG.items())]
    path.write_text("\n".join(lines).replace("num_attention_heads: 4", "num_attention_heads: 5"))
    with pytest.raises(SpecError) as caught:
        load_model(path)
    assert caught.value.file == str(path)
    assert caught.value.line == 5
    assert caught.value.field == "config.hidden_size"


def test_an_error_in_a_plain_config_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**CONFIG, "num_hidden_layers": 0}, indent=1))
    with pytest.raises(SpecError) as caught:
        load_model(path)
    assert (caught.value.line, caught.value.field) == (4, "num_hidden_layers")


def test_unknown_key_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({"name": "B", "sorce": "x", "source": "y", "config": CONFIG}))
    with pytest.raises(SpecError, match="sorce"):
        load_model(path)


@pytest.mark.parametrize("missing", ["name", "source", "config"])
def test_missing_key_of_the_file(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "bad.yaml"
    data = {"name": "B", "source": "y", "config": CONFIG}
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if k != missing}))
    with pytest.raises(SpecError, match=missing):
        load_model(path)
