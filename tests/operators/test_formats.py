"""Weight formats: stored bytes against arrays that hold the numbers, and against published bits per weight."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perfmodel.errors import SpecError, UnknownName
from perfmodel.insight.setting import Question, make_setting
from perfmodel.operators.formats import STORAGE, cached_bytes, mean_matrix, mean_row, storage, stored_bytes
from perfmodel.specs.framework import load_framework
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.specs.number_formats import NumberFormat, cache_format, cache_formats, weight_format, weight_formats
from perfmodel.specs.system import load_system
from perfmodel.specs.workload import load_workload
from perfmodel.techniques import asked_for

ROWS, INPUTS = 64, 4096
RNG = np.random.default_rng(3)


def bits(name: str, row: float = INPUTS) -> float:
    return 8.0 * float(stored_bytes(weight_format(name), row))


def per_weight(*arrays: np.ndarray) -> float:
    return 8.0 * sum(a.nbytes for a in arrays) / (ROWS * INPUTS)


def test_groups_with_scales_as_stored() -> None:
    """Two 4-bit numbers a byte; a 16-bit scale and half a byte of zero point per group of 128."""
    groups = ROWS * INPUTS // 128
    packed = (np.zeros(ROWS * INPUTS // 2, np.uint8), np.zeros(groups, np.float16), np.zeros(groups // 2, np.uint8))
    assert bits("awq-int4-g128") == per_weight(*packed) == 4.15625
    assert storage("awq-int4-g128").bytes == STORAGE["int4"].bytes


def test_tables_and_outliers_as_stored() -> None:
    """Eight codewords to three bytes, eight 16-bit values a row, and outliers as value and 32-bit position."""
    outliers = round(0.0045 * ROWS * INPUTS)
    table = np.zeros((ROWS, 8), np.float16)
    codes = np.packbits(RNG.integers(0, 2, (ROWS * INPUTS, 3), dtype=np.uint8))
    beside = (np.zeros(outliers, np.float16), np.zeros(outliers, np.uint32))
    assert bits("squeezellm-w3") == per_weight(codes, table)
    assert bits("squeezellm-w3-s45") == pytest.approx(per_weight(codes, table, *beside), rel=1e-4)


@pytest.mark.parametrize(("name", "density"), [("flash-llm-70", 0.3), ("flash-llm-90", 0.1)])
def test_positions_as_stored(name: str, density: float) -> None:
    kept = np.zeros(ROWS * INPUTS, bool)
    kept[RNG.choice(kept.size, round(density * kept.size), replace=False)] = True
    values = RNG.standard_normal(kept.size)[kept].astype(np.float16)
    positions = (np.flatnonzero(kept) % 2**14).astype(np.uint16)
    assert bits(name) == pytest.approx(per_weight(values, positions), rel=1e-4)


def test_masks_as_stored() -> None:
    kept = np.zeros(ROWS * INPUTS, bool)
    kept[::4] = True
    values = np.zeros(kept.sum(), np.float16)
    assert bits("mask-75-fp16") == per_weight(np.packbits(kept), values)
    assert 16.0 / bits("mask-75-fp16") == 3.2
    assert bits("mask-75-int8") == per_weight(np.packbits(kept), values.astype(np.int8))


def test_positions_cost_as_much_as_values_at_half_density() -> None:
    record = weight_format("flash-llm-80")
    half = record.model_copy(update={"density": 0.5})
    assert stored_bytes(half, INPUTS) == 2.0


@pytest.mark.parametrize(("entries", "vector", "ratio"), [(256, 8, 15.97), (4096, 6, None), (65536, 8, None)])
def test_codebooks_as_stored(entries: int, vector: int, ratio: float | None) -> None:
    """One index per vector and one codebook per matrix; v = 8 and k = 256 on 4096 x 4096 is the published 15.97."""
    rows, inputs = 4096, vector * (4096 // vector)
    record = weight_format("vptq-v8-k256")
    book = record.codebooks[0].model_copy(update={"entries": entries, "vector": vector})
    record = record.model_copy(update={"codebooks": (book,)})
    width = entries.bit_length() - 1
    indices = np.packbits(np.zeros((rows * inputs // vector, width), np.uint8))
    codebook = np.zeros((entries, vector), np.float16)
    exact = (indices.nbytes + codebook.nbytes) / (rows * inputs)
    assert stored_bytes(record, inputs, rows * inputs) == pytest.approx(exact, rel=1e-12)
    if ratio is not None:
        assert 2.0 / exact == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "name", "published"),
    [
        ("llama-2-7b", "vptq-v6-k4096", 2.02),
        ("llama-2-7b", "vptq-v8-k65536", 2.26),
        ("llama-2-13b", "vptq-v8-k65536", 2.18),
        ("llama-2-70b", "vptq-v8-k65536", 2.07),
    ],
)
def test_codebooks_of_a_model_come_to_the_published_bits(model: str, name: str, published: float) -> None:
    """Average bits per weight as the VPTQ report prints them, from vectors, codebooks and matrices alone."""
    a = load_model(find_model(model)).architecture
    assert 8.0 * stored_bytes(weight_format(name), mean_row(a), mean_matrix(a)) == pytest.approx(published, rel=0.015)


def test_two_of_four_as_stored() -> None:
    """Two of four values, and two bits that say which of the four each is."""
    values, positions = np.zeros(ROWS * INPUTS // 2, np.float16), np.zeros((ROWS * INPUTS // 2, 2), np.uint8)
    assert bits("sparse-2-4") == per_weight(values, np.packbits(positions))


def test_blocks_of_a_cache_as_stored() -> None:
    """Mantissas of four bits with sign and one exponent of eight per block; 16-bit scale and zero per group of KIVI."""
    head, tokens = 128, 512
    for name, block in (("bfp4-b32", 32), ("bfp4-b64", 64)):
        mantissas, exponents = np.zeros(head * tokens // 2, np.uint8), np.zeros(head * tokens // block, np.uint8)
        stored = (mantissas.nbytes + exponents.nbytes) / (head * tokens)
        assert cached_bytes(cache_format(name), head, tokens) == stored
    old = tokens - 128
    kivi = old * head // 2 + old * head // 32 * 4 + 128 * head * 2
    assert cached_bytes(cache_format("kivi-int4"), head, tokens) == pytest.approx(kivi / (head * tokens))
    assert cached_bytes(cache_format("kivi-int4"), head, 64) == 2.0


@pytest.mark.parametrize("name", cache_formats())
def test_a_longer_text_leaves_fewer_recent_tokens(name: str) -> None:
    record = cache_format(name)
    assert cached_bytes(record, 128, 1 << 20) <= cached_bytes(record, 128, 256) <= 2.0
    assert cached_bytes(record, 128, 1 << 20) >= record.number_bits / 8.0


@pytest.mark.parametrize("name", weight_formats())
def test_no_format_holds_less_than_its_entropy(name: str) -> None:
    """Which weights are stored takes the entropy of the pattern, their values the bits of each."""
    f = weight_format(name)
    p = f.density
    pattern = 0.0 if p == 1.0 else -p * math.log2(p) - (1.0 - p) * math.log2(1.0 - p)
    if f.pattern is not None:
        stored, of = map(int, f.pattern.split(":"))
        pattern = math.log2(math.comb(of, stored)) / of
    assert bits(name) >= p * f.number_bits + pattern - 1e-9


@pytest.mark.parametrize("name", weight_formats())
def test_what_lies_beside_is_spread_over_longer_rows(name: str) -> None:
    assert bits(name, 8192) <= bits(name, 1024)
    assert weight_format(name).density * weight_format(name).number_bits <= bits(name, 8192) < 16.0


def test_mean_row_counts_every_table_once() -> None:
    """Tables of all rows, added up matrix by matrix, equal the mean row's share."""
    architecture = load_model(find_model("llama-2-7b")).architecture
    layer = architecture.runs[0].layer
    assert layer.mixer is not None
    assert layer.ffn is not None
    linears = [*layer.mixer.linears, *layer.ffn.linears]
    weights = sum(x.parameters for x in linears)
    exact = sum(float(stored_bytes(weight_format("squeezellm-w3"), x.k)) * x.parameters for x in linears)
    assert float(stored_bytes(weight_format("squeezellm-w3"), mean_row(architecture))) * weights == pytest.approx(exact)


