"""Questions about engines and memories as a user asks them: the plan, why, the bound, and what comes next."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from perfmodel.cli.main import app, run


def asked(*arguments: str) -> str:
    found = CliRunner().invoke(app, [*arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_70b_on_one_card_with_host_memory() -> None:
    text = asked("plan", "-m", "llama-2-70b", "--hw", "desktop-4090", "-w", "batch", "--max-quality-loss", "5%")
    for word in ("verdict", "time/token", "bound", "host", "linear"):
        assert word in text


def test_70b_on_one_card_under_chat_limits_says_what_binds_and_what_would_do() -> None:
    text = asked("plan", "-m", "llama-2-70b", "--hw", "desktop-4090", "-w", "chat")
    assert "No plan is possible" in text
    assert "memory" in text
    assert "no latency limits" in text


def test_70b_on_eight_edge_devices() -> None:
    answer = json.loads(
        asked("plan", "-m", "llama-2-70b", "--hw", "edge-8x", "-w", "batch", "--objective", "time", "--json")
    )["answers"][0]
    best = answer["best"]
    assert best["columns"]["tp"] == 8
    assert 0.0 < best["columns"]["weights_at_storage"] < 1.0
    assert answer["certificate"]["placement"]["pass_seconds"] == pytest.approx(
        answer["certificate"]["placement"]["dual_seconds"], rel=1e-4
    )


def test_long_context_beside_drives() -> None:
    text = asked(
        "plan", "-m", "llama-2-13b", "--hw", "a6000-csd", "-w", "batch", "--set-workload", "prompt=32768",
        "--set-workload", "output=512",
    )  # fmt: skip
    assert "streamed from the host" in text or "attention on" in text


@pytest.mark.parametrize(
    "question",
    [
        ("llama-2-7b", ("alveo-u280", "v100-pcie", "a100-80gb-pcie"), ("packed_weights=awq-int4-g128",), ()),
        ("mixtral-8x7b", ("duplex-4x", "h100-4x"), (), ()),
        ("llama-2-7b", ("sn40l-node", "dgx-h100", "dgx-a100"), (), ("models=150", "prompt=256", "output=20")),
    ],
    ids=["fpga", "duplex", "experts"],
)
def test_machines_against_each_other(question: tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]) -> None:
    model, machines, use, fields = question
    flags = [part for hw in machines for part in ("--hw", hw)]
    flags += [part for name in use for part in ("--use", name)]
    flags += [part for field in fields for part in ("--set-workload", field)]
    rows = json.loads(
        asked("compare", "-m", model, "-w", "batch", "--objective", "time", "--framework", "bare", "--json", *flags)
    )
    assert [row["machine"] for row in rows] == list(machines)
    assert all(row["possible"] and row["over_bound"] >= 1.0 for row in rows)
    if machines[0] != "alveo-u280":
        assert rows[0]["output_tokens_per_second"] > rows[1]["output_tokens_per_second"]


def test_what_is_said_to_make_a_plan_possible_does() -> None:
    """Each constraint that the nearest plan breaks has its remedy, and all of them together are enough."""
    question = ["plan", "--model", "llama-2-7b", "--hw", "alveo-u280", "-w", "chat"]
    text = " ".join(asked(*question).split())
    found = re.search(r"a looser limit: --set-workload (\S+='\d+ ms') and more memory .*?--set (\S+)", text)
    assert found is not None, text
    limit, memory = found[1].replace("'", ""), found[2]
    after = asked(*question, "--set-workload", limit, "--set", memory)
    assert "after" in after
    assert "No plan is possible" not in after.partition("With the change")[2]


def test_energy_of_a_device_without_power_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """As an objective it is refused; beside another it is said to be unknown, not zero."""
    question = ["plan", "-m", "llama-2-7b", "--hw", "flat-cloud", "-w", "batch"]
    assert "energy unknown" in asked(*question)
    assert run([*question, "--objective", "energy"]) == 2
    assert "flat-cloud states no power" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "compare"])
def test_shares_that_add_up_to_more_than_a_whole_say_so_and_which_pin_to_drop(command: str) -> None:
    pins = ("offload=streamed", "weights_at_host=0.7", "weights_at_storage=0.7")
    flags = [part for pin in pins for part in ("--pin", pin)]
    text = " ".join(asked(command, "-m", "llama-2-70b", "--hw", "desktop-4090", "-w", "batch", *flags).split())
    assert "every plan breaks `weights in one place`" in text
    assert "without --pin weights_at_host=0.7: " in text
