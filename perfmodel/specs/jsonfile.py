"""JSON text into plain data, with the care of :mod:`perfmodel.specs.yamlfile`: no doubled key, no endless nesting."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from perfmodel.errors import SpecError

__all__ = ["MAX_DEPTH", "parse_json"]

MAX_DEPTH = 50


def parse_json(path: Path, content: bytes) -> Any:
    """Return the data of a JSON file.

    ``NaN`` and ``Infinity``, which published model configurations contain, become text: harmless where nobody
    reads them, refused where a number is wanted.
    """
    text = content.decode("utf-8")
    try:
        data = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(path, text, pairs),
            parse_constant=str,
            parse_int=lambda digits: int(_finite(digits)),
            parse_float=lambda digits: float(_finite(digits)),
        )
        _check_depth(data, MAX_DEPTH)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except json.JSONDecodeError as error:
        if not text.strip():
            return None
        rows = text.split("\n")
        found = rows[error.lineno - 1].strip() if error.lineno <= len(rows) else ""
        message = f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise SpecError(message, file=str(path), line=error.lineno, found=found or None) from error
    except UnicodeEncodeError as error:
        raise SpecError("half a surrogate pair is not text", file=str(path)) from error
    except ValueError as error:
        raise SpecError(str(error), file=str(path)) from error
    except RecursionError as error:
        raise SpecError("nested too deeply", file=str(path)) from error


def _check_depth(value: Any, left: int) -> None:
    if left < 0:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def _finite(digits: str) -> str:
    if len(digits) > 300 or not math.isfinite(float(digits)):
        raise ValueError(f"a finite number is needed; found {digits[:40]}")
    return digits


def _unique(path: Path, text: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) == len(pairs):
        return data
    keys = [key for key, _ in pairs]
    twice = next(key for key in keys if keys.count(key) > 1)
    places = [text.count("\n", 0, m.start()) + 1 for m in re.finditer(re.escape(json.dumps(twice)) + r"\s*:", text)]
    spelled = " and ".join(str(p) for p in places[:2])
    message = "the key stands twice" + (f", in lines {spelled}" if len(places) == 2 else "")
    line = places[1] if len(places) > 1 else None
    raise SpecError(message, file=str(path), line=line, field=twice)
