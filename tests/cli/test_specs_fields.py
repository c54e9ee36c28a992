"""What ``specs fields`` lists is what files may say, and the files of docs/machines.md are files that plan."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perfmodel.cli.main import app
from perfmodel.report.fields import FILES, field_lines, schema_of
from perfmodel.specs.facts import Fact, Spec
from perfmodel.specs.load import bare

GUIDE = Path(__file__).parents[2] / "docs" / "machines.md"


@pytest.mark.parametrize("kind", FILES)
def test_every_field_is_listed(kind: str) -> None:
    lines = [line.strip() for line in field_lines(kind)]
    for name, field in FILES[kind].model_fields.items():
        assert any(line.startswith(f"{field.alias or name}:") for line in lines), name
        part = bare(field.annotation)
        if isinstance(part, type) and issubclass(part, Spec) and part is not Fact:
            for inner in part.model_fields:
                assert any(line.startswith(f"{inner}:") for line in lines), f"{name}.{inner}"


def test_facts_are_written_with_the_unit_they_are_read_in() -> None:
    lines = field_lines("device")
    assert any("{value: NUMBER B/s, kind, source}" in line for line in lines)
    assert any("Row of one bank" in line for line in lines)
    units = schema_of("device")["properties"]["units"]
    assert units["required"] == ["value", "kind", "source"]
    assert "banks" in units["description"]


def test_fields_from_the_command_line() -> None:
    done = CliRunner().invoke(app, ["specs", "fields", "cluster", "--json"])
    assert done.exit_code == 0
    schema = json.loads(done.stdout)
    assert {"node", "levels", "collectives"} <= schema["properties"].keys()
    assert schema["additionalProperties"] is False


def test_files_of_the_guide_plan(tmp_path: Path) -> None:
    """The stranger's accelerator of the guide, with its engine on a link, is placed without a line of code."""
    import perfmodel

    for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S):
        name = re.match(r"# (\S+)\n", block)
        assert name is not None
        (tmp_path / name[1]).write_text(block, encoding="utf-8")
    done = CliRunner().invoke(app, ["specs", "check", str(tmp_path)])
    assert done.exit_code == 0, done.output
    answer = perfmodel.plan(model="llama-3-8b", hw=str(tmp_path / "orca-box.yaml"), workload="chat").answers[0]
    best = answer.best
    assert best is not None
    assert best.columns["attention_engine"] == "reef"
    assert best.seconds > best.bound_seconds
