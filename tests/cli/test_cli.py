"""The command as a user meets it: processes, streams, exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANSI = re.compile(r"\x1b\[")
HEAVY = ("numpy", "scipy", "sympy", "pydantic", "rich", "yaml", "quantiphy")


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "perfmodel", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **environment},
        timeout=120,
    )


def here(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run the command in this process: as good for messages, and quick."""
    from perfmodel.cli.main import run as command

    code = command(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_imports_nothing_heavy() -> None:
    check = (
        "import sys; from perfmodel.cli.main import run; code = run(['--help']); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stderr.strip() == "[] 0"
    for command in ("plan", "estimate", "roofline", "bounds", "specs", "claims"):
        assert command in done.stdout


def test_plan_answers_training_and_serving_in_a_pipe() -> None:
    done = run("plan", "--model", "llama70b", "--hw", "frontier.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert not ANSI.search(done.stdout)
    assert not re.search("[\u2500-\u259f]", done.stdout), "no boxes or blocks in a pipe"
    assert max(map(len, done.stdout.splitlines())) <= 100
    for word in (
        "68.98 B parameters",
        "PRETRAIN",
        "CHAT",
        "MI250X GCD",
        "MFU",
        "TPOT",
        "how many?",
        "sure?",
        "stands on",
    ):
        assert word in done.stdout
    blocks = done.stdout.split("\n\n")
    assert all(len(block.splitlines()) <= 46 for block in blocks)


def test_a_fleet_is_planned_and_refused_elsewhere() -> None:
    asked = ("--model", "gpt-3.6b", "--set-workload", "sequence=2048", "--set-workload", "global_batch=131072")
    pins = ("--pin", "tp=1", "--pin", "pp=1", "--pin", "micro_batch=1", "--pin", "recompute=0", "--pin", "sharded=1")
    text = run("fleet", "--hw", "holmes-hybrid", *asked, *pins)
    assert (text.returncode, text.stderr) == (0, "")
    assert "one pipeline through the groups" in text.stdout
    assert "proven best" in text.stdout
    found = json.loads(run("fleet", "--hw", "holmes-hybrid", *asked, *pins, "--json").stdout)
    assert found["schema"] == "perfmodel.fleet/1"
    assert sum(n for g in found["best"]["groups"] for n in g["layers"]) == 30
    elsewhere = run("plan", "--model", "gpt-3.6b", "--hw", "hardware_specs/fleets/holmes-hybrid.yaml")
    assert elsewhere.returncode == 2
    assert "perfmodel fleet" in elsewhere.stderr


def test_stdout_that_is_not_unicode_gets_ascii() -> None:
    done = run("specs", "show", "deepseek-v3", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert " x LatentAttention" in done.stdout


def test_a_closed_pipe_is_quiet() -> None:
    command = f"{shlex.quote(sys.executable)} -m perfmodel plan --model llama-2-7b --hw h200 -w chat | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "Llama 2 7B" in done.stdout
    assert done.stderr == ""


def test_version_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert here("--version", capsys=capsys)[1].startswith("perfmodel ")
    code, out, err = here(capsys=capsys)
    assert code == 2
    assert "Commands:" in out + err


MISTAKES = [
    (["plan"], "--model is missing"),
    (["plan", "--model", "llama70b"], "frontier"),
    (["plan", "--model", "lama70b", "--hw", "h200"], "llama70b"),
    (["plan", "--model", "llama70b", "--hw", "frontir"], "frontier"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--workload", "chatt"], "nearest: chat"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--framework", "vlm"], "nearest: vllm"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--objective", "speed"], "allowed: time"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--devices", "0"], "at least one"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--devices", "two"], "--devices"),
    (["plan", "--model", "llama70b", "--hw", "h200-8x", "--devices", "9"], "1 to 8"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--pin", "tp"], "NAME=VALUE"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--pin", "tp=1", "--pin", "tp=2"], "twice"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--pin", "tq=1"], "tp"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--pin", "tp=abc"], "tp"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--use", "magic"], "packed_weights"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--max-quality-loss", "30"], "3%"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--set", "hbm_bandwith=x2"], "hbm_bandwidth"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--set", "hbm_bandwidth=fast"], "TB/s"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--set-workload", "sequnce=1"], "nearest: sequence"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--framework", "vllm", "--pin", "recompute=1"], "--workload"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--width", "10"], "60"),
    (["plan", "--model", "llama70b", "--hw", "h200", "--bogus"], "--bogus"),
    (["estimate", "--model", "llama70b", "--hw", "h200", "--pin", "pp=0"], "1 or more"),
    (["estimate", "--model", "llama70b", "--hw", "h200", "--pin", "tp=2,4"], "one value"),
    (["specs", "show", "nothing-like-it"], "specs list"),
    (["specs", "list", "planets"], "planets"),
    (["specs", "check", "/no/such/file.yaml"], "/no/such/file.yaml"),
    (["claims", "nobody-claimed-this"], "nobody-claimed-this"),
    (["planet"], "planet"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(a[:1] + a[-2:]) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = here(*arguments, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_defect_asks_to_be_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("perfmodel.api.plan", broken)
    monkeypatch.delenv("PERFMODEL_DEBUG", raising=False)
    code, out, err = here("plan", "--model", "llama70b", "--hw", "h200", capsys=capsys)
    assert (code, out) == (70, "")
    assert "please report" in err
    monkeypatch.setenv("PERFMODEL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        here("plan", "--model", "llama70b", "--hw", "h200", capsys=capsys)


def test_an_interruption_is_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("perfmodel.api.plan", interrupted)
    assert here("plan", "--model", "llama70b", "--hw", "h200", capsys=capsys)[0] == 130


def test_an_impossible_plan_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = here("plan", "--model", "llama405b", "--hw", "h200", capsys=capsys)
    assert (code, err) == (0, "")
    assert out.count("No plan is possible on 1 H200 GPU") == 2
    assert "hbm memory" in out
    assert "possible by" in out


def test_json_is_all_there_is_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = here("plan", "--model", "llama70b", "--hw", "h200-8x", "--json", capsys=capsys)
    data = json.loads(out, parse_constant=pytest.fail)
    assert (code, err) == (0, "")
    assert data["schema"] == "perfmodel.plan/1"
    assert data["model"]["parameters"] == 68_976_648_192
    assert data["machine"]["devices"] == 8
    assert data["what_if"] is None
    assert [a["phase"] for a in data["answers"]] == ["training", "serving"]
    for answer in data["answers"]:
        best = answer["best"]
        assert sum(t["seconds"] for t in best["terms"]) == pytest.approx(best["timed_seconds"])
        assert best["interval"]["low"] <= best["seconds"] <= best["interval"]["high"]
        for ledger in best["ledgers"]:
            assert sum(line["bytes"] for line in ledger["lines"]) == pytest.approx(sum(ledger["totals"].values()))


def test_impossible_in_json_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = here("plan", "--model", "llama405b", "--hw", "h200", "-w", "chat", "--json", capsys=capsys)
    answer = json.loads(out, parse_constant=pytest.fail)["answers"][0]
    assert answer["best"] is None
    assert not answer["feasible"]
    assert answer["rejected"][0]["ratio"] > 1


def test_what_if_shows_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--model", "llama70b", "--hw", "h200-8x", "-w", "chat", "--set", "hbm_bandwidth=x2"]
    _, out, _ = here(*arguments, capsys=capsys)
    assert "accelerator.memory.hbm.bandwidth: 4.8 TB/s → 9.6 TB/s" in out
    assert re.search(r"so +\+[0-9.]+ % output tokens/s/GPU", out)
    _, out, _ = here(*arguments, "--json", capsys=capsys)
    found = json.loads(out)
    before, after = found["what_if"]["before"][0]["best"], found["answers"][0]["best"]
    name = "output_tokens_per_second_per_device"
    assert after["metrics"][name] > before["metrics"][name]
    assert {"phase", "term", "before", "after"} == found["what_if"]["changed_terms"][0].keys()


def test_options_of_one_kind_choose_the_workload(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = here("plan", "--model", "llama-2-7b", "--hw", "h200-8x", "--set-workload", "prompt=512", capsys=capsys)
    assert "CHAT" in out
    assert "PRETRAIN" not in out
    assert "serve 512 prompt" in out


def test_report_is_written_whole_or_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    base = ["plan", "--model", "llama-2-7b", "--hw", "h200", "-w", "chat", "--report"]
    path = tmp_path / "plan.md"
    assert here(*base, str(path), capsys=capsys)[0] == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Llama 2 7B")
    assert "perfmodel" in text.splitlines()[5]
    assert [p.name for p in tmp_path.iterdir()] == ["plan.md"]
    for bad, said in ((tmp_path, "folder"), (tmp_path / "no" / "plan.md", "does not exist")):
        code, out, err = here(*base, str(bad), capsys=capsys)
        assert (code, out) == (2, "")
        assert said in err


def test_the_hints_of_an_answer_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = here("plan", "--model", "llama-2-7b", "--hw", "h200-8x", capsys=capsys)
    tail = out[out.index("\ntry ") :].replace("\\\n", " ").removeprefix("\ntry")
    commands = [line.strip() for line in tail.splitlines() if line.strip()]
    assert len(commands) >= 4
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "perfmodel"
        code, _, err = here(*words[1:], capsys=capsys)
        assert (code, err) == (0, ""), command
    assert [p.suffix for p in tmp_path.iterdir()] == [".md"]


def test_an_estimate_repeats_the_plan_and_shows_what_an_illegal_one_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", "llama70b", "--hw", "dgx-h100", "-w", "pretrain", "--devices", "64", "--json"]
    best = json.loads(here("plan", *asked, capsys=capsys)[1])["answers"][0]["best"]
    columns = {n: v if isinstance(v, str) else f"{v:.0f}" for n, v in best["columns"].items() if n != "devices"}
    pins = [word for n, v in columns.items() for word in ("--pin", f"{n}={v}")]
    again = json.loads(here("estimate", *asked, *pins, capsys=capsys)[1])
    assert again["schema"] == "perfmodel.estimate/1"
    assert again["legal"]
    assert again["plan"]["seconds"] == pytest.approx(best["seconds"])
    code, out, _ = here("estimate", "--model", "llama70b", "--hw", "dgx-h100", "--pin", "tp=8", capsys=capsys)
    assert code == 0
    assert "ILLEGAL" in out
    assert "hbm memory" in out
    assert "MFU" in out


def test_the_printed_estimate_of_a_plan_on_a_budget_names_what_it_spends(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = here("plan", "--model", "llama-2-7b", "--hw", "alveo-u280", "-w", "chat", "--max-quality-loss", "5%",
                     "--set-workload", "slo=none", capsys=capsys)  # fmt: skip
    printed = out.replace("\\\n", " ")
    command = next(line for line in printed.splitlines() if "perfmodel estimate" in line)
    words = shlex.split(command[command.index("perfmodel estimate") :])
    assert words[words.index("--use") + 1].startswith("packed_weights=")
    code, again, err = here(*words[1:], capsys=capsys)
    assert (code, err) == (0, "")
    assert "-bit weights" in again


def test_specs_show_says_exact_parameters(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    by_hand = 2 * 100 * 64 + 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64)
    shown = json.loads(here("specs", "show", str(path), "--json", capsys=capsys)[1])
    assert shown["parameters"] == by_hand
    assert shown["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 2
    assert f"{by_hand:,}" in here("specs", "show", str(tmp_path), capsys=capsys)[1]


@pytest.mark.parametrize("name", ["frontier", "h200", "chat", "vllm", "tensor_parallel", "llama70b"])
def test_specs_show_knows_every_kind(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = here("specs", "show", name, capsys=capsys)
    assert (code, err) == (0, "")
    assert out.strip()
    data = json.loads(here("specs", "show", name, "--json", capsys=capsys)[1])
    assert data["schema"] == "perfmodel.spec/1"
    for fact in data.get("facts", {}).values():
        assert fact["kind"] in ("datasheet", "measured", "fitted", "assumed")
        assert fact["source"]


def test_specs_list(capsys: pytest.CaptureFixture[str]) -> None:
    out = here("specs", "list", capsys=capsys)[1]
    for word in ("MODELS", "llama-2-70b", "frontier", "mi250x-gcd", "pretrain", "vllm", "packed_weights"):
        assert word in out
    data = json.loads(here("specs", "list", "clusters", "--json", capsys=capsys)[1])
    assert {"name", "aliases", "file"} == data["clusters"][0].keys()


def test_specs_check_reads_folders_and_names_each_bad_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = here("specs", "check", str(ROOT / "hardware_specs"), capsys=capsys)
    assert (code, err) == (0, "")
    assert out.count("OK ") == len(list((ROOT / "hardware_specs").rglob("*.yaml")))
    (tmp_path / "a.yaml").write_text("name: x\nnodes: 3\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("nothing: known\n", encoding="utf-8")
    code, out, err = here("specs", "check", str(tmp_path), capsys=capsys)
    assert (code, out) == (2, "")
    assert "a.yaml" in err
    assert "b.yaml" in err


def test_all_claims_are_kept_where_there_is_a_folder_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from perfmodel.calibration import claims

    one = claims.run_claims(("tokenring",))
    monkeypatch.setattr(claims, "run_claims", lambda ids: one)
    monkeypatch.chdir(tmp_path)
    assert here("claims", capsys=capsys)[0] == 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "reports").mkdir()
    assert here("claims", capsys=capsys)[1].splitlines()[-1] == "wrote reports/claims.md"
    assert "tokenring" in (tmp_path / "reports" / "claims.md").read_text(encoding="utf-8")


def test_one_claim_writes_only_where_it_is_told(tmp_path: Path) -> None:
    one = run("claims", "tokenring", cwd=tmp_path)
    assert one.returncode == 0
    assert list(tmp_path.iterdir()) == [], "one claim, no folder: nothing is written"
    done = run("claims", "tokenring", "--report", "mine.md", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "wrote mine.md"
    assert "tokenring" in (tmp_path / "mine.md").read_text(encoding="utf-8")
