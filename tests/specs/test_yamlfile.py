"""Files become plain data with lines, or one message."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from perfmodel.errors import SpecError
from perfmodel.specs import yamlfile
from perfmodel.specs.yamlfile import MAX_NODES, plain_value, read


def written(folder: Path, text: str | bytes, name: str = "spec.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-12", -12),
        ("+3", 3),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1e9", 1e9),
        ("1.6e12", 1.6e12),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5E-3", -0.0005),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("3.35 TB/s", "3.35 TB/s"),
        ("1.2.3", "1.2.3"),
        (".", "."),
        ("-", "-"),
        ("0o8", "0o8"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = plain_value(text)
    assert found == value
    assert type(found) is type(value)


def test_quotes_and_the_string_tag_keep_text(tmp_path: Path) -> None:
    data = read(written(tmp_path, "a: '1'\nb: \"true\"\nc: !!str 7\nd: !!float 7\n")).data
    assert data == {"a": "1", "b": "true", "c": "7", "d": 7}


def test_lines_point_at_keys_and_items(tmp_path: Path) -> None:
    document = read(written(tmp_path, "a:\n  b: 1\n  c:\n    - x\n    - y\n"))
    assert document.line(("a",)) == 1
    assert document.line(("a", "b")) == 2
    assert document.line(("a", "c", 1)) == 5
    assert document.line(("a", "c", 1, "nothing", "here")) == 5
    assert document.line(("nothing",)) is None


def test_byte_order_mark_and_carriage_returns(tmp_path: Path) -> None:
    document = read(written(tmp_path, b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: two\r\n"))
    assert document.data == {"a": 1, "b": {"c": "two"}}
    assert document.line(("b", "c")) == 3


def test_aliases_and_merge_keys(tmp_path: Path) -> None:
    text = "base: &base {x: 1, y: 2}\nmore: &more {z: 3, x: 9}\none:\n  <<: *base\n  y: 5\n"
    text += "two: {<<: [*base, *more]}\nthree: *base\n"
    document = read(written(tmp_path, text))
    assert document.data["one"] == {"x": 1, "y": 5}
    assert document.data["two"] == {"x": 1, "y": 2, "z": 3}
    assert document.data["three"] == {"x": 1, "y": 2}
    assert document.line(("one", "x")) == 1
    assert document.line(("one", "y")) == 5


def test_a_quoted_merge_key_is_a_key(tmp_path: Path) -> None:
    assert read(written(tmp_path, "'<<': 1\n")).data == {"<<": 1}


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
)

BAD = {
    "empty": ("", None, "empty"),
    "only a comment": ("# nothing\n", None, "empty"),
    "only a null": ("~\n", None, "empty"),
    "a list": ("- 1\n", 1, "mapping"),
    "one value": ("hello\n", 1, "mapping"),
    "duplicate key": ("a: 1\nb: 2\na: 3\n", 3, "lines 1 and 3"),
    "duplicate key in flow": ("a: {b: 1, b: 2}\n", 1, "twice"),
    "cyclic alias": ("a: &x\n  b: *x\n", 2, "contains itself"),
    "undefined alias": ("a: *x\n", 1, "no anchor"),
    "billion laughs": (LAUGHS, None, f"{MAX_NODES:,} values"),
    "too many values": ("a: [" + "1," * MAX_NODES + "]\n", 1, f"{MAX_NODES:,} values"),
    "deep brackets": ("a: " + "[" * 100_000, 1, "nested more than 50"),
    "deep braces": ("{a: " * 200, 1, "nested more than 50"),
    "deep through aliases": (
        "a0: &a0 [1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(60)),
        1,
        "nested more than 50",
    ),
    "integer key": ("1: a\n", 1, "key must be text"),
    "truth key": ("true: a\n", 1, "key must be text"),
    "list key": ("? [a]\n: 1\n", 1, "key must be plain text"),
    "python tag": ("a: !!python/object/apply:os.system [ls]\n", 1, "tags"),
    "own tag": ("a: !mine 1\n", 1, "tags"),
    "tag on a mapping": ("a: !!set {b}\n", 1, "tags"),
    "several documents": ("a: 1\n---\nb: 2\n", 2, "several documents"),
    "not a number": ("a: .nan\n", 1, "finite"),
    "infinite": ("a:\n  b: -.inf\n", 2, "finite"),
    "overflowing": ("a: 1e999\n", 1, "finite"),
    "endless integer": ("a: " + "9" * 5000 + "\n", 1, "finite"),
    "tab indent": ("a:\n\tb: 1\n", 2, "tabs"),
    "unclosed list": ("a: [1, 2\n", None, "not valid YAML"),
    "unclosed quote": ("a: 'x\n", None, "not valid YAML"),
    "two colons": ("a: b: c\n", 1, "not valid YAML"),
    "bad indent": ("a: 1\n  b: 2\n", 2, "not valid YAML"),
    "at sign": ("a: @x\n", 1, "not valid YAML"),
    "control character": ("a: \x07\n", None, "not valid YAML"),
    "merge of a number": ("a: {<<: 1}\n", 1, "merge key"),
    "binary": (b"a: \x00\x01\n", None, "binary"),
    "not UTF-8": (b"a: 1\nb: \xff\n", 2, "UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16"), None, "binary"),
    "enormous": (b"a: " + b"x" * (5 * 2**20), None, "too large"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_give_one_message(case: str, tmp_path: Path) -> None:
    text, line, part = BAD[case]
    path = written(tmp_path, text)
    start = time.perf_counter()
    with pytest.raises(SpecError) as caught:
        read(path)
    assert time.perf_counter() - start < 2
    error = caught.value
    assert error.file == str(path)
    assert part in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 400 + len(str(path))
    if line is not None:
        assert error.line == line


BAD_JSON = {
    "duplicate key": ('{"a": 1,\n "b": {"c": 1,\n "c": 2}}', 3, "lines 2 and 3"),
    "syntax": ('{"a": 1,\n "b": }', 2, "not valid JSON"),
    "empty": ("", None, "empty"),
    "list": ("[1]", 1, "mapping"),
    "deep": ("[" * 100_000, None, "nested"),
    "rather deep": ('{"a": ' + "[" * 80 + "]" * 80 + "}", None, "nested"),
    "overflow": ('{"a": 1e999}', None, "finite"),
    "endless integer": ('{"a": ' + "9" * 5000 + "}", None, "finite"),
    "half a surrogate": ('{"a": "\\ud800"}', None, "surrogate"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json_gives_one_message(case: str, tmp_path: Path) -> None:
    text, line, part = BAD_JSON[case]
    with pytest.raises(SpecError, match=part) as caught:
        read(written(tmp_path, text, "config.json"))
    assert caught.value.line == line


def test_json_has_lines_and_keeps_infinity_as_text(tmp_path: Path) -> None:
    document = read(written(tmp_path, '{\n\t"a": {"b": [1,\n\t2]},\n\t"c": Infinity\n}', "config.json"))
    assert document.data == {"a": {"b": [1, 2]}, "c": "Infinity"}
    assert document.line(("a", "b", 1)) == 3


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "a: 1\n", "frontier.yaml")
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    cases = [
        (tmp_path / "fronteir.yaml", "not found; nearest in its folder: frontier.yaml"),
        (tmp_path / "no folder" / "a.yaml", "not found"),
        (tmp_path / "frontier.yaml" / "a.yaml", "not found"),
        (tmp_path, "directory"),
        (loop, "link"),
        (pipe, "not a regular file"),
        (tmp_path / ("x" * 300), "too long"),
        (Path("a\0b"), "cannot be read"),
    ]
    for path, part in cases:
        with pytest.raises(SpecError, match=part) as caught:
            read(path)
        assert caught.value.file == str(path)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SpecError, match="no permission"):
        read(tmp_path / "frontier.yaml")


def test_the_slow_parser_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &x {b: [1, 2.5e3, 'c']}\nd: *x\n"
    fast = read(written(tmp_path, text))
    monkeypatch.setattr(yamlfile, "_Parser", yamlfile.yaml.SafeLoader)
    assert read(tmp_path / "spec.yaml") == fast


def test_merging_is_bounded_in_time(tmp_path: Path) -> None:
    base = "base: &b {" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}\n"
    text = base + "".join(f"m{i}: {{<<: *b}}\n" for i in range(1000))
    start = time.perf_counter()
    with pytest.raises(SpecError, match="values"):
        read(written(tmp_path, text))
    assert time.perf_counter() - start < 5