def test_records_that_contradict_themselves() -> None:
    good = weight_format("flash-llm-80").model_dump()
    for wrong in ({"index": 0.0}, {"density": 1.0}, {"outliers": 0.01}, {"bits": 0.0}):
        with pytest.raises(ValueError, match=r"density|outlier|bits"):
            NumberFormat.model_validate({**good, **wrong})


def test_values_behind_the_name_of_a_technique() -> None:
    assert asked_for(("packed_weights=vptq-v6-k4096,cbq-int4-channel", "local_steps")) == {
        "packed_weights": ("vptq-v6-k4096", "cbq-int4-channel"),
        "local_steps": (),
    }
    with pytest.raises(SpecError, match="nothing to choose"):
        asked_for(("local_steps=3",))
    parts = load_model(find_model("llama-2-7b")), load_system("h100-sxm"), load_workload("chat"), load_framework("vllm")
    with pytest.raises(UnknownName, match="awq-int4-g128"):
        make_setting(*parts, Question(use=("packed_weights=awq-int4-g64",)))
    named = make_setting(*parts, Question(use=("packed_weights=vptq-v6-k4096",)))
    axis = next(a for a in named.space.structural if "packed_weights" in a.columns)
    assert axis.values == (("none",), ("vptq-v6-k4096",))


def test_a_number_in_fewer_bits_is_read_faster_and_never_beyond_its_bytes() -> None:
    """Decode of one sequence: the speed-up of a format lies between 1 and the ratio of its bytes."""
    parts = load_model(find_model("llama-2-7b")), load_system("h100-sxm"), load_workload("chat"), load_framework("bare")
    row = mean_row(parts[0].architecture)
    for name in ("int8-channel", "awq-int4-g128", "squeezellm-w3", "flash-llm-90"):
        found = make_setting(*parts, Question(use=(f"packed_weights={name}",), pinned={"tp": 1, "pp": 1, "batch": 1}))
        plain, packed = (
            min(found.problem.evaluate(x).pass_seconds for x in found.space.plans() if x.packed_weights == chosen)
            for chosen in ("none", name)
        )
        assert 1.0 < plain / packed <= 2.0 / float(stored_bytes(weight_format(name), row))
