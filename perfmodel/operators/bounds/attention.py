"""Exact softmax attention of ``n`` tokens and heads of width ``d``: bounds in both regimes and published algorithms."""

from __future__ import annotations

from perfmodel.elementwise import Scalar, ceil, floor, maximum, minimum, sqrt, where
from perfmodel.operators.bounds.matmul import gemm_achievable
from perfmodel.operators.bounds.passes import softmax_achievable

__all__ = [
    "attention_achievable",
    "attention_blocked_products",
    "attention_compulsory",
    "attention_lower_bound",
    "attention_materialised",
    "attention_materialised_backward",
    "attention_order",
    "attention_scores_bound",
    "flash1",
    "flash1_backward",
    "flash1_block_sparse",
    "flash2",
    "flash2_backward",
    "flash2_causal",
    "flash2_rows",
    "published_tile",
]


def attention_compulsory(queries: Scalar, keys: Scalar, d: Scalar) -> Scalar:
    """Q and O of ``queries`` rows, K and V of ``keys`` rows, each crossing once.

    Examples
    --------
    >>> attention_compulsory(1024, 1024, 64)
    262144.0
    """
    return 2.0 * d * (queries + keys)


def attention_order(n: Scalar, d: Scalar, fast: Scalar) -> Scalar:
    r"""Order of the traffic beyond the compulsory: :math:`\Theta(\min(n^2 d^2/M,\; n^2 d/\sqrt M))`.

    For :math:`M \ge d^2` tiles of whole rows are optimal (FlashAttention), below it blocked products are; both meet in
    :math:`n^2` at :math:`M = d^2`. The backward pass has the same order in both regimes [2]_. Holds for exact
    attention, also with fast matrix multiplication; approximate attention can need less.

    References
    ----------
    .. [1] B. Saha, C. Ye, "The I/O complexity of attention, or how optimal is FlashAttention?", arXiv:2402.07443.
    .. [2] X. Li et al., "Fine-grained attention I/O complexity: comprehensive analysis for backward passes",
       arXiv:2410.09397.

    Examples
    --------
    >>> attention_order(1024, 64, 4096) == 1024.0**2
    True
    """
    return minimum(n * n * d * d / fast, n * n * d / sqrt(fast))


def attention_scores_bound(pairs: Scalar, d: Scalar, fast: Scalar, *, parts: Scalar = 1.0) -> Scalar:
    r"""Traffic that forming ``pairs`` scores of width d costs at least: :math:`P d^2/(M + d\sqrt M) - M`.

    Both regimes of :func:`attention_order` in one expression, with a constant. Cut any schedule into phases of M
    transfers. A score is the sum of d products before its exponential is taken. In one phase at most 2M elements of Q
    and K are at hand: they complete at most :math:`(M/d)^2` scores, :math:`M^2/d` products. Products of scores left
    unfinished number at most :math:`M^{3/2}` (Loomis-Whitney on 3M elements of Q, K and partial sums). So a phase
    does at most :math:`M^2/d + M^{3/2}` of the :math:`Pd` products.

    Parameters
    ----------
    pairs : (query, key) pairs of all heads; any mask.
    parts : memories of ``fast`` elements each that work side by side.

    Notes
    -----
    Classical products only; the statement of [1]_ has no such restriction and no explicit constant.

    References
    ----------
    .. [1] B. Saha, C. Ye, "The I/O complexity of attention, or how optimal is FlashAttention?", arXiv:2402.07443.

    Examples
    --------
    >>> round(attention_scores_bound(1024.0**2, 64.0, 4096.0))
    520192
    """
    return pairs * d * d / (fast + d * sqrt(fast)) - parts * fast


def attention_lower_bound(n: Scalar, d: Scalar, fast: Scalar) -> Scalar:
    """No classical exact algorithm moves less: the larger of compulsory and score traffic.

    Examples
    --------
    >>> attention_lower_bound(1024, 64, 65536) == attention_compulsory(1024, 1024, 64)
    True
    """
    return maximum(attention_compulsory(n, n, d), attention_scores_bound(n * n, d, fast))


