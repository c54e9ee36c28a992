"""Operations, traffic and state of operators and whole models against counts made another way."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from planning import model, system

from perfmodel.machine.build import build_machine
from perfmodel.operators import attention, gemm, layers, state, streaming
from perfmodel.operators.backward import backward_of
from perfmodel.operators.layers import Sizes, active_experts, head_calls, layer_calls
from perfmodel.specs.architecture import Architecture, Attention, LatentAttention, Moe
from perfmodel.specs.locate import find_model

MODELS = sorted(p.stem for p in Path(find_model("gpt-3-175b")).parent.glob("*.yaml"))


def forward_flops(architecture: Architecture, tokens: float) -> dict[str, float]:
    """Forward operations of one sequence by operator class."""
    found: dict[str, float] = {}
    calls = layer_calls(architecture, Sizes(sequences=1.0, queries=tokens, context=tokens))
    for call in calls:
        kind = call.work.operator
        found[kind] = found.get(kind, 0.0) + call.work.flops * call.share * architecture.layers
    return found


def matrix_flops(architecture: Architecture, tokens: float) -> float:
    """The independent count: two operations per weight and token that meets it, matrix by matrix."""
    total = 0.0
    for run in architecture.runs:
        for part in (run.layer.mixer, run.layer.ffn):
            if part is None:
                continue
            weights = sum(m.k * m.n for m in part.linears)
            if isinstance(part, Moe):
                weights += part.top_k * sum(m.k * m.n for m in part.expert_linears)
            total += run.count * 2.0 * weights * tokens
    return total


@pytest.mark.parametrize("name", MODELS)
def test_products_of_a_model_are_two_operations_per_active_weight(name: str) -> None:
    architecture = model(name).architecture
    tokens = 512.0
    index = sum(
        run.count * 2.0 * m.index_heads * m.index_dim * tokens * (tokens + 1) / 2
        for run in architecture.runs
        if isinstance(m := run.layer.mixer, LatentAttention)
    )
    counted = forward_flops(architecture, tokens)
    products = counted["gemm"] + counted.get("moe", 0.0)
    assert products - index == pytest.approx(matrix_flops(architecture, tokens))


@pytest.mark.parametrize("name", MODELS)
def test_attention_is_four_operations_per_head_width_and_pair(name: str) -> None:
    architecture = model(name).architecture
    tokens = 700
    wanted = 0.0
    for run in architecture.runs:
        mixer = run.layer.mixer
        if isinstance(mixer, Attention):
            wanted += run.count * 2.0 * mixer.heads * (mixer.head_dim + mixer.value_dim) * pairs(tokens, mixer.window)
        elif isinstance(mixer, LatentAttention):
            width = mixer.nope_dim + mixer.rope_dim + mixer.value_dim
            wanted += run.count * 2.0 * mixer.heads * width * pairs(tokens, mixer.index_top_k)
    found = forward_flops(architecture, float(tokens))
    counted = found.get("attention", 0.0) + found.get("latent_attention", 0.0)
    mixers = [run.layer.mixer for run in architecture.runs]
    if any(isinstance(m, Attention) and (m.compression or m.index_top_k) for m in mixers):
        assert counted >= wanted  # compressed or chosen keys beside the window
    else:
        assert counted == pytest.approx(wanted)


def pairs(tokens: int, window: int | None) -> float:
    return float(sum(min(i + 1, window or tokens) for i in range(tokens)))


@pytest.mark.parametrize(
    ("name", "sequence", "attention_share"),
    [("gpt-3-175b", 2048, 12.0), ("llama-2-70b", 4096, 12.0)],
)
def test_the_convention_of_six_per_parameter(name: str, sequence: int, attention_share: float) -> None:
    """6 N + 12 L h s per token: three times forward, N the weights that multiply, attention as the full square.

    The model itself counts causal pairs, (s + 1) / 2 of s per query: half the second term, up to the diagonal.
    """
    architecture = model(name).architecture
    mixers = [run.layer.mixer for run in architecture.runs]
    width = sum(r.count * m.heads * m.head_dim for r, m in zip(architecture.runs, mixers, strict=True))
    weights = matrix_flops(architecture, 1.0) / 2.0
    full = 6.0 * weights + attention_share * width * sequence
    counted = forward_flops(architecture, float(sequence))
    causal = 3.0 * (counted["gemm"] + counted["attention"]) / sequence
    square = 3.0 * (counted["gemm"] + counted["attention"] * 2.0 * sequence / (sequence + 1)) / sequence
    assert square == pytest.approx(full, rel=1e-12)
    assert causal == pytest.approx(full - attention_share * width * (sequence - 1) / 2.0, rel=1e-12)
    # N without embeddings, biases and norms is close to the name
    assert weights == pytest.approx({"gpt-3-175b": 174.0e9, "llama-2-70b": 68.5e9}[name], rel=0.01)


@pytest.mark.parametrize("name", ["llama-2-7b", "mixtral-8x7b", "deepseek-v3", "nemotron-3-nano-30b-a3b"])
def test_the_backward_pass_doubles_products_and_adds_half_an_attention(name: str) -> None:
    architecture = model(name).architecture
    for call in layer_calls(architecture, Sizes(sequences=2.0, queries=1024.0, context=1024.0)):
        inner = call.work.operator == "moe"  # its activation is part of the forward kernel, not of its products
        backward = sum(b.work.flops for b in backward_of(call) if not (inner and b.component == "elementwise"))
        attended = call.work.operator in ("attention", "latent_attention")
        assert backward == pytest.approx((2.5 if attended else 2.0) * call.work.flops)


def test_the_head_counts_rows_not_tokens() -> None:
    architecture = model("llama-2-7b").architecture
    sizes = Sizes(sequences=4.0, queries=100.0, context=100.0)
    product = next(c for c in head_calls(architecture, sizes, rows=4.0, logit_bytes=8.0) if c.name == "output head")
    assert product.work.flops == 2.0 * 4.0 * 4096 * 32000


# --- attention pairs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 1, 3, 7, 50])
def test_pairs_are_exact(window: int | None) -> None:
    """Prefill, chunks after a prefix, and decode; causal and sliding window."""
    for q_len, before in itertools.product((1, 2, 5, 16, 33), (0, 1, 4, 20, 60)):
        kv_len = q_len + before
        counted = sum(min(before + i + 1, window or kv_len) for i in range(q_len))
        assert attention.attention_pairs(q_len, kv_len, window=window) == counted
        arrays = attention.attention_pairs(np.array([q_len * 1.0]), np.array([kv_len * 1.0]), window=window)
        assert arrays[0] == counted


def test_pairs_without_a_mask_are_the_square() -> None:
    assert attention.attention_pairs(8, 20, causal=False) == 160


def test_context_parallel_ranks_share_the_triangle() -> None:
    """Flops and pairs of all ranks together are those of one rank alone; K and V cross every rank."""
    architecture = model("llama-2-7b").architecture
    whole = forward_flops(architecture, 8192.0)
    for ranks in (2, 4, 8):
        sizes = Sizes(sequences=1.0, queries=8192.0 / ranks, context=8192.0, context_split=float(ranks))
        calls = layer_calls(architecture, sizes)
        for kind, flops in whole.items():
            part = sum(c.work.flops * c.share for c in calls if c.work.operator == kind) * architecture.layers
            assert part * ranks == pytest.approx(flops)


# --- input and output ---------------------------------------------------------------------------------------------


def works() -> list[object]:
    rng = np.random.default_rng(3)
    found: list[object] = []
    for _ in range(300):
        m, n, k = (float(2 ** rng.integers(0, 15)) for _ in range(3))
        weights = float(rng.choice([0.5, 1.0, 2.0, 4.0]))
        found.append(gemm.gemm(m, n, k, batch=float(rng.integers(1, 9)), weight_bytes=weights))
        found.append(attention.attention(2.0, 8.0, 2.0, 128, 128, min(m, n), n))
        found.append(attention.decode_attention(m, 8.0, 2.0, 128, 128, n))
        found.append(streaming.norm(m, n))
    return found


def test_no_traffic_is_below_its_bound() -> None:
    for work in works():
        for capacity in (2.0**15, 2.0**20, 2.0**26):
            assert work.traffic(capacity) >= work.io_lower_bound(capacity) >= work.compulsory_bytes * (1 - 1e-12)
            assert work.intensity(capacity) <= work.flops / work.compulsory_bytes * (1 + 1e-12)


@pytest.mark.parametrize(("capacity", "loads"), [(4096, 281.0e6), (16384, 146.8e6), (65536, 79.7e6)])
def test_product_traffic_is_near_a_loop_over_blocks(capacity: int, loads: float) -> None:
    """m = n = k = 2048, elements; the loop keeps a square block of C and streams A and B, edge blocks and stores in."""
    size = 2048
    block = max(b for b in range(1, size) if b * b + 2 * b <= capacity)
    count = 0
    for i in range(0, size, block):
        for j in range(0, size, block):
            rows, columns = min(block, size - i), min(block, size - j)
            count += size * (rows + columns) + rows * columns
    assert count == pytest.approx(loads, rel=1e-3)
    work = gemm.gemm(size, size, size, element_bytes=1.0, weight_bytes=1.0)
    assert work.traffic(capacity) <= count <= 1.25 * work.traffic(capacity)
    assert work.io_lower_bound(capacity) <= count


@pytest.mark.parametrize("weights", [0.5, 1.0, 2.0])
def test_narrow_weights_make_the_block_oblong(weights: float) -> None:
    """A loop over blocks of C that carry as many bytes of A as of W, against the formula for unequal widths."""
    size, capacity = 8192, 2.0**22
    columns = (capacity / 2.0 * 2.0 / weights) ** 0.5  # rows x columns x 2 B of C fill the memory, rows x 2 B of A
    rows = columns * weights / 2.0  #                    per step weigh as much as columns x `weights` of W
    loads = size * size * size * (2.0 / columns + weights / rows)
    work = gemm.gemm(size, size, size, weight_bytes=weights)
    assert work.traffic(capacity) == pytest.approx(loads, rel=1e-9)
    assert work.io_lower_bound(capacity) <= loads


def test_narrow_products_move_each_operand_once() -> None:
    """The bound is active only where the smallest side exceeds the square root of the fast memory."""
    for m in (1.0, 16.0, 64.0):
        work = gemm.gemm(m, 8192.0, 8192.0)
        assert work.traffic(2.0**26) == work.compulsory_bytes
    assert gemm.gemv(4096.0, 4096.0).intensity(1e7) == pytest.approx(1.0, rel=1e-3)


def test_square_blocks_of_attention() -> None:
    """One pass of K and V per M/4d queries: halving M doubles the traffic until the inputs are all that moves."""
    n, d = 65536.0, 64.0
    work = attention.attention(1.0, 1.0, 1.0, d, d, n, n, causal=False)
    for capacity in (2.0**14, 2.0**15, 2.0**16):
        queries_per_pass = capacity / (4.0 * d * 2.0)
        passes = n / queries_per_pass
        assert work.traffic(capacity) == pytest.approx(passes * 2.0 * n * d * 2.0)
    assert work.traffic(2.0**30) == work.compulsory_bytes == 4.0 * n * d * 2.0


@pytest.mark.parametrize(("q_heads", "kv_heads"), [(32, 32), (64, 8), (48, 1)])
def test_decode_intensity_is_the_group_size_for_any_batch(q_heads: int, kv_heads: int) -> None:
    for batch, context in itertools.product((1.0, 7.0, 512.0), (1e6, 1e7)):
        work = attention.decode_attention(batch, q_heads, kv_heads, 128, 128, context)
        assert work.intensity(2.0**25) == pytest.approx(2.0 * q_heads / kv_heads / 2.0, rel=1e-3)


def test_latent_decode_reads_one_latent_for_all_heads() -> None:
    work = attention.decode_attention(1.0, 128.0, 1.0, 576, 512, 1e6, latent=True)
    assert work.compulsory_bytes == pytest.approx(1e6 * 576 * 2, rel=1e-3)
    assert work.flops == 2.0 * 128 * 1e6 * (576 + 512)


# --- experts ------------------------------------------------------------------------------------------------------


def test_active_experts_between_one_token_and_many() -> None:
    assert active_experts(64.0, 6.0, 1.0) == pytest.approx(6.0)
    assert active_experts(64.0, 6.0, 1e6) == pytest.approx(64.0)
    assert active_experts(8.0, 8.0, 3.0) == 8.0
    counts = active_experts(64.0, 6.0, np.arange(1.0, 200.0))
    assert np.all(np.diff(counts) > 0)
    rng = np.random.default_rng(0)
    seen = [len({e for _ in range(20) for e in rng.choice(64, 6, replace=False)}) for _ in range(2000)]
    assert active_experts(64.0, 6.0, 20.0) == pytest.approx(np.mean(seen), rel=0.01)


def test_expert_work_is_conserved_across_ranks() -> None:
    """Every rank computes the tokens that arrive; all ranks together compute top_k copies of all tokens."""
    architecture = model("mixtral-8x7b").architecture
    alone = layer_calls(architecture, Sizes(sequences=8.0, queries=512.0, context=512.0))
    one = sum(c.work.flops * c.share for c in alone if c.component == "experts")
    for ranks in (2, 4, 8):
        part = Sizes(sequences=8.0 / ranks, queries=512.0, context=512.0, expert_split=float(ranks))
        each = sum(c.work.flops * c.share for c in layer_calls(architecture, part) if c.component == "experts")
        assert each * ranks == pytest.approx(one)


# --- state --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_layer_parameters_add_up_to_the_model(name: str) -> None:
    architecture = model(name).architecture
    counts = state.layer_parameters(architecture)
    layer = sum(counts.split.values()) + sum(counts.whole.values()) + counts.experts
    rest = architecture.embedding_parameters + architecture.head_parameters + architecture.extra
    towers = sum(n for _, n in architecture.towers)
    assert layer * architecture.layers + rest + towers == pytest.approx(architecture.parameters, rel=1e-12)


@pytest.mark.parametrize("name", ["gpt-3-175b", "llama-2-70b", "mixtral-8x7b", "deepseek-v3", "jamba-1.5-mini"])
def test_sharded_weights_of_all_ranks_are_the_whole(name: str) -> None:
    architecture = model(name).architecture
    counts = state.layer_parameters(architecture)
    bytes_of = {c: 2.0 for c in (*counts.split, *counts.whole, "experts")}
    whole = counts.stored(1.0, 1.0, bytes_of)
    copies = 2.0 * sum(counts.whole.values())
    for tensor, expert in ((2, 1), (4, 2), (8, 8)):
        if not counts.experts and expert > 1:
            continue
        one = counts.stored(float(tensor), float(expert), bytes_of)
        dense = counts.dense(float(tensor)) * 2.0
        assert one == pytest.approx(dense + 2.0 * counts.experts / tensor / expert)
        together = tensor * expert * one
        replicated = (tensor * expert - 1) * copies + (expert - 1) * 2.0 * sum(counts.split.values())
        assert together == pytest.approx(whole + replicated)


def gpt_layer(heads: int, sequence: int, tensor: float, sharded: bool, *, materialise: bool = True) -> state.Kept:
    architecture = model("megatron-22b").architecture
    assert architecture.runs[0].layer.mixer.heads == heads
    return state.activations_kept(
        architecture,
        weight_split=tensor,
        sequence_split=tensor if sharded else 1.0,
        context=float(sequence),
        materialise=materialise,
    )


@pytest.mark.parametrize("tensor", [1.0, 2.0, 8.0])
def test_activations_of_a_layer_as_published(tensor: float) -> None:
    """Korthikanti et al., arXiv:2205.05198, eq. 1, 2, 4, 5 and the full-recomputation row of table 2, per token."""
    h, a, s = 6144, 64, 2048
    plain = gpt_layer(a, s, tensor, sharded=False)
    assert plain.boundary + plain.inner + plain.scores == pytest.approx(h * (10 + 24 / tensor) + 5 * a * s / tensor)
    sharded = gpt_layer(a, s, tensor, sharded=True)
    assert sharded.boundary + sharded.inner + sharded.scores == pytest.approx((34 * h + 5 * a * s) / tensor)
    assert sharded.boundary + sharded.inner == pytest.approx(34 * h / tensor)  # selective: the scores go
    assert plain.boundary == pytest.approx(2 * h)  # full recomputation keeps the layer's input
    fused = gpt_layer(a, s, tensor, sharded=False, materialise=False)
    assert fused.scores == 0.0
    assert fused.inner == plain.inner


def test_cache_of_known_models() -> None:
    """Bytes per token in 16 bits: 2 L h_kv d for grouped heads, L (rank + rope) for a latent."""
    llama = model("llama-2-70b").architecture
    per_token = state.cache_bytes(llama, 1000.0, kv_split=1.0, kv_bytes=2.0) * llama.layers / 1000.0
    assert per_token == 2 * 80 * 8 * 128 * 2
    assert state.cache_bytes(llama, 1000.0, kv_split=8.0, kv_bytes=2.0) * 8 == pytest.approx(per_token * 1000 / 80)
    beyond = state.cache_bytes(llama, 1000.0, kv_split=16.0, kv_bytes=2.0)
    assert beyond == state.cache_bytes(llama, 1000.0, kv_split=8.0, kv_bytes=2.0)  # heads are replicated, not cut
    deep = model("deepseek-v3").architecture
    assert state.cache_bytes(deep, 10.0, kv_split=8.0, kv_bytes=2.0) == pytest.approx(10 * (512 + 64) * 2)


def test_windows_and_states_stop_growing() -> None:
    mamba = model("codestral-mamba-7b").architecture
    short, long = (state.cache_bytes(mamba, t, kv_split=1.0, kv_bytes=2.0) for t in (1e3, 1e6))
    assert short == long > 0
    window = model("gpt-oss-20b").architecture
    growth = [state.cache_bytes(window, t, kv_split=1.0, kv_bytes=2.0) for t in (1e5, 2e5)]
    full = sum(r.count for r in window.runs if r.layer.mixer.window is None) / window.layers
    mixer = window.runs[0].layer.mixer
    slope = (growth[1] - growth[0]) / 1e5
    assert slope == pytest.approx(full * mixer.kv_heads * (mixer.head_dim + mixer.value_dim) * 2.0)


def test_a_layer_is_cut_evenly() -> None:
    """Products, attention and their traffic over tensor ranks: each rank does its share of the operations."""
    architecture = model("llama-2-70b").architecture
    whole = layer_calls(architecture, Sizes(sequences=1.0, queries=2048.0, context=2048.0))
    for ranks in (2.0, 4.0, 8.0):
        sizes = Sizes(sequences=1.0, queries=2048.0, context=2048.0, weight_split=ranks, sequence_split=ranks)
        part = layer_calls(architecture, sizes)
        for one, cut in zip(whole, part, strict=True):
            assert cut.work.flops * ranks == pytest.approx(one.work.flops)


def test_engines_of_every_machine_know_the_operators() -> None:
    engine = build_machine(system("dgx-h100")).main
    assert {
        c.work.operator for c in layers.layer_calls(model("jamba-1.5-mini").architecture, Sizes(1.0, 64.0, 64.0))
    } <= set(engine.runs)
