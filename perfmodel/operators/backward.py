"""The backward pass of operator calls: gradients of products, of attention, of streaming operators, of experts."""

from __future__ import annotations

from perfmodel.operators import streaming
from perfmodel.operators.gemm import gemm
from perfmodel.operators.layers import Call

__all__ = ["backward_of"]


def backward_of(call: Call) -> list[Call]:
    """Calls of the backward pass of ``call``: both gradients of a product, 2.5 times the pairs of fused attention.

    A product's input gradient is ``dX[m, k] = dY[m, n] @ W.T`` and its weight gradient ``dW[k, n] = X.T @ dY``. Fused
    attention recomputes the scores and forms four products instead of two; with keys, values and their gradients
    resident its tiles are half as high and four streams pass by instead of two, so its re-reads are four times the
    forward ones (:func:`perfmodel.operators.bounds.attention.flash2_backward`), of the same order as its bound.
    Streaming operators read and write about twice. The input gradients of fused experts are the same two grouped
    products the other way round; their weight gradients are products of their own.
    """
    work = call.work
    if work.operator == "gemm":
        m, n, k, batch = work.shape
        element = 2.0
        inputs = gemm(m, k, n, batch=batch, element_bytes=element, format=work.format)
        weights = gemm(k, n, m, batch=batch, element_bytes=element, format=work.format)
        return [call._replace(work=inputs), call._replace(work=weights, of_weights=True)]
    if work.routed is not None:
        return [call, *_expert_gradients(call)]
    fused = work.operator in ("attention", "latent_attention")
    factor = 2.5 if fused else 2.0
    return [
        call._replace(
            work=work._replace(
                flops=work.flops * factor,
                compulsory_bytes=work.compulsory_bytes * 2.0,
                reuse=work.reuse * 4.0,
                shape=work.shape._replace(n=work.shape.n * factor) if fused else work.shape,
            )
        )
    ]


def _expert_gradients(call: Call) -> list[Call]:
    """Weight gradients of both grouped products, expert by expert, and the backward pass of the activation."""
    rows, width, hidden, active = call.work.shape
    gated = 0.0 if call.work.routed is None else call.work.routed.gated
    up, down = ((hidden, (1.0 + gated) * width), (width, hidden))
    products = [gemm(m, n, rows / active, batch=active, format=call.work.format) for m, n in (up, down)]
    inner = streaming.elementwise(rows * width, reads=2.0 * (1.0 + gated), writes=2.0, flops_per_element=10.0)
    of_weights = [call._replace(work=work, of_weights=True) for work in products]
    return [*of_weights, Call("elementwise", inner, call.share, component="elementwise")]