def attention_materialised(queries: Scalar, keys: Scalar, d: Scalar, pointwise: Scalar = 0.0) -> Scalar:
    """Scores and probabilities written and read: four passes over them beside Q, K, V and O.

    Parameters
    ----------
    pointwise : kernels of their own on the scores (scale, mask, dropout), each a read and a write.

    Examples
    --------
    >>> attention_materialised(1024, 1024, 64)
    4456448.0
    """
    return attention_compulsory(queries, keys, d) + (4.0 + 2.0 * pointwise) * queries * keys


def attention_materialised_backward(queries: Scalar, keys: Scalar, d: Scalar, pointwise: Scalar = 0.0) -> Scalar:
    r"""Backward pass from stored probabilities: seven passes over the scores and twice the matrices.

    .. math:: 4d(n_q + n_k) + (7 + 2w)\,n_q n_k

    dV reads P; dP is written; the backward pass of the softmax reads dP and P and writes dS; dQ and dK read dS.

    Parameters
    ----------
    pointwise : kernels w of their own on the scores, as in :func:`attention_materialised`.

    Examples
    --------
    >>> attention_materialised_backward(1024, 1024, 64)
    7864320.0
    """
    return 2.0 * attention_compulsory(queries, keys, d) + (7.0 + 2.0 * pointwise) * queries * keys


def published_tile(d: Scalar, fast: Scalar) -> Scalar:
    """Rows of a tile in the FlashAttention papers: ``M / 4d``, a quarter of the fast memory each for Q, K, V and O.

    Examples
    --------
    >>> published_tile(64, 49152)
    192.0
    """
    return maximum(floor(fast / (4.0 * d)), 1.0)


def flash1(n: Scalar, d: Scalar, block: Scalar) -> Scalar:
    r"""FlashAttention: ``block`` keys and values resident, all queries pass by them.

    .. math:: 2nd + \lceil n/B_c \rceil (3nd + 4n)

    Per block of keys: Q and O are read, O is written, and the row maxima and sums are read and written.

    References
    ----------
    .. [1] T. Dao, D. Fu, S. Ermon, A. Rudra, C. Re, "FlashAttention", arXiv:2205.14135, algorithm 1.

    Examples
    --------
    >>> flash1(1024, 64, published_tile(64, 16384))
    3342336.0
    """
    return 2.0 * n * d + ceil(n / block) * (3.0 * n * d + 4.0 * n)


def flash1_backward(n: Scalar, d: Scalar, block: Scalar) -> Scalar:
    r"""Backward pass of FlashAttention: ``block`` keys, values and their gradients resident, all queries passing by.

    .. math:: 4nd + \lceil n/B_c \rceil (5nd + 2n) - nd

    Per block of keys: Q, O, dO, the row maxima and sums are read, dQ is read (not by the first block) and written.

    References
    ----------
    .. [1] T. Dao, D. Fu, S. Ermon, A. Rudra, C. Re, "FlashAttention", arXiv:2205.14135, algorithm 4 (which also
       initialises the gradients in slow memory).

    Examples
    --------
    >>> flash1_backward(1024, 64, 256)
    1515520.0
    """
    return 4.0 * n * d + ceil(n / block) * (5.0 * n * d + 2.0 * n) - n * d


def flash1_block_sparse(n: Scalar, d: Scalar, block: Scalar, share: Scalar) -> Scalar:
    r"""FlashAttention of which only a ``share`` of the (query block, key block) pairs is computed.

    .. math:: 2nd + s \lceil n/B_c \rceil (3nd + 4n)

    References
    ----------
    .. [1] T. Dao et al., "FlashAttention", arXiv:2205.14135, proposition 4: :math:`\Theta(nd + n^2 d^2 s / M)`.

    Examples
    --------
    >>> flash1_block_sparse(1024, 64, 64, 1.0) == flash1(1024, 64, 64)
    True
    """
    return 2.0 * n * d + share * ceil(n / block) * (3.0 * n * d + 4.0 * n)


