"""Operator calls as training makes them: plain products for experts, and the backward pass of every call."""

from __future__ import annotations

from perfmodel.operators import streaming
from perfmodel.operators.formats import storage
from perfmodel.operators.gemm import gemm
from perfmodel.operators.layers import Call

__all__ = ["backward_of", "casts", "narrow", "unfused"]

WIDE = 2.0
"""Bytes of a number that is multiplied as the model computes it [B]."""


def backward_of(call: Call) -> list[Call]:
    """Calls of the backward pass of ``call``: both gradients of a product, 2.5 times the pairs of fused attention.

    A product's input gradient is ``dX[m, k] = dY[m, n] @ W.T`` and its weight gradient ``dW[k, n] = X.T @ dY``. Fused
    attention recomputes the scores and forms four products instead of two; with keys, values and their gradients
    resident its tiles are half as high and four streams pass by instead of two, so its re-reads are four times the
    forward ones (:func:`perfmodel.operators.bounds.attention.flash2_backward`), of the same order as its bound.
    Streaming operators read and write about twice.
    """
    work = call.work
    if work.operator == "gemm":
        m, n, k, batch = work.shape
        element = 2.0
        inputs = gemm(m, k, n, batch=batch, element_bytes=element, format=work.format)
        weights = gemm(k, n, m, batch=batch, element_bytes=element, format=work.format)
        return [call._replace(work=inputs), call._replace(work=weights, of_weights=True)]
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


def narrow(call: Call) -> Call:
    """A product whose operands :func:`casts` have written in its format; any other call as it is."""
    work = call.work
    if work.operator != "gemm" or not _cast(call):
        return call
    return call._replace(work=work._replace(kernels=work.kernels or work.format))


def casts(call: Call, *, backward: bool) -> list[Call]:
    """Passes that write an operand of a product in a narrow format, along its rows and along its columns.

    The input forward, the gradient of the output backward: each is multiplied twice, once in either layout, and each is
    read twice, first for its scale. Weights are cast once a step.
    """
    if call.work.operator != "gemm" or not _cast(call):
        return []
    m, n, k, batch = call.work.shape
    elements = batch * m * (n if backward else k)
    size = storage(call.work.format).bytes
    work = streaming.elementwise(elements, reads=2.0, writes=size, flops_per_element=4.0)
    return [Call("casts", work, call.share, call.region, component="casts")]


def _cast(call: Call) -> bool:
    return storage(call.work.format).bytes < WIDE


def unfused(call: Call) -> list[Call]:
    """Calls that training makes of fused experts: its libraries group plain products, expert by expert.

    Copies are sorted by expert, multiplied, activated, multiplied and put back in order; fused kernels of inference
    engines, which do all of it at once, have no backward pass.
    """
    work = call.work
    if work.routed is None:
        return [call]
    (rows, width, hidden, active), gated = work.shape, work.routed.gated
    products = ((1.0 + gated) * width, hidden), (hidden, width)
    calls = [
        call._replace(work=gemm(rows / active, n, k, batch=active, format=work.format)._replace(kernels=work.kernels))
        for n, k in products
    ]
    sorting = streaming.elementwise(rows * hidden, reads=2.0, writes=2.0, flops_per_element=1.0)
    inner = streaming.elementwise(rows * width, reads=1.0 + gated, writes=1.0, flops_per_element=6.0)
    around = [Call("elementwise", part, call.share, component="elementwise") for part in (sorting, inner)]
    return [*calls, *around]
