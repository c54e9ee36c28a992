"""Bounds against the algorithms themselves: loops on a memory that counts, results checked, counts equal."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from fast_memory import Array, FastMemory, blocks

from perfmodel.operators.bounds import attention as att
from perfmodel.operators.bounds import decode, matmul, passes, transforms

RNG = np.random.default_rng(7)
SHAPES = [(12, 10, 9), (7, 30, 5), (3, 40, 41), (33, 33, 33), (40, 2, 17), (1, 25, 25)]
SIZES = [8, 15, 63, 100, 288]


def random(*shape: int) -> Array:
    return RNG.standard_normal(shape)


# --- matrix products ------------------------------------------------------------------------------------------------


def product_with_c_resident(a: Array, b: Array, mem: FastMemory, rows: float, columns: float) -> Array:
    c = np.full((a.shape[0], b.shape[1]), np.nan)
    for i, j in product(blocks(c.shape[0], rows), blocks(c.shape[1], columns)):
        block = mem.new(i.stop - i.start, j.stop - j.start)
        for step in range(a.shape[1]):
            x, y = mem.load(a[i, step]), mem.load(b[step, j])
            block += np.outer(x, y)
            mem.drop(x, y)
        mem.store(c[i, j], block)
        mem.drop(block)
    return c


def product_with_a_resident(a: Array, b: Array, mem: FastMemory) -> Array:
    m, k = a.shape
    rows, columns = matmul._sides(m, k, mem.capacity)
    c = np.full((m, b.shape[1]), np.nan)
    for i in blocks(m, rows):
        for first, step in enumerate(blocks(k, columns)):
            held = mem.load(a[i, step])
            for j in range(b.shape[1]):
                y = mem.load(b[step, j])
                x = mem.load(c[i, j]) if first else mem.new(held.shape[0])
                x += held @ y
                mem.store(c[i, j], x)
                mem.drop(x, y)
            mem.drop(held)
    return c


@pytest.mark.parametrize(("shape", "fast"), list(product(SHAPES, SIZES)))
def test_blocked_products(shape: tuple[int, int, int], fast: int) -> None:
    m, n, k = shape
    a, b = random(m, k), random(k, n)
    mem = FastMemory(fast)
    side = matmul.gemm_block(fast)
    np.testing.assert_allclose(product_with_c_resident(a, b, mem, side, side), a @ b)
    assert mem.traffic == matmul.gemm_blocked(m, n, k, fast)
    lower = matmul.gemm_lower_bound(m, n, k, fast)
    assert mem.traffic >= matmul.gemm_achievable(m, n, k, fast) >= lower
    assert lower >= matmul.gemm_irony_toledo_tiskin(m, n, k, fast)


@pytest.mark.parametrize(("shape", "fast"), list(product(SHAPES, SIZES)))
def test_products_with_other_operands_resident(shape: tuple[int, int, int], fast: int) -> None:
    m, n, k = shape
    a, b = random(m, k), random(k, n)
    counted = []
    for left, right in ((a, b), (b.T, a.T)):
        mem = FastMemory(fast)
        np.testing.assert_allclose(product_with_a_resident(left, right, mem), left @ right)
        assert mem.traffic == matmul.gemm_stationary(left.shape[0], right.shape[1], k, fast)
        counted.append(mem.traffic)
    for rows, columns in (matmul._sides(m, n, fast), (matmul.gemm_block(fast),) * 2):
        mem = FastMemory(fast)
        product_with_c_resident(a, b, mem, rows, columns)
        counted.append(mem.traffic)
    assert min(counted) == matmul.gemm_achievable(m, n, k, fast)


@pytest.mark.parametrize(
    ("fast", "loads", "ratio"), [(4096, 281.0, 1.047), (16384, 146.8, 1.094), (65536, 79.7, 1.188)]
)
def test_products_of_side_2048(fast: int, loads: float, ratio: float) -> None:
    """Published loop counts against 2 mnk / sqrt(S); the loop over k is taken at once."""
    size, side = 2048, int(matmul.gemm_block(fast))
    count = 0
    for i, j in product(blocks(size, side), blocks(size, side)):
        rows, columns = i.stop - i.start, j.stop - j.start
        assert rows * columns + rows + columns <= fast
        count += size * (rows + columns) + rows * columns
    assert count == matmul.gemm_blocked(size, size, size, fast)
    assert round(count / 1e6, 1) == loads
    leading = 2 * size**3 / math.sqrt(fast)
    assert count / leading == pytest.approx(ratio, abs=6e-4)
    assert matmul.gemm_smith(size, size, size, fast) == leading - 2 * fast


@pytest.mark.parametrize(("m", "n", "fast"), list(product([1, 7, 30], [1, 9, 40], [4, 8, 33, 80])))
def test_matrix_times_vector(m: int, n: int, fast: int) -> None:
    a, x = random(m, n), random(n)
    inner, outer = FastMemory(fast), FastMemory(fast)
    y = np.full(m, np.nan)
    for first, j in enumerate(blocks(n, fast - 2)):  # a piece of x stays
        held = inner.load(x[j])
        for i in range(m):
            total = inner.load(y[i : i + 1]) if first else inner.new(1)
            for column in range(j.start, j.stop):
                element = inner.load(a[i, column])
                total += element * held[column - j.start]
                inner.drop(element)
            inner.store(y[i : i + 1], total)
            inner.drop(total)
        inner.drop(held)
    np.testing.assert_allclose(y, a @ x)
    for i in blocks(m, fast - 2):  # a piece of y stays
        held = outer.new(i.stop - i.start)
        for column in range(n):
            factor = outer.load(x[column])
            for row in range(i.start, i.stop):
                element = outer.load(a[row, column])
                held[row - i.start] += (element * factor)[0]
                outer.drop(element)
            outer.drop(factor)
        outer.store(y[i], held)
        outer.drop(held)
    np.testing.assert_allclose(y, a @ x)
    best = min(inner.traffic, outer.traffic)
    assert best == matmul.gemv_achievable(m, n, fast) >= matmul.gemv_compulsory(m, n)
    if min(m, n) + 2 <= fast:
        assert best == matmul.gemv_compulsory(m, n)


# --- softmax ----------------------------------------------------------------------------------------------------------


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def each(mem: FastMemory, x: Array) -> list[float]:
    """Visit a vector element by element."""
    seen = []
    for i in range(x.size):
        value = mem.load(x[i])
        seen.append(float(value[0]))
        mem.drop(value)
    return seen


def write(mem: FastMemory, y: Array, i: int, value: float) -> None:
    cell = mem.new(1, value=value)
    mem.store(y[i : i + 1], cell)
    mem.drop(cell)


def softmax_recomputing(x: Array, y: Array, mem: FastMemory) -> None:
    top = max(each(mem, x))
    total = sum(math.exp(v - top) for v in each(mem, x))
    for i, v in enumerate(each(mem, x)):
        write(mem, y, i, math.exp(v - top) / total)


def softmax_reloading(x: Array, y: Array, mem: FastMemory) -> None:
    top = max(each(mem, x))
    total = 0.0
    for i, v in enumerate(each(mem, x)):
        total += math.exp(v - top)
        write(mem, y, i, math.exp(v - top))
    for i, v in enumerate(each(mem, y)):
        write(mem, y, i, v / total)


def softmax_two_pass(x: Array, y: Array, mem: FastMemory) -> None:
    """Exponentials as (mantissa, exponent) pairs, which no argument overflows."""

    def pair(v: float) -> tuple[float, float]:
        n = round(v / math.log(2.0))
        return math.exp(v - n * math.log(2.0)), float(n)

    mantissa, exponent = 0.0, -math.inf
    for v in each(mem, x):
        m, n = pair(v)
        top = max(exponent, n)
        mantissa = mantissa * 2.0 ** (exponent - top) + m * 2.0 ** (n - top)
        exponent = top
    for i, v in enumerate(each(mem, x)):
        m, n = pair(v)
        write(mem, y, i, m / mantissa * 2.0 ** (n - exponent))


def softmax_online(x: Array, y: Array, mem: FastMemory) -> None:
    top, total = -math.inf, 0.0
    for v in each(mem, x):
        higher = max(top, v)
        total = total * math.exp(top - higher) + math.exp(v - higher)
        top = higher
    for i, v in enumerate(each(mem, x)):
        write(mem, y, i, math.exp(v - top) / total)


def softmax_resident(x: Array, y: Array, mem: FastMemory) -> None:
    held, scalars = mem.load(x), mem.new(2)
    mem.store(y, softmax(held))
    mem.drop(held, scalars)


@pytest.mark.parametrize(
    ("loop", "formula"),
    [
        (softmax_recomputing, passes.softmax_recompute),
        (softmax_reloading, passes.softmax_reload),
        (softmax_two_pass, passes.softmax_two_pass),
        (softmax_online, passes.softmax_online),
    ],
)
@pytest.mark.parametrize("n", [5, 200])
def test_softmax_of_a_stream(loop, formula, n: int) -> None:
    x, y, mem = 300.0 * random(n), np.empty(n), FastMemory(4)
    loop(x, y, mem)
    np.testing.assert_allclose(y, softmax(x), atol=1e-12)
    assert mem.traffic == formula(n) >= passes.softmax_lower_bound(n, 4)


def test_softmax_that_fits_or_partly_fits() -> None:
    n = 50
    x, y, mem = random(n), np.empty(n), FastMemory(n + 2)
    softmax_resident(x, y, mem)
    assert mem.traffic == passes.softmax_in_cache(n) == passes.softmax_achievable(n, n + 2)
    assert mem.traffic == passes.softmax_lower_bound(n, n)
    for kept in (0, 10, 40):  # keep what fits, stream the rest twice: the bound but for three scalars
        mem = FastMemory(kept + 3)
        held, scalars = mem.load(x[:kept]), mem.new(2)
        rest = each(mem, x[kept:])
        total = np.exp(held).sum() + sum(math.exp(v) for v in rest)
        mem.store(y[:kept], np.exp(held) / total)
        mem.drop(held, scalars)
        for i, v in enumerate(each(mem, x[kept:])):
            write(mem, y, kept + i, math.exp(v) / total)
        np.testing.assert_allclose(y, softmax(x))
        assert mem.traffic == passes.softmax_lower_bound(n, kept)


# --- attention --------------------------------------------------------------------------------------------------------


def reference(q: Array, k: Array, v: Array, *, causal: bool = False, mask: Array | None = None) -> Array:
    scores = q @ k.T
    if causal:
        scores = np.where(np.tri(*scores.shape, dtype=bool), scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    return softmax(scores) @ v


def flash1_loop(q: Array, k: Array, v: Array, mem: FastMemory, columns: float, rows: int, mask: Array | None = None):
    """Algorithm 1 of FlashAttention: outputs, maxima and sums travel; ``mask`` names the block pairs computed."""
    n = q.shape[0]
    out, tops, sums = np.zeros_like(q), np.full(n, -np.inf), np.zeros(n)
    for c, j in enumerate(blocks(n, columns)):
        keys, values = mem.load(k[j]), mem.load(v[j])
        for r, i in enumerate(blocks(n, rows)):
            if mask is not None and not mask[r, c]:
                continue
            x, o, top, total = mem.load(q[i]), mem.load(out[i]), mem.load(tops[i]), mem.load(sums[i])
            p = mem.new(x.shape[0], keys.shape[0])
            p[...] = x @ keys.T
            higher = np.maximum(top, p.max(axis=1))
            p[...] = np.exp(p - higher[:, None])
            scale = total * np.exp(top - higher)
            fresh = scale + p.sum(axis=1)
            o = (o * scale[:, None] + p @ values) / fresh[:, None]
            mem.store(out[i], o)
            mem.store(tops[i], higher)
            mem.store(sums[i], fresh)
            mem.drop(x, o, top, total, p)
        mem.drop(keys, values)
    return out


def flash2_loop(q: Array, k: Array, v: Array, mem: FastMemory, rows: float, *, causal: bool = False):
    """Algorithm 1 of FlashAttention-2 with keys and values passing one by one."""
    out, logs = np.full_like(q, np.nan), np.full(q.shape[0], np.nan)
    for i in blocks(q.shape[0], rows):
        x = mem.load(q[i])
        o, top, total = mem.new(*x.shape), mem.new(x.shape[0], value=-np.inf), mem.new(x.shape[0])
        p = mem.new(x.shape[0])
        for j in range(i.stop if causal else k.shape[0]):
            key, value = mem.load(k[j]), mem.load(v[j])
            p[...] = x @ key
            if causal:
                p[np.arange(i.start, i.stop) < j] = -np.inf
            higher = np.maximum(top, p)
            scale = np.exp(top - higher)
            p[...] = np.exp(p - higher)
            total *= scale
            total += p
            o *= scale[:, None]
            o += np.outer(p, value)
            top[...] = higher
            mem.drop(key, value)
        mem.store(out[i], o / total[:, None])
        mem.store(logs[i], top + np.log(total))
        mem.drop(x, o, top, total, p)
    return out, logs


@pytest.mark.parametrize(("fast", "count"), [(16384, 3_342_336), (49152, 1_335_296), (98304, 733_184)])
def test_flash1_of_1024_tokens(fast: int, count: int) -> None:
    """The tile M/4d; the queries pass in smaller blocks, which changes no count and leaves room for the scores."""
    n, d = 1024, 64
    q, k, v = random(n, d), random(n, d), random(n, d)
    tile, mem = att.published_tile(d, fast), FastMemory(fast)
    np.testing.assert_allclose(flash1_loop(q, k, v, mem, tile, 16), reference(q, k, v), atol=1e-9)
    assert mem.traffic == att.flash1(n, d, tile) == count
    assert att.attention_materialised(n, n, d) == 4_456_448 > count
    assert mem.traffic >= att.attention_lower_bound(n, d, fast)


@pytest.mark.parametrize(("n", "d", "columns"), [(50, 4, 7), (64, 8, 64), (33, 3, 1)])
def test_flash1_with_edge_blocks(n: int, d: int, columns: int) -> None:
    q, k, v = random(n, d), random(n, d), random(n, d)
    counts = set()
    for rows in (1, 5, n):
        mem = FastMemory(2 * columns * d + rows * (2 * d + columns + 2))
        np.testing.assert_allclose(flash1_loop(q, k, v, mem, columns, rows), reference(q, k, v), atol=1e-9)
        counts.add(mem.traffic)
    assert counts == {att.flash1(n, d, columns)}


def test_block_sparse_flash1() -> None:
    n, d, block = 48, 4, 8
    q, k, v = random(n, d), random(n, d), random(n, d)
    chosen = RNG.random((n // block, n // block)) < 0.4
    np.fill_diagonal(chosen, True)
    mem = FastMemory(10_000)
    out = flash1_loop(q, k, v, mem, block, block, chosen)
    wide = np.kron(chosen, np.ones((block, block))).astype(bool)
    np.testing.assert_allclose(out, reference(q, k, v, mask=wide), atol=1e-9)
    assert mem.traffic == pytest.approx(att.flash1_block_sparse(n, d, block, chosen.mean()), rel=1e-12)


def test_flash2_of_1024_tokens() -> None:
    n, d, rows = 1024, 64, 128
    q, k, v = random(n, d), random(n, d), random(n, d)
    mem = FastMemory(rows * (2 * d + 3) + 2 * d)
    np.testing.assert_allclose(flash2_loop(q, k, v, mem, rows)[0], reference(q, k, v), atol=1e-9)
    assert mem.traffic == att.flash2(n, n, d, rows) == 1_180_672
    assert att.flash2_rows(d, mem.capacity) == rows
    assert mem.peak == mem.capacity


@pytest.mark.parametrize(("queries", "keys", "d", "rows"), [(50, 20, 4, 7), (9, 40, 3, 9), (40, 40, 5, 1)])
def test_flash2_with_edge_blocks(queries: int, keys: int, d: int, rows: int) -> None:
    q, k, v = random(queries, d), random(keys, d), random(keys, d)
    mem = FastMemory(rows * (2 * d + 3) + 2 * d)
    np.testing.assert_allclose(flash2_loop(q, k, v, mem, rows)[0], reference(q, k, v), atol=1e-9)
    assert mem.traffic == att.flash2(queries, keys, d, rows)


@pytest.mark.parametrize(("n", "rows"), [(50, 7), (48, 8), (30, 30), (20, 1)])
def test_causal_flash2(n: int, rows: int) -> None:
    d = 4
    q, k, v = random(n, d), random(n, d), random(n, d)
    mem = FastMemory(rows * (2 * d + 3) + 2 * d)
    out, _ = flash2_loop(q, k, v, mem, rows, causal=True)
    np.testing.assert_allclose(out, reference(q, k, v, causal=True), atol=1e-9)
    assert mem.traffic == att.flash2_causal(n, d, rows)


@pytest.mark.parametrize(("n", "block"), [(40, 8), (30, 7), (16, 16)])
def test_flash2_backward(n: int, block: int) -> None:
    d = 4
    q, k, v, dout = random(n, d), random(n, d), random(n, d), random(n, d)
    out, logs = flash2_loop(q, k, v, FastMemory(10_000), n)
    mem = FastMemory(4 * block * d + 3 * d + 2 + 2 * block)
    dots = np.full(n, np.nan)
    for i in range(n):
        do, o = mem.load(dout[i]), mem.load(out[i])
        mem.store(dots[i : i + 1], do @ o)
        mem.drop(do, o)
    dq, dk, dv = np.full_like(q, np.nan), np.full_like(q, np.nan), np.full_like(q, np.nan)
    for first, j in enumerate(blocks(n, block)):
        keys, values = mem.load(k[j]), mem.load(v[j])
        gk, gv = mem.new(*keys.shape), mem.new(*keys.shape)
        for i in range(n):
            x, do, log, dot = mem.load(q[i]), mem.load(dout[i]), mem.load(logs[i]), mem.load(dots[i])
            p, ds = mem.new(keys.shape[0]), mem.new(keys.shape[0])
            p[...] = np.exp(keys @ x - log)
            gv += np.outer(p, do)
            ds[...] = p * (values @ do - dot)
            gk += np.outer(ds, x)
            g = mem.load(dq[i]) if first else mem.new(d)
            g += ds @ keys
            mem.store(dq[i], g)
            mem.drop(x, do, log, dot, p, ds, g)
        mem.store(dk[j], gk)
        mem.store(dv[j], gv)
        mem.drop(keys, values, gk, gv)
    assert mem.traffic == att.flash2_backward(n, d, block)
    p = softmax(q @ k.T)
    ds = p * (dout @ v.T - (dout * out).sum(axis=1, keepdims=True))
    for got, wanted in ((dq, ds @ k), (dk, ds.T @ q), (dv, p.T @ dout)):
        np.testing.assert_allclose(got, wanted, atol=1e-9)


@pytest.mark.parametrize("number", [3, 2, 1])
def test_scores_in_so_many_passes(number: int) -> None:
    """Rows of scores that do not fit: written once, read again for every later pass."""
    n, d = 30, 4
    q, k, v = random(5, d), random(n, d), random(n, d)
    mem, scores, y = FastMemory(2 * d + 4), np.empty((5, n)), np.empty((5, d))
    spilled = 0
    for i in range(5):
        row = q[i] @ k.T
        before = mem.traffic
        if number == 1:
            out, _ = flash2_loop(q[i : i + 1], k, v, FastMemory(100), 1)
            y[i] = out[0]
            continue
        for j in range(n):
            write(mem, scores[i], j, row[j])
        top, total = row.max(), 0.0  # the maximum was kept while writing; two-pass needs no maximum first
        if number == 3:
            total = sum(math.exp(s - top) for s in each(mem, scores[i]))
        exponentials = [math.exp(s - top) for s in each(mem, scores[i])]
        total = total or sum(exponentials)
        y[i] = np.array(exponentials) / total @ v
        spilled += mem.traffic - before
    np.testing.assert_allclose(y, reference(q, k, v), atol=1e-9)
    assert spilled == passes.spill_traffic(5, n, number, 20)
    assert passes.spill_traffic(5, n, number, n) == 0
    assert [c.passes for c in passes.CASCADES] == [3, 2, 1]


def test_materialised_attention() -> None:
    n, d = 20, 4
    q, k, v = random(n, d), random(n, d), random(n, d)
    s, p, out = np.empty((n, n)), np.empty((n, n)), np.empty((n, d))
    mem = FastMemory(n * d + d + n + 2)
    held = mem.load(k)
    for i in range(n):
        x, row = mem.load(q[i]), mem.new(n)
        row[...] = held @ x
        mem.store(s[i], row)
        mem.drop(x, row)
    mem.drop(held)
    for i in range(n):
        softmax_resident(s[i], p[i], mem)
    held = mem.load(v)
    for i in range(n):
        row, o = mem.load(p[i]), mem.new(d)
        o[...] = row @ held
        mem.store(out[i], o)
        mem.drop(row, o)
    np.testing.assert_allclose(out, reference(q, k, v))
    assert mem.traffic == att.attention_materialised(n, n, d)


@pytest.mark.parametrize("pointwise", [0, 2])
def test_materialised_attention_backward(pointwise: int) -> None:
    """Every kernel reads its operands and writes its result; pointwise kernels are negations in pairs."""
    n, d = 12, 3
    q, k, v, dout = random(n, d), random(n, d), random(n, d), random(n, d)
    p = softmax(q @ k.T)
    mem = FastMemory(10_000)
    dp, ds = np.empty((n, n)), np.empty((n, n))
    dq, dk, dv = np.empty_like(q), np.empty_like(k), np.empty_like(v)

    def kernel(out: Array, compute, *operands: Array) -> None:
        held = [mem.load(x) for x in operands]
        result = mem.new(*out.shape)
        result[...] = compute(*held)
        mem.store(out, result)
        mem.drop(*held, result)

    kernel(dv, lambda a, b: a.T @ b, p, dout)
    kernel(dp, lambda a, b: a @ b.T, dout, v)
    for _ in range(pointwise):
        kernel(dp, lambda a: -a, dp)
    kernel(ds, lambda a, b: a * (b - (a * b).sum(axis=1, keepdims=True)), p, dp)
    kernel(dq, lambda a, b: a @ b, ds, k)
    kernel(dk, lambda a, b: a.T @ b, ds, q)
    assert mem.traffic == att.attention_materialised_backward(n, n, d, pointwise)
    wanted = p * (dout @ v.T - (dout * (p @ v)).sum(axis=1, keepdims=True))
    for got, expected in ((dq, wanted @ k), (dk, wanted.T @ q), (dv, p.T @ dout)):
        np.testing.assert_allclose(got, expected, atol=1e-9)


@pytest.mark.parametrize(("n", "block"), [(40, 8), (30, 7), (16, 16)])
def test_flash1_backward(n: int, block: int) -> None:
    d = 4
    q, k, v, dout = random(n, d), random(n, d), random(n, d), random(n, d)
    scores = q @ k.T
    p = softmax(scores)
    out, tops = p @ v, scores.max(axis=1)
    sums = np.exp(scores - tops[:, None]).sum(axis=1)
    mem = FastMemory(4 * block * d + 5 * d + 2 + 2 * block)
    dq, dk, dv = np.full_like(q, np.nan), np.full_like(q, np.nan), np.full_like(q, np.nan)
    for first, j in enumerate(blocks(n, block)):
        keys, values = mem.load(k[j]), mem.load(v[j])
        gk, gv = mem.new(*keys.shape), mem.new(*keys.shape)
        for i in range(n):
            x, o, do = mem.load(q[i]), mem.load(out[i]), mem.load(dout[i])
            top, total = mem.load(tops[i]), mem.load(sums[i])
            row, ds = mem.new(keys.shape[0]), mem.new(keys.shape[0])
            row[...] = np.exp(keys @ x - top) / total
            gv += np.outer(row, do)
            ds[...] = row * (values @ do - do @ o)
            gk += np.outer(ds, x)
            g = mem.load(dq[i]) if first else mem.new(d)
            g += ds @ keys
            mem.store(dq[i], g)
            mem.drop(x, o, do, top, total, row, ds, g)
        mem.store(dk[j], gk)
        mem.store(dv[j], gv)
        mem.drop(keys, values, gk, gv)
    assert mem.traffic == att.flash1_backward(n, d, block)
    ds = p * (dout @ v.T - (dout * out).sum(axis=1, keepdims=True))
    for got, wanted in ((dq, ds @ k), (dk, ds.T @ q), (dv, p.T @ dout)):
        np.testing.assert_allclose(got, wanted, atol=1e-9)


@pytest.mark.parametrize("splits", [1, 2, 5])
def test_split_decode(splits: int) -> None:
    context, q_heads, kv_heads, d = 40, 6, 2, 4
    group = q_heads // kv_heads
    q, k, v = random(q_heads, d), random(context, kv_heads, d), random(context, kv_heads, d)
    out = np.full((q_heads, d), np.nan)
    partial = np.full((splits, q_heads, d + 2), np.nan)
    mem = FastMemory(1000)
    for h in range(kv_heads):
        heads = slice(h * group, (h + 1) * group)
        for s, j in enumerate(blocks(context, context // splits)):
            x, acc = mem.load(q[heads]), mem.new(group, d + 2)
            acc[:, d] = -np.inf
            for token in range(j.start, j.stop):
                key, value = mem.load(k[token, h]), mem.load(v[token, h])
                score = x @ key
                top = np.maximum(acc[:, d], score)
                scale, p = np.exp(acc[:, d] - top), np.exp(score - top)
                acc[:, :d] = acc[:, :d] * scale[:, None] + np.outer(p, value)
                acc[:, d + 1] = acc[:, d + 1] * scale + p
                acc[:, d] = top
                mem.drop(key, value)
            if splits == 1:
                mem.store(out[heads], acc[:, :d] / acc[:, d + 1 :])
            else:
                mem.store(partial[s, heads], acc)
            mem.drop(x, acc)
    if splits > 1:
        for head in range(q_heads):
            parts = mem.load(partial[:, head])
            weight = np.exp(parts[:, d] - parts[:, d].max())
            mem.store(out[head], weight @ parts[:, :d] / (weight @ parts[:, d + 1]))
            mem.drop(parts)
    wanted = np.stack([reference(q[h : h + 1], k[:, h // group], v[:, h // group])[0] for h in range(q_heads)])
    np.testing.assert_allclose(out, wanted, atol=1e-9)
    assert mem.traffic == decode.decode_split(context, q_heads, kv_heads, d, splits)


# --- transforms and scans ---------------------------------------------------------------------------------------------


def fft_in_passes(x: Array, mem: FastMemory, radix_bits: int) -> Array:
    """Radix-2 stages, as many at a time as a group of ``2**radix_bits`` points holds."""
    bits = x.size.bit_length() - 1
    order = [int(f"{i:0{bits}b}"[::-1], 2) if bits else 0 for i in range(x.size)]
    y = x[order].astype(complex)
    for low in range(0, bits, radix_bits):
        high = min(low + radix_bits, bits)
        span = [i << low for i in range(1 << (high - low))]
        for base in range(x.size):
            if (base >> low) % (1 << (high - low)):
                continue
            where = np.array([base + s for s in span])
            group = mem.load(y[where])
            for stage in range(low, high):
                half = 1 << (stage - low)
                for a in range(len(span)):
                    if a & half:
                        continue
                    twiddle = np.exp(-2j * np.pi * (where[a] % (1 << stage)) / (2 << stage))
                    upper, lower = group[a], group[a + half] * twiddle
                    group[a], group[a + half] = upper + lower, upper - lower
            mem.stores += group.size
            y[where] = group
            mem.drop(group)
    return y


@pytest.mark.parametrize(("bits", "fast_bits"), [(6, 6), (6, 3), (6, 2), (7, 3), (8, 4), (5, 1), (8, 9)])
def test_fft_in_passes(bits: int, fast_bits: int) -> None:
    n, fast = 2**bits, 2**fast_bits
    x, mem = random(n), FastMemory(fast)
    np.testing.assert_allclose(fft_in_passes(x, mem, fast_bits), np.fft.fft(x), atol=1e-9)
    assert mem.traffic == transforms.fft_traffic(n, fast)
    assert mem.traffic >= 2 * n
    assert transforms.fft_passes(n, fast) == math.ceil(bits / fast_bits)


@pytest.mark.parametrize(("radix", "order", "fast"), [(4, 3, 64), (4, 3, 16), (4, 3, 4), (2, 5, 8), (3, 4, 27)])
def test_monarch_in_passes(radix: int, order: int, fast: int) -> None:
    """Each stage multiplies blocks along one of ``order`` axes; stages whose joint blocks fit are done together."""
    n = radix**order
    x = random(*([radix] * order))
    factors = [random(radix, radix) for _ in range(order)]
    wanted = x.copy()
    for axis, f in enumerate(factors):
        wanted = np.moveaxis(np.tensordot(f, wanted, axes=(1, axis)), 0, axis)
    fused = max(math.floor(math.log(fast, radix) + 1e-9), 1) if fast < n else order
    mem, y, multiplied = FastMemory(max(fast, radix)), x.copy(), 0
    for axes in (range(order)[i : i + fused] for i in range(0, order, fused)):
        rest = [a for a in range(order) if a not in axes]
        for index in np.ndindex(*(radix for _ in rest)):
            cut: list[slice | int] = [slice(None)] * order
            for a, i in zip(rest, index, strict=True):
                cut[a] = i
            group = mem.load(y[tuple(cut)])
            for local, axis in enumerate(axes):
                group = np.moveaxis(np.tensordot(factors[axis], group, axes=(1, local)), 0, local)
                multiplied += 2 * radix * group.size
            mem.store(y[tuple(cut)], group)
            mem.drop(group)
    np.testing.assert_allclose(y, wanted)
    assert mem.traffic == transforms.monarch_traffic(n, order, fast)
    assert multiplied == pytest.approx(transforms.monarch_flops(n, order))


def scan_reference(x: Array, step: Array, b: Array, c: Array, a: Array) -> Array:
    h, y = np.zeros_like(a), np.empty_like(x)
    for t in range(x.shape[0]):
        h = np.exp(step[t][:, None] * a) * h + (step[t] * x[t])[:, None] * b[t]
        y[t] = h @ c[t]
    return y


@pytest.mark.parametrize(("tokens", "channels", "state", "fast"), [(6, 8, 3, 1000), (6, 8, 3, 24), (9, 5, 2, 18)])
def test_fused_scan(tokens: int, channels: int, state: int, fast: int) -> None:
    x, step, b, c = random(tokens, channels), random(tokens, channels), random(tokens, state), random(tokens, state)
    a, y, mem = -np.abs(random(channels, state)), np.full((tokens, channels), np.nan), FastMemory(fast)
    for j in blocks(channels, transforms.scan_channels(state, fast)):
        decay, h = mem.load(a[j]), mem.new(j.stop - j.start, state)
        for t in range(tokens):
            xt, st, bt, ct = mem.load(x[t, j]), mem.load(step[t, j]), mem.load(b[t]), mem.load(c[t])
            out = mem.new(xt.size)
            h *= np.exp(st[:, None] * decay)
            h += (st * xt)[:, None] * bt
            out[...] = h @ ct
            mem.store(y[t, j], out)
            mem.drop(xt, st, bt, ct, out)
        mem.drop(decay, h)
    np.testing.assert_allclose(y, scan_reference(x, step, b, c, a))
    assert mem.traffic == transforms.scan_fused(tokens, channels, state, fast)
    assert mem.traffic >= transforms.scan_compulsory(tokens, channels, state)


def test_unfused_scan_and_decode() -> None:
    tokens, channels, state = 5, 4, 3
    x, step, b, c = random(tokens, channels), random(tokens, channels), random(tokens, state), random(tokens, state)
    a, y, mem = -np.abs(random(channels, state)), np.full((tokens, channels), np.nan), FastMemory(10_000)
    decays, inputs, states = (np.full((tokens, channels, state), np.nan) for _ in range(3))
    held = mem.load(a)
    for t in range(tokens):
        xt, st, bt = mem.load(x[t]), mem.load(step[t]), mem.load(b[t])
        mem.store(decays[t], np.exp(st[:, None] * held))
        mem.store(inputs[t], (st * xt)[:, None] * bt)
        mem.drop(xt, st, bt)
    mem.drop(held)
    h = mem.new(channels, state)
    for t in range(tokens):
        decay, added = mem.load(decays[t]), mem.load(inputs[t])
        h[...] = decay * h + added
        mem.store(states[t], h)
        mem.drop(decay, added)
    mem.drop(h)
    for t in range(tokens):
        h, ct = mem.load(states[t]), mem.load(c[t])
        mem.store(y[t], h @ ct)
        mem.drop(h, ct)
    np.testing.assert_allclose(y, scan_reference(x, step, b, c, a))
    assert mem.traffic == transforms.scan_unfused(tokens, channels, state)

    mem, kept = FastMemory(10_000), random(channels, state)
    parts = [mem.load(v) for v in (kept, a, x[0], step[0], b[0], c[0])]
    h = np.exp(parts[3][:, None] * parts[1]) * parts[0] + (parts[3] * parts[2])[:, None] * parts[4]
    mem.store(kept, h)
    mem.store(y[0], h @ parts[5])
    assert mem.traffic == transforms.scan_decode(channels, state)