def flash2_rows(d: Scalar, fast: Scalar) -> Scalar:
    """Most query rows that fit with their outputs, two statistics and a score each, beside one key and one value.

    Examples
    --------
    >>> flash2_rows(64, 16384)
    124.0
    """
    return floor((fast - 2.0 * d) / (2.0 * d + 3.0))


def flash2(queries: Scalar, keys: Scalar, d: Scalar, rows: Scalar) -> Scalar:
    r"""FlashAttention-2: ``rows`` queries and their outputs resident, all keys and values pass by them.

    .. math:: 2qd + q + \lceil q/B_r \rceil\, 2nd

    Q is read, O and one log-sum-exp per query are written once. Query heads that share keys count as more queries.

    References
    ----------
    .. [1] T. Dao, "FlashAttention-2", arXiv:2307.08691, algorithm 1.

    Examples
    --------
    >>> flash2(1024, 1024, 64, 128)
    1180672.0
    """
    return 2.0 * queries * d + queries + ceil(queries / rows) * 2.0 * keys * d


def flash2_causal(n: Scalar, d: Scalar, rows: Scalar) -> Scalar:
    r"""FlashAttention-2 under a causal mask: a query block reads the keys up to its last query.

    .. math:: 2nd + n + 2d\,(B_r\,T(T-1)/2 + n),\qquad T = \lceil n/B_r \rceil

    Examples
    --------
    >>> flash2_causal(1024, 64, 1024) == flash2(1024, 1024, 64, 1024)
    True
    """
    blocks = ceil(n / rows)
    return 2.0 * n * d + n + 2.0 * d * (rows * blocks * (blocks - 1.0) / 2.0 + n)


def flash2_backward(n: Scalar, d: Scalar, block: Scalar) -> Scalar:
    r"""Backward pass with ``block`` keys, values and their gradients resident, all queries passing by.

    .. math:: 6nd + n + \lceil n/B_c \rceil (4nd + 2n) - nd

    First the row sums of dO * O (2nd read, n written). Then per block of keys: Q, dO, log-sum-exp and row sums are
    read and dQ is read and written (not read by the first block); K, V are read and dK, dV written once. With
    ``block = M/8d`` four times the forward traffic; the same order in M, n and d.

    References
    ----------
    .. [1] T. Dao, "FlashAttention-2", arXiv:2307.08691, algorithm 2 (which also initialises dQ in slow memory).

    Examples
    --------
    >>> flash2_backward(1024, 64, 1024) / flash2(1024, 1024, 64, 1024) < 3
    True
    """
    return 6.0 * n * d + n + ceil(n / block) * (4.0 * n * d + 2.0 * n) - n * d


def attention_blocked_products(queries: Scalar, keys: Scalar, d: Scalar, fast: Scalar) -> Scalar:
    """Two blocked products with the softmax between them: what is optimal where the fast memory is below d * d.

    Examples
    --------
    >>> attention_blocked_products(4096, 4096, 256, 1024) < flash2(4096, 4096, 256, 1)
    True
    """
    scores = gemm_achievable(queries, keys, d, fast)
    return scores + queries * softmax_achievable(keys, fast) + gemm_achievable(queries, d, keys, fast)


def attention_achievable(queries: Scalar, keys: Scalar, d: Scalar, fast: Scalar) -> Scalar:
    """Least traffic of the known exact algorithms without a mask.

    Examples
    --------
    >>> attention_achievable(1024, 1024, 64, 16384) == flash2(1024, 1024, 64, flash2_rows(64, 16384))
    True
    """
    rows = flash2_rows(d, fast)
    tiled = where(rows >= 1.0, flash2(queries, keys, d, maximum(rows, 1.0)), float("inf"))
    return minimum(tiled, attention_blocked_products(queries, keys, d, fast))
