"""Claims run through the public interface, hold where they say so, and name what they cannot find."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.calibration import claims
from perfmodel.calibration.claims import ClaimResult, Setting, claim_ids, load_claim, run_claims
from perfmodel.errors import SpecError, UnknownName

FOLDER = Path(claims.__file__).parent

KNOWN_TO_FAIL = {
    ("awq", "Llama 2 13B, A6000, fp16 over int4"),
    ("awq", "Llama 2 7B, A6000, fp16 over int4"),
    ("awq", "Llama 3 8B, A6000, fp16 over int4"),
    ("awq", "Llama 3 8B, RTX 4090, first token of a prompt of 4096, int4"),
    ("awq", "Llama 3 8B, RTX 4090, fp16, per token"),
    ("awq", "kernel, one vector, fp16 over int4"),
    ("batchllm", "speed with the prefix computed and held once, at most"),
    ("distrifusion", "2 devices"),
    ("distrifusion", "4 devices"),
    ("distrifusion", "8 devices"),
    ("distserve", "KV tokens, 1 device"),
    ("distserve", "KV tokens, 2 devices"),
    ("distserve", "KV tokens, 4 devices"),
    ("distserve", "KV tokens, 8 devices"),
    ("finequant", "published gain is not above that with the batch that memory allows"),
    ("finequant", "throughput, int4 over fp16, 1 request"),
    ("finequant", "throughput, int4 over fp16, 32 requests"),
    ("finequant", "throughput, int4 over fp16, 8 requests"),
    ("fastgen", "largest second difference of tokens per second over tokens of a pass"),
    ("nanoflow", "optimal throughput at 260 TFLOP/s"),
    ("sarathi_serve", "capacity over vLLM, Mistral 7B"),
    ("bytescale", "speed over a ring wide enough for 2048K tokens, long tail"),
    ("holmes", "RoCE over InfiniBand, 4 nodes"),
    ("holmes", "Ethernet over InfiniBand, 4 nodes"),
    ("holmes", "Ethernet over InfiniBand, 8 nodes"),
    ("flash_attention", "GPT-2 medium, sequence 1024, training layers, standard over FlashAttention"),
    ("flash_attention", "time, standard over FlashAttention"),
    ("flightllm", "VHK158 against A100 under vLLM: cases with the published winner"),
    ("flightllm", "U280, decode, batch 1"),
    ("dovetail", "drafts on the GPU and as many layers as 7 GB hold"),
    ("lasp2", "speed over ring attention, 2048K tokens on 64 GPUs"),
    ("lasp2", "speed over ring attention, 2K tokens on 64 GPUs"),
    ("mixpe", "time, scaling operands over scaling sums"),
    ("m2r2", "ahead-of-time loading, speed over on demand"),
    ("mixture_of_attentions_sd", "speed over EAGLE-2 with 25 % more tokens per pass"),
    ("neupims", "NeuPIMs over NPU only"),
    ("neupims", "NeuPIMs over naive NPU+PIM"),
    ("polca", "inference, servers more under the same supply"),
    ("squeezellm", "LLaMA-7B, A6000, 3 bits, fp16 over quantised"),
    ("deep_optimizer_states", "iteration, host alone over interleaved"),
    ("onebit_adam", "compressed phase, 4.1 Gb/s"),
    ("qsdp", "step at 10 Gb/s over 100 Gb/s"),
    ("zero_infinity", "rate per V100, a trillion parameters on 512"),
    ("streaming_diloco", "1B, gradients every step"),
}
"""(id, setting) that does not hold today; a claim that starts to hold must leave this list."""


@pytest.fixture(scope="module")
def results() -> tuple[ClaimResult, ...]:
    return run_claims()


def test_every_claim_holds_but_the_known(results: tuple[ClaimResult, ...]) -> None:
    failing = {(r.id, r.setting) for r in results if not r.holds}
    assert failing == KNOWN_TO_FAIL


def test_every_file_is_run(results: tuple[ClaimResult, ...]) -> None:
    assert {r.id for r in results} == set(claim_ids()) == {p.stem for p in FOLDER.glob("*.yaml")}


def test_three_levels_on_frontier(results: tuple[ClaimResult, ...]) -> None:
    found = {r.setting: r for r in results if r.id == "frontier_zero_3level"}
    ratios = [r for s, r in found.items() if " over " in s and "384 GCDs" in s]
    assert len(ratios) == 3
    assert all(abs(r.predicted / r.published - 1.0) <= 0.10 for r in ratios)
    assert all(r.read_in for r in found.values())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_claims_have_no_constants_of_their_own(path: Path) -> None:
    """A claim may choose machine, model, framework, plan and workload; never an efficiency."""
    claim = load_claim(path)
    for asked in (claim.common, *claim.plans.values()):
        assert not [c for c in asked.changes if "efficiency" in c or "fraction" in c or "kernels" in c]


def test_claims_on_one_machine_share_a_framework() -> None:
    used: dict[str, set[str | None]] = {}
    for path in FOLDER.glob("*.yaml"):
        claim = load_claim(path)
        for asked in (claim.common, *claim.plans.values()):
            if asked.framework is not None and not asked.framework.startswith("bare"):  # free software has no constants
                used.setdefault(claim.machine, set()).add(asked.framework)
    assert all(len(frameworks) == 1 for frameworks in used.values()), used


@pytest.mark.parametrize(
    ("side", "holding", "failing"), [("both", (0.95, 1.05), (0.8, 1.2)), ("at_most", (0.1, 1.05), (1.2,)),
                                     ("at_least", (0.95, 9.0), (0.8,))],
)  # fmt: skip
def test_published_limits_hold_on_one_side(side: str, holding: tuple[float, ...], failing: tuple[float, ...]) -> None:
    setting = Setting(setting="x", published=1.0, relative=0.1, metric="a.b", side=side)  # type: ignore[arg-type]
    assert all(setting.holds(value) for value in holding)
    assert not any(setting.holds(value) for value in (*failing, float("nan")))


def test_a_published_zero_has_an_absolute_tolerance() -> None:
    setting = Setting(setting="x", published=0.0, absolute=0.5, metric="a.b")
    assert setting.tolerance == 0.5
    assert setting.holds(0.4)
    assert not setting.holds(0.6)


def test_unknown_claim_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="frontier_zero_3level"):
        run_claims(("frontier_zero_3levels",))


def test_a_named_claim_runs_alone() -> None:
    assert {r.id for r in run_claims(("frontier_zero_3level",))} == {"frontier_zero_3level"}


def test_claim_files_are_checked(tmp_path: Path) -> None:
    text = (FOLDER / "frontier_zero_3level.yaml").read_text()
    broken = tmp_path / "frontier_zero_3level.yaml"
    broken.write_text(text.replace("relative: 0.10", "relativ: 0.10", 1))
    with pytest.raises(SpecError, match="relativ"):
        load_claim(broken)
    other = tmp_path / "other.yaml"
    other.write_text(text)
    with pytest.raises(SpecError, match="name of the file"):
        load_claim(other)
