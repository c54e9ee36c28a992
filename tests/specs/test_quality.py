"""Published quality: as printed, between two that enclose it, or unknown; never beyond what was published."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

import perfmodel.specs.quality as package
from perfmodel.operators.formats import mean_matrix, mean_row, stored_bytes
from perfmodel.specs.architecture import Architecture
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.specs.number_formats import Published, weight_format, weight_formats
from perfmodel.specs.quality.formats import format_loss
from perfmodel.specs.quality.loss import Loss
from perfmodel.specs.quality.table import rows_of, series

TABLE = Path(package.__file__).parent / "inference.csv"


def model(name: str) -> Architecture:
    return load_model(find_model(name)).architecture


def loss(name: str, of: str) -> Loss | None:
    a, record = model(of), weight_format(name)
    return format_loss(record.quality, 8.0 * float(stored_bytes(record, mean_row(a), mean_matrix(a))), a)


def sized(of: str, wanted: float) -> Architecture:
    """A model of the same series with ``wanted`` parameters: what is in no matrix makes up the difference."""
    a = model(of)
    return replace(a, extra=a.extra + round(wanted - a.parameters))


def test_every_row_says_where_it_was_read() -> None:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 1800
    assert all(r["source"].strip() and r["metric"] and r["model"] for r in rows)
    assert not any("recalled" in r["source"] for r in rows)


def test_every_model_of_a_series_has_rows() -> None:
    for s in series():
        for size in s.sizes:
            assert any(rows_of(name) for name in size.names), (s.name, size.names)


@pytest.mark.parametrize(
    ("of", "name", "value", "named"),
    [
        ("llama-2-70b", "awq-int4-g128", 3.41 / 3.32 - 1.0, "Llama-2-70B"),
        ("llama-2-7b", "awq-int4-g128", 5.60 / 5.47 - 1.0, "Llama-2-7B"),
        ("llama-2-70b", "smoothquant-w8a8", 3.36 / 3.32 - 1.0, "Llama-2-70B"),
        ("llama-2-7b", "omniquant-int3-g128", 6.03 / 5.47 - 1.0, "Llama-2-7B"),
        ("yi-34b", "gptq-int4-g128", 4.68 / 4.60 - 1.0, "Yi-34B"),
        ("llama-2-13b", "vptq-v8-k65536", 5.28 / 4.57 - 1.0, "Llama-2-13B"),
    ],
)
def test_printed_numbers_come_back_as_printed(of: str, name: str, value: float, named: str) -> None:
    found = loss(name, of)
    assert found is not None
    assert found.value == pytest.approx(value, rel=1e-6)
    assert found.models == (named,)
    assert not found.interpolated
    assert "WikiText-2" in found.metric


def test_between_two_sizes_of_a_series() -> None:
    """Named as such, between both ends, continuous at them, and monotone from one to the other."""
    ends = [loss("awq-int4-g128", of) for of in ("llama-2-13b", "llama-2-70b")]
    low, high = sorted(end.value for end in ends if end is not None)
    wanted = weight_format("awq-int4-g128").quality
    found = [format_loss(wanted, 4.156, sized("llama-2-70b", p)) for p in (13.2e9, 20e9, 34e9, 50e9, 68e9)]
    values = [f.value for f in found if f is not None]
    assert len(values) == 5
    assert all(low <= v <= high for v in values)
    assert values == sorted(values)
    assert all(f is not None and f.interpolated and f.models == ("Llama-2-13B", "Llama-2-70B") for f in found)
    assert values[0] == pytest.approx(low, abs=2e-4)


def test_between_bits_of_a_method() -> None:
    """What lies between the published 3.15 and 4.16 bits of one model says so, and falls as bits are added."""
    a, wanted = model("llama-2-7b"), Published(methods=("OmniQuant",), weights=None)
    found = [format_loss(wanted, b, a) for b in (3.3, 3.4, 3.6, 3.8, 3.9)]
    values = [f.value for f in found if f is not None]
    assert len(values) == 5
    assert values == sorted(values, reverse=True)
    assert all(f is not None and f.bits is not None and f.bits[0] < f.bits[1] for f in found)
    end = loss("omniquant-int3-g128", "llama-2-7b")
    assert end is not None
    assert 0.0 < values[-1] < values[0] < end.value


def test_nothing_outside_the_published_range() -> None:
    wanted = weight_format("awq-int4-g128").quality
    assert format_loss(wanted, 4.156, sized("llama-2-70b", 90e9)) is None  # larger than any
    assert format_loss(wanted, 4.156, sized("llama-2-7b", 4e9)) is None  # smaller than any
    assert format_loss(Published(methods=("OmniQuant",), weights=None), 1.5, model("llama-2-7b")) is None
    assert loss("awq-int4-g128", "gpt-neox-20b") is None  # no series
    assert format_loss(None, 4.0, model("llama-2-7b")) is None  # nobody published the format
    assert format_loss(Published(methods=("no such method",), weights=4), 4.0, model("llama-2-7b")) is None


def test_a_model_of_the_same_shape_is_named() -> None:
    """Llama 3.1 has the shape of Llama 3: what was published for one is said to be of that one."""
    found = loss("qoq-w4a8-g128", "llama-3.1-8b")
    assert found is not None
    assert found.models == ("Llama-3-8B",)


@pytest.mark.parametrize("of", ["llama-2-7b", "llama-2-70b", "llama-3-8b", "qwen3-32b", "mistral-7b"])
def test_losses_are_never_negative_and_name_their_source(of: str) -> None:
    for name in weight_formats():
        found = loss(name, of)
        assert found is None or (found.value >= 0.0 and found.source and found.models)


@pytest.mark.parametrize("of", ["llama-2-7b", "llama-2-13b", "llama-2-70b", "llama-3-8b"])
@pytest.mark.parametrize(
    ("fewer", "more"),
    [("awq-int3-g128", "awq-int4-g128"), ("gptq-int2-g128", "gptq-int3-g128"), ("gptq-int3-g128", "gptq-int4-g128")],
)
def test_fewer_bits_of_one_method_lose_more(of: str, fewer: str, more: str) -> None:
    low, high = loss(fewer, of), loss(more, of)
    assert low is not None
    assert high is not None
    assert low.value > high.value
