"""Read one YAML or JSON file into plain data that remembers its lines; all that is wrong with a *file* is said here.

Scalars follow the YAML 1.2 core schema, so ``1.6e12`` is a number, ``NO`` and ``12:30`` are text and no dates exist.
Values are built straight from the parser's events: nesting, aliases and size are bounded before anything large exists.
"""

from __future__ import annotations

import errno
import math
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from perfmodel.errors import SpecError, nearest
from perfmodel.specs.jsonfile import MAX_DEPTH, parse_json

__all__ = ["MAX_BYTES", "MAX_NODES", "Document", "Where", "plain_value", "read"]

MAX_BYTES = 4 * 2**20
MAX_NODES = 10_000
"""Values in a file after aliases are expanded; the longest sensible spec has a tenth of it."""

Where = tuple[str | int, ...]
"""Path of a value: keys and list positions from the top."""

_Parser: Any = getattr(yaml, "CSafeLoader", None) or yaml.SafeLoader
_DEEPER = {
    yaml.MappingStartEvent: 1,
    yaml.SequenceStartEvent: 1,
    yaml.MappingEndEvent: -1,
    yaml.SequenceEndEvent: -1,
}
_TAG = "tag:yaml.org,2002:"
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = {"0o": (re.compile(r"0o[0-7]+"), 8), "0x": (re.compile(r"0x[0-9a-fA-F]+"), 16)}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """One file: its data and the line on which every value begins."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[Where, int] = field(default_factory=dict, repr=False)

    def line(self, where: Iterable[str | int]) -> int | None:
        """Return the 1-based line of the value at ``where``, or that of the nearest value around it."""
        steps = tuple(where)
        while steps:
            if steps in self.lines:
                return self.lines[steps]
            steps = steps[:-1]
        return None

    def error(self, message: str, where: Iterable[str | int] = (), **details: Any) -> SpecError:
        """Build the error that points at ``where`` in this file."""
        steps = tuple(where)
        name = ".".join(str(s) for s in steps) or None
        return SpecError(message, file=str(self.path), line=self.line(steps), field=name, **details)


def read(path: Path) -> Document:
    """Read a YAML file, or a JSON file if its name ends in ``.json``.

    Raises
    ------
    SpecError
        With file and, where there is one, line: whatever keeps the file from being one mapping of plain values.
    """
    path = Path(path)
    content = _content(path)
    if path.suffix.lower() == ".json":
        data = parse_json(path, content)
        lines = _json_lines(path, content)
    else:
        builder = _Builder(path, content)
        data, lines = builder.document(), builder.lines
    if data is None or data == {}:
        raise SpecError("the file is empty", file=str(path))
    if not isinstance(data, dict):
        raise SpecError(
            "a mapping (`key: value` lines) is needed at the top", file=str(path), line=1, found=_kind(data)
        )
    return Document(path, data, lines)


def _json_lines(path: Path, content: bytes) -> dict[Where, int]:
    """Lines of a JSON file, best effort: nearly all JSON is YAML."""
    builder = _Builder(path, content)
    try:
        builder.document()
    except SpecError:
        return {}
    return builder.lines


def _kind(data: object) -> str:
    return "a list" if isinstance(data, list) else "one plain value"


def _content(path: Path) -> bytes:
    """Bytes of the file without its byte order mark, known to be text of a sane size."""
    name = str(path)
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise SpecError("this is a directory; name a YAML file", file=name)
        if not stat.S_ISREG(info.st_mode):
            raise SpecError("this is not a regular file", file=name)
        if info.st_size > MAX_BYTES:
            size = f"{info.st_size / 2**20:.1f} MiB"
            raise SpecError("the file is too large", file=name, found=size, allowed=f"up to {MAX_BYTES // 2**20} MiB")
        content = path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\x00" in content:
        raise SpecError("this is a binary file (it contains NUL bytes), not YAML text", file=name)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError("this is not UTF-8 text", file=name, line=line) from error
    return content


def _unreadable(path: Path, error: Exception) -> SpecError:
    """Turn a failure of the operating system into one sentence."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        return SpecError("file not found" + _neighbours(path), file=str(path))
    reasons = {
        errno.ELOOP: "the symbolic link leads back to itself",
        errno.EACCES: "no permission to read the file",
        errno.ENAMETOOLONG: "the file name is too long",
    }
    reason = reasons.get(number or 0) or getattr(error, "strerror", None) or str(error)
    return SpecError(f"the file cannot be read: {reason}", file=str(path))


