"""Traces: what is read, and what is said of mistakes."""

from __future__ import annotations

import itertools

import pytest

from perfmodel.errors import SpecError
from perfmodel.serving.arrivals import Synthetic
from perfmodel.specs.trace import Arrival, prefix_hashes, read_trace

OWN = "arrival_s,prompt_tokens,output_tokens\n10.0,374,44\n14.3,396,109\n"


def write(folder, text: str, name: str = "t.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_times_count_from_the_first_request_and_scale(tmp_path) -> None:
    found = list(read_trace(write(tmp_path, OWN), rate_scale=2.0))
    assert found == [Arrival(0.0, 374, 44), Arrival(pytest.approx(2.15), 396, 109)]


AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
"""Form of the Azure LLM inference traces."""
MOONCAKE = """{"timestamp": 0, "input_length": 6755, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 3000, "input_length": 5, "output_length": 1, "hash_ids": []}
"""
"""Form of the Mooncake traces."""


def test_published_formats_are_known(tmp_path) -> None:
    found = list(read_trace(write(tmp_path, AZURE)))
    assert found[1].seconds == pytest.approx(4.314579, abs=1e-5)
    found = list(read_trace(write(tmp_path, MOONCAKE, "m.jsonl")))
    assert found == [Arrival(0.0, 6755, 500, (0, 1)), Arrival(3.0, 5, 1)]


def test_hashes_may_stand_in_a_file_of_their_own(tmp_path) -> None:
    hashes = prefix_hashes(write(tmp_path, "row,hash_ids\n1,7 8 9\n", "h.csv"))
    assert [a.prefix for a in read_trace(write(tmp_path, OWN), hashes=hashes)] == [(), (7, 8, 9)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the trace is empty"),
        ("arrival_s,prompt_tokens,output_tokens\n", "holds no request"),
        ("arrival_s,prompt_tokens\n1,2\n", "no column for output"),
        (OWN + "13.0,1,1\n", "t.csv:4: arrival: arrivals must not go back in time"),
        (OWN + "15.0,1\n", "t.csv:4: the line is cut short"),
        (OWN + "15.0,,1\n", "t.csv:4: prompt: a whole number"),
        (OWN + "15.0,-3,1\n", "t.csv:4: prompt: a whole number"),
        (OWN + "15.0,3,1.5\n", "t.csv:4: output: a whole number"),
        (OWN + "-1,3,1\n", "t.csv:4: arrival: a time from zero"),
        (OWN + "nan,3,1\n", "t.csv:4: arrival: a time from zero"),
        (OWN + "soon,3,1\n", "t.csv:4: arrival: a number or a date"),
    ],
)
def test_mistakes_name_their_line(tmp_path, text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        list(read_trace(write(tmp_path, text)))


def test_empty_lines_are_passed_over_and_a_limit_ends(tmp_path) -> None:
    path = write(tmp_path, OWN.replace("\n14", "\n\n14"))
    assert len(list(read_trace(path))) == 2
    assert len(list(read_trace(path, limit=1))) == 1


@pytest.mark.parametrize("variation", [0.0, 1.0, 2.5])
def test_a_synthetic_load_has_the_moments_it_was_asked_for(variation: float) -> None:
    load = list(Synthetic(20.0, 500, 100, 40_000, variation=variation, length_variation=0.8, seed=3))
    gaps = [b.seconds - a.seconds for a, b in itertools.pairwise(load)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((g - mean) ** 2 for g in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 20.0, rel=0.05)
    assert deviation / mean == pytest.approx(variation, rel=0.05, abs=1e-6)
    prompts = [a.prompt for a in load]
    assert sum(prompts) / len(prompts) == pytest.approx(500, rel=0.03)


def test_a_synthetic_load_can_be_continued_anywhere() -> None:
    long, short = Synthetic(5.0, 100, 10, 10_000, seed=4), Synthetic(5.0, 100, 10, 6_000, seed=4)
    assert list(itertools.islice(long, 4096)) == list(itertools.islice(short, 4096))
