"""A denoiser as operator calls: its parts, cut by the sizes that parallelism left on one rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from perfmodel.elementwise import Scalar
from perfmodel.operators.attention import attention
from perfmodel.operators.convolution import convolution
from perfmodel.operators.layers import Call
from perfmodel.operators.streaming import elementwise
from perfmodel.specs.diffusion import Core, Denoiser, Part, Product, Stream
from perfmodel.units import Bytes

__all__ = ["ImageSizes", "denoiser_calls", "halo_bytes", "kept_bytes", "key_bytes", "product_flops"]


@dataclass(frozen=True)
class ImageSizes:
    """What one rank sees of one pass; every number may be an array.

    Parameters
    ----------
    samples : latent images in the pass: images, twice where guidance needs a second prediction.
    height, width : latent pixels of one image.
    split : ranks that share each image.
    seen : share of an image's keys that a query attends to [1].
    cross : cross-attention runs; else its last result is used again.
    text : tokens of the prompt.
    element_bytes : bytes per activation and weight [B].
    format : of the multiplications.
    """

    samples: Scalar
    height: Scalar
    width: Scalar
    split: Scalar = 1.0
    seen: Scalar = 1.0
    cross: bool = True
    text: Scalar = 77.0
    element_bytes: Bytes = 2.0
    format: str = "bf16"

    def pixels(self, scale: int) -> Scalar:
        """Pixels of one whole image at a resolution so many times coarser, or finer where negative."""
        return self.height * self.width * (1.0 / scale**2 if scale > 0 else float(scale**2))


def _rows(part: Product, s: ImageSizes) -> Scalar:
    if part.rows == "pixels":
        return s.samples * s.pixels(part.scale) / s.split
    return s.samples * s.text if part.rows == "text" else s.samples


def denoiser_calls(parts: Iterable[tuple[Part, int]], s: ImageSizes) -> list[Call]:
    """Operator calls of one pass, equal ones together; ``share`` counts them."""
    calls = []
    for part, count in parts:
        if not _rests(part, s):
            calls.append(_call(part, s)._replace(share=float(count)))
    return calls


def _rests(part: Part, s: ImageSizes) -> bool:
    """Whether a part belongs to cross-attention that does not run; its result is still added."""
    return part.role == "cross" and not s.cross and not (isinstance(part, Stream) and part.name == "addition")


def _call(part: Part, s: ImageSizes) -> Call:
    if isinstance(part, Product):
        work = convolution(
            _rows(part, s), part.inputs, part.outputs, taps=float(part.taps), stride=float(part.stride),
            element_bytes=s.element_bytes, weight_bytes=s.element_bytes, format=s.format,
        )  # fmt: skip
        name = "convolution" if part.taps > 1 else "matrix multiply"
        return Call(name, work, 1.0, component=name)
    pixels = s.pixels(part.scale)
    if isinstance(part, Core):
        keys = pixels * s.seen if part.role == "self" else s.text
        work = attention(
            s.samples, part.heads, part.heads, part.head_dim, part.head_dim, pixels / s.split, keys, causal=False,
            element_bytes=s.element_bytes, kv_bytes=s.element_bytes, format=s.format,
        )  # fmt: skip
        return Call(f"{part.role}-attention", work, 1.0, "attention core", "attention core")
    work = elementwise(
        s.samples * pixels / s.split * part.channels, reads=part.reads, writes=part.writes,
        flops_per_element=part.flops, element_bytes=s.element_bytes,
    )  # fmt: skip
    return Call("elementwise", work, 1.0, component="elementwise")


def product_flops(parts: Iterable[tuple[Part, int]], s: ImageSizes, *, cores: bool = True) -> Scalar:
    """Operations of products and convolutions, with or without attention cores [FLOP]."""
    total: Scalar = 0.0
    for part, count in parts:
        if isinstance(part, Stream) or (isinstance(part, Core) and not cores) or _rests(part, s):
            continue
        total = total + count * _call(part, s).work.flops
    return total


def key_bytes(denoiser: Denoiser, s: ImageSizes) -> list[tuple[Bytes, int]]:
    """Keys and values of whole images for every size of self-attention, and how many cores have it [B]."""
    cores = [(p, n) for p, n in denoiser.parts if isinstance(p, Core) and p.role == "self"]
    return [(2.0 * s.samples * s.pixels(p.scale) * p.heads * p.head_dim * s.element_bytes, n) for p, n in cores]


def halo_bytes(denoiser: Denoiser, s: ImageSizes) -> list[tuple[Bytes, Scalar, int]]:
    """Row of input pixels that a neighbour's convolution needs [B], rows of an image, and how many convolutions."""
    found = [(p, p.stride / p.scale, n) for p, n in denoiser.parts if isinstance(p, Product) and p.taps == 9]
    return [(s.samples * s.width * finer * p.inputs * s.element_bytes, s.height * finer, n) for p, finer, n in found]


def kept_bytes(denoiser: Denoiser, s: ImageSizes) -> Bytes:
    """Activations alive at the same time on one rank: those kept for later blocks, and three of the largest [B]."""
    each = s.samples * s.element_bytes / s.split
    kept: Scalar = sum(channels * s.pixels(scale) for channels, scale in denoiser.skips)
    widest = max(p.channels / p.scale**2 for p, _ in denoiser.parts if isinstance(p, Stream))
    return each * (kept + 3.0 * widest * s.height * s.width)