def _neighbours(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir() if p.is_file()]
    except OSError:
        return f" (the folder {path.parent} cannot be listed)"
    near = nearest(path.name, names)
    return f"; nearest in its folder: {', '.join(near)}" if near else ""


class _Builder:
    """Builds data from parser events; a replayed alias costs as much as what it stands for."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        self.content = content
        self.lines: dict[Where, int] = {}
        self.count = 0
        self.events: list[Any] = []
        self.at = 0
        self.anchors: dict[str, int | None] = {}

    def document(self) -> Any:
        """Return the value of the only document; None if there is none."""
        try:
            self._parse()
        except yaml.YAMLError as error:
            raise self._syntax(error) from error
        starts = [e for e in self.events if isinstance(e, yaml.DocumentStartEvent)]
        if len(starts) > 1:
            self._fail(starts[1], "several documents in one file; keep one, without `---` lines between")
        self.at = 2
        return self._value(()) if starts else None

    def _parse(self) -> None:
        """List the events; nesting and number are bounded while they come, before they cost anything."""
        parser, depth = _Parser(self.content), 0
        try:
            while not self.events or not isinstance(self.events[-1], yaml.StreamEndEvent):
                event = parser.get_event()
                self.events.append(event)
                depth += _DEEPER.get(type(event), 0)
                if depth > MAX_DEPTH:
                    self._fail(event, f"nested more than {MAX_DEPTH} deep")
                if len(self.events) > 2 * MAX_NODES + 10:  # a value has at most two events
                    self._fail(event, f"more than {MAX_NODES:,} values")
        finally:
            parser.dispose()

    def _fail(self, event: Any, message: str, where: Where = (), **details: Any) -> NoReturn:
        line = event.start_mark.line + 1
        name = ".".join(str(s) for s in where) or None
        raise SpecError(message, file=str(self.path), line=line, field=name, **details)

    def _next(self) -> Any:
        self.at += 1
        return self.events[self.at - 1]

    def _value(self, where: Where) -> Any:
        start, event = self.at, self._next()
        self.count += 1
        if self.count > MAX_NODES:
            self._fail(event, f"more than {MAX_NODES:,} values once aliases are expanded")
        if len(where) > MAX_DEPTH:
            self._fail(event, f"nested more than {MAX_DEPTH} deep")
        self.lines[where] = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, where)
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value: Any = self._scalar(event, where)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(event, where)
        else:
            value = self._sequence(event, where)
        if event.anchor:
            self.anchors[event.anchor] = start
        return value

    def _alias(self, event: Any, where: Where) -> Any:
        """Build again, from its events, what the anchor marks."""
        if event.anchor not in self.anchors:
            self._fail(event, f"alias *{event.anchor} has no anchor &{event.anchor} before it", where)
        start = self.anchors[event.anchor]
        if start is None:
            self._fail(event, f"alias *{event.anchor} contains itself", where)
        resume, self.at = self.at, start
        value = self._value(where)
        self.at = resume
        return value

    def _sequence(self, start: Any, where: Where) -> list[Any]:
        self._plain_tag(start, "seq", where)
        items: list[Any] = []
        while not isinstance(self.events[self.at], yaml.SequenceEndEvent):
            items.append(self._value((*where, len(items))))
        self.at += 1
        return items

    def _mapping(self, start: Any, where: Where) -> dict[str, Any]:
        self._plain_tag(start, "map", where)
        data: dict[str, Any] = {}
        merged: list[tuple[Any, Any]] = []
        while not isinstance(self.events[self.at], yaml.MappingEndEvent):
            event = self._next()
            key, line = self._key(event, where), event.start_mark.line + 1
            if key in data:
                first = self.lines[(*where, key)]
                self._fail(event, f"the key stands twice, in lines {first} and {line}", (*where, key))
            value = self._value((*where, key))
            if key == "<<" and event.implicit[0]:
                merged.append((event, value))
            else:
                data[key] = value
                self.lines[(*where, key)] = line
        self.at += 1
        for event, value in merged:
            self._merge(event, data, value, where)
        return data

    def _merge(self, event: Any, data: dict[str, Any], value: Any, where: Where) -> None:
        """Add what a merge key (``<<: *other``) brings and the mapping does not say itself."""
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                self._fail(event, "a merge key (<<) takes a mapping or a list of mappings", where)
            for key, item in part.items():
                data.setdefault(key, item)
        self._adopt_lines((*where, "<<"), where)

    def _adopt_lines(self, source: Where, target: Where) -> None:
        depth = len(source)
        for steps in [s for s in self.lines if len(s) > depth and s[:depth] == source]:
            rest = steps[depth + 1 :] if isinstance(steps[depth], int) else steps[depth:]
            self.lines.setdefault((*target, *rest), self.lines[steps])

    def _key(self, event: Any, where: Where) -> str:
        if isinstance(event, yaml.AliasEvent) or not isinstance(event, yaml.ScalarEvent):
            self._fail(event, "a key must be plain text", where)
        if event.anchor:
            self.anchors[event.anchor] = self.at - 1
        key = self._scalar(event, where)
        if not isinstance(key, str):
            self._fail(event, "a key must be text; put it in quotes", where, found=event.value)
        return key

    def _plain_tag(self, event: Any, kind: str, where: Where) -> None:
        if event.tag not in (None, "!", _TAG + kind):
            self._fail(event, "tags are not understood; write plain values", where, found=_short_tag(event.tag))

    def _scalar(self, event: Any, where: Where) -> Any:
        tag = event.tag
        if tag is not None and tag != "!":
            kind = tag.removeprefix(_TAG)
            if kind not in ("str", "int", "float", "bool", "null"):
                self._fail(event, "tags are not understood; write plain values", where, found=_short_tag(tag))
            return event.value if kind == "str" else self._plain(event, where)
        return self._plain(event, where) if event.implicit[0] else event.value

    def _plain(self, event: Any, where: Where) -> Any:
        try:
            return plain_value(event.value)
        except ValueError as error:
            self._fail(event, str(error), where, found=event.value)

    def _syntax(self, error: yaml.YAMLError) -> SpecError:
        """One short sentence out of the parser's report."""
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not understood"
        rows = self.content.split(b"\n")
        row = rows[line - 1].decode() if line and line <= len(rows) else ""
        if row[: len(row) - len(row.lstrip())].count("\t"):
            problem = "indent with spaces, not tabs"
        if "maximum nesting" in problem:  # newer parsers stop by themselves, deeper down
            return SpecError(f"nested more than {MAX_DEPTH} deep", file=str(self.path), line=line)
        context = getattr(error, "context", None)
        message = f"not valid YAML: {problem}" + (f" ({context})" if context else "")
        return SpecError(message, file=str(self.path), line=line, found=row.strip() or None)


def plain_value(text: str) -> Any:
    """Return what an unquoted scalar means in the YAML 1.2 core schema.

    Raises
    ------
    ValueError
        If it is a number, but not a finite one of reasonable length.

    Examples
    --------
    >>> [plain_value(t) for t in ("1.6e12", "NO", "0o17", "~", "12:30")]
    [1600000000000.0, 'NO', 15, None, '12:30']
    """
    if not text or text[0] not in "0123456789+-.":
        if text in _NULL:
            return None
        return _BOOL.get(text, text)
    if _INT.fullmatch(text):
        return int(_finite(text))
    if text[:2] in _BASED:
        pattern, base = _BASED[text[:2]]
        return int(_finite(text), base) if pattern.fullmatch(text) else text
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("a finite number is needed")
    return float(_finite(text)) if _FLOAT.fullmatch(text) else text


def _finite(text: str) -> str:
    if len(text) > 300 or (text[1:2] not in "ox" and not math.isfinite(float(text))):
        raise ValueError("a finite number is needed")
    return text


def _short_tag(tag: str) -> str:
    return "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
