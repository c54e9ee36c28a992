"""One question on several machines, from the command line."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from perfmodel.cli.main import app, run


def compared(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["compare", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_machines_stand_side_by_side_with_why_and_bound() -> None:
    text = compared("-m", "mixtral-8x7b", "--hw", "h100-4x", "--hw", "duplex-4x", "-w", "batch", "--width", "110")
    assert "per device × " in text
    assert "logic-pim" in text
    assert text.count("× the bound") == 2
    assert text.count("next best") == 2


def test_rows_as_json_and_machines_without_a_plan() -> None:
    rows = json.loads(compared("-m", "llama-2-70b", "--hw", "rtx-4090", "--hw", "dgx-h100", "-w", "chat", "--json"))
    assert [row["possible"] for row in rows] == [False, True]
    assert rows[0]["output_tokens_per_second"] is None
    assert rows[1]["over_bound"] >= 1.0


def test_a_machine_is_needed(capsys: object) -> None:
    assert run(["compare", "-m", "llama-2-7b"]) == 2
