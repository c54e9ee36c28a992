"""The house rules, read off the syntax trees: who imports whom, who reads what, what is written where."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from perfmodel import techniques
from perfmodel.techniques import TECHNIQUES
from perfmodel.techniques.base import Technique
from perfmodel.techniques.record import _MERGE, Layout

ROOT = Path(techniques.__file__).parents[1]
FILES = sorted(ROOT.rglob("*.py"))
COST_CODE = ("operators", "machine", "network", "techniques", "phases", "solver")

LEVELS: tuple[tuple[str, ...], ...] = (
    ("units", "elementwise", "errors"),
    ("specs",),
    ("operators", "machine", "network"),
    ("techniques",),
    ("phases",),
    ("serving",),
    ("solver",),
    ("insight",),
    ("api",),
    ("studies", "services", "imaging", "contexts"),
    ("calibration", "report", "measure"),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
SIBLINGS = {("machine", "operators")}
"""Rooms of one level of which the first may import the second: an engine times the work of an operator."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("perfmodel.")}


def docstrings(module: ast.Module) -> set[ast.Constant]:
    """String expressions that stand alone: documentation."""
    return {
        node.value
        for node in ast.walk(module)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = room(path)
    if own == "__init__":
        return  # public names, imported on first use
    assert own in LEVEL, f"{own} has no place in the house"
    for name in imports(path):
        other = name.split(".")[1]
        if other == own or other not in LEVEL:
            continue
        allowed = LEVEL[other] < LEVEL[own] or (own, other) in SIBLINGS
        assert allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short_and_silent(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400, "split it"
    if room(path) in ("cli", "report", "__main__"):
        return
    calls = [n.func for n in ast.walk(tree(path)) if isinstance(n, ast.Call)]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "print"], "only the command line prints"


def test_symbolic_library_is_never_imported_by_cost_code() -> None:
    for path in FILES:
        if room(path) in ("insight", "report", "cli"):
            continue
        names = [a.name for n in ast.walk(tree(path)) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom)]
        assert not [n for n in names if n.startswith("sympy")], path


# --- techniques ---------------------------------------------------------------------------------------------------


def technique_files() -> dict[Path, Technique]:
    folder = ROOT / "techniques"
    by_module: dict[Path, Technique] = {}
    for path in sorted(folder.glob("*.py")):
        assigned = {
            t.id for n in tree(path).body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
        }
        if "TECHNIQUE" in assigned:
            module = __import__(f"perfmodel.techniques.{path.stem}", fromlist=["TECHNIQUE"])
            by_module[path] = module.TECHNIQUE
    return by_module


def own_columns(path: Path, technique: Technique) -> set[str]:
    """Columns a technique declares: its neutral values, and what its axes name."""
    columns = set(technique.neutral)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Axis.of":
            first = node.args[0]
            assert isinstance(first, ast.Constant)
            columns.add(str(first.value))
    return columns


def test_every_technique_is_listed_once() -> None:
    listed = [id(t) for t in TECHNIQUES]
    assert len(listed) == len(set(listed))
    assert {id(t) for t in technique_files().values()} == set(listed)
    names = [t.name for t in TECHNIQUES]
    assert len(names) == len(set(names))
    assert {p.stem for p in technique_files()} == set(names)


def test_columns_belong_to_one_technique() -> None:
    columns = [c for p, t in technique_files().items() for c in own_columns(p, t)]
    assert len(columns) == len(set(columns))


@pytest.mark.parametrize("path", technique_files(), ids=lambda p: p.stem)
def test_a_technique_reads_only_its_own_columns(path: Path) -> None:
    own = own_columns(path, technique_files()[path])
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "x":
            assert node.attr in own, f"{path.stem} reads x.{node.attr}"


@pytest.mark.parametrize("path", technique_files(), ids=lambda p: p.stem)
def test_a_technique_knows_no_other(path: Path) -> None:
    others = {p.stem for p in technique_files()} - {path.stem}
    assert not {n.split(".")[2] for n in imports(path) if n.startswith("perfmodel.techniques.")} & others


@pytest.mark.parametrize("path", technique_files(), ids=lambda p: p.stem)
def test_a_technique_says_where_it_was_published(path: Path) -> None:
    technique = technique_files()[path]
    assert technique.summary
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|OSDI|doi:", technique.source)


def test_phases_mention_no_technique() -> None:
    names = {t.name for t in TECHNIQUES}
    columns = {c for t in TECHNIQUES for c in t.neutral} - {
        "batch",
        "micro_batch",
        "devices",
        "attention_engine",
        "sub_batches",
    }
    for path in sorted((ROOT / "phases").glob("*.py")):
        module = tree(path)
        assert not {n.split(".")[2] for n in imports(path) if n.startswith("perfmodel.techniques.")} & names, path
        text = docstrings(module)
        said = {n.value for n in ast.walk(module) if isinstance(n, ast.Constant) and n not in text}
        assert not {s for s in said if isinstance(s, str)} & names, path
        read = {n.attr for n in ast.walk(module) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "x"}
        assert not read & columns, path


def test_every_record_field_has_a_rule_and_a_reader() -> None:
    readers: set[str] = set()
    for path in FILES:
        if room(path) not in ("techniques", "phases", "solver") or path.name == "record.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "layout":
                readers.add(node.attr)
    for field in fields(Layout):
        assert field.metadata["merge"] in {*_MERGE, "owner"}, field.name
        assert field.name in readers, f"nobody reads {field.name}"


# --- names --------------------------------------------------------------------------------------------------------

PRODUCTS = re.compile(
    r"\b(nvidia|amd|intel|google|tpu|cerebras|groq|sambanova|xilinx|hopper|blackwell|ampere|nvlink|slingshot|xgmi|"
    r"infiniband|frontier|lumi|dgx|[abhv]\d{3}0?s?|mi\d{3}x?|rtx|l40s?|epyc|xeon|alveo|neupims|gddr6)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in COST_CODE], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_product_is_named_in_cost_code(path: Path) -> None:
    module = tree(path)
    text = docstrings(module)
    cited = {k.value for n in ast.walk(module) if isinstance(n, ast.Call) for k in n.keywords if k.arg == "source"}
    words = [n.id for n in ast.walk(module) if isinstance(n, ast.Name)]
    words += [n.attr for n in ast.walk(module) if isinstance(n, ast.Attribute)]
    words += [
        n.value
        for n in ast.walk(module)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and n not in text and n not in cited
    ]
    found = [w for w in words if PRODUCTS.search(w.replace("_", " "))]
    assert not found
