"""Denoisers of diffusion models as the cost model sees them: blocks made of products, attention cores and streams.

The same idea as language models (:mod:`perfmodel.specs.architecture`): **parameters, weight bytes and operators are
readings of one list**. What differs is that sizes follow the image: a part works on the pixels of its own resolution,
which the list names, and a convolution is a product over the pixels under its kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from perfmodel.errors import SpecError

__all__ = ["Core", "Denoiser", "Part", "Product", "Stream", "read_denoiser"]

Rows = Literal["pixels", "image", "text"]


class Product(NamedTuple):
    """A matrix: a linear layer, or a convolution as a product over the ``taps`` pixels under its kernel.

    Parameters
    ----------
    name : what it is.
    inputs, outputs : channels.
    scale : how much coarser than the latent image its output is, per side.
    taps : pixels of the kernel; 1 for a linear layer.
    stride : input pixels per output pixel, per side.
    rows : one row per pixel, per image (time and pooled text), or per token of the text.
    bias : with one number per output.
    role : ``cross`` for what cross-attention computes, ``self`` for what self-attention sends to others, else ``""``.
    """

    name: str
    inputs: int
    outputs: int
    scale: int = 1
    taps: int = 1
    stride: int = 1
    rows: Rows = "pixels"
    bias: bool = True
    role: str = ""

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.taps * self.inputs * self.outputs + (self.outputs if self.bias else 0)


class Core(NamedTuple):
    """Softmax attention among the pixels of one resolution (``self``) or from them to the text (``cross``)."""

    role: str
    heads: int
    head_dim: int
    scale: int = 1

    @property
    def parameters(self) -> int:
        """None."""
        return 0


class Stream(NamedTuple):
    """An operator that streams ``channels`` per pixel: norms, activations, additions, concatenations."""

    name: str
    channels: int
    scale: int = 1
    reads: float = 1.0
    writes: float = 1.0
    flops: float = 5.0
    parameters: int = 0
    role: str = ""


Part = Product | Core | Stream


@dataclass(frozen=True)
class Denoiser:
    """A network that predicts the noise of a latent image, once per step.

    Parameters
    ----------
    family : class of the published code it was read from.
    parts : (part, how often), everything that one pass runs.
    vae : the same of the decoder that turns the latent into an image.
    channels : of the latent.
    side : pixels of the image per pixel of the latent, per side.
    text_tokens : tokens of the prompt after padding.
    skips : (channels, scale) of activations kept until a later block needs them.
    multiple : sides of the image must be multiples of this.
    vae_formats : number formats in which the decoder may run, the first that an engine has: 32 bits where 16 overflow.
    extra : parameters that cost nothing: tables of positions and modulations.
    sample : side of the image it was trained for.
    """

    family: str
    parts: tuple[tuple[Part, int], ...]
    vae: tuple[tuple[Part, int], ...]
    channels: int
    side: int
    text_tokens: int
    skips: tuple[tuple[int, int], ...]
    multiple: int
    sample: int
    vae_formats: tuple[str, ...] = ("bf16",)
    extra: int = 0

    @property
    def parameters(self) -> int:
        """Exact number of parameters of the denoiser."""
        return sum(part.parameters * count for part, count in self.parts) + self.extra

    @property
    def vae_parameters(self) -> int:
        """Exact number of parameters of the decoder."""
        return sum(part.parameters * count for part, count in self.vae)


class _Parts:
    """A list in the making."""

    def __init__(self) -> None:
        self.found: dict[Part, int] = {}

    def add(self, *parts: Part) -> None:
        for part in parts:
            self.found[part] = self.found.get(part, 0) + 1

    def conv(self, name: str, inputs: int, outputs: int, scale: int, taps: int = 9, stride: int = 1) -> None:
        self.add(Product(name, inputs, outputs, scale, taps, stride))

    def norm(self, channels: int, scale: int, *, silu: bool = False, role: str = "", affine: bool = True) -> None:
        """A normalisation; its activation runs in the same kernel."""
        parameters = 2 * channels if affine else 0
        self.add(Stream("norm", channels, scale, flops=8.0 if silu else 5.0, parameters=parameters, role=role))

    def plus(self, channels: int, scale: int, role: str = "") -> None:
        self.add(Stream("addition", channels, scale, reads=2.0, flops=1.0, role=role))

    def resnet(self, inputs: int, outputs: int, scale: int, time: int) -> None:
        """Two convolutions behind norms, the time embedding added between them, and a shortcut."""
        self.norm(inputs, scale, silu=True)
        self.conv("convolution", inputs, outputs, scale)
        if time:
            self.add(Product("time", time, outputs, rows="image"))
            self.plus(outputs, scale)
        self.norm(outputs, scale, silu=True)
        self.conv("convolution", outputs, outputs, scale)
        if inputs != outputs:
            self.conv("shortcut", inputs, outputs, scale, taps=1)
        self.plus(outputs, scale)

    def attention(
        self, width: int, heads: int, scale: int, *, text: int | None = None, bias: bool = False, affine: bool = True
    ) -> None:
        """Norm, projections, core, output, addition; ``text`` is the width of the text for cross-attention."""
        role = "self" if text is None else "cross"
        self.norm(width, scale, role=role, affine=affine)
        keys = Product("keys", width if text is None else text, 2 * width, scale, bias=bias, role=role)
        if text is not None:
            keys = keys._replace(rows="text", scale=1)
        self.add(
            Product("queries", width, width, scale, bias=bias, role=role), keys,
            Core(role, heads, width // heads, scale), Product("output", width, width, scale, role=role),
        )  # fmt: skip
        self.plus(width, scale, role)

    def feed_forward(self, width: int, scale: int, *, gated: bool, affine: bool = True) -> None:
        self.norm(width, scale, affine=affine)
        inner = 4 * width
        self.add(
            Product("up", width, 2 * inner if gated else inner, scale),
            Stream("activation", inner, scale, reads=2.0 if gated else 1.0, flops=6.0),
            Product("down", inner, width, scale),
        )
        self.plus(width, scale)

    def transformer(self, width: int, heads: int, layers: int, scale: int, text: int) -> None:
        """Spatial transformer: projections in and out around layers of self-attention, cross-attention, GEGLU."""
        self.norm(width, scale)
        self.add(Product("projection", width, width, scale), Product("projection", width, width, scale))
        for _ in range(layers):
            self.attention(width, heads, scale)
            self.attention(width, heads, scale, text=text)
            self.feed_forward(width, scale, gated=True)
        self.plus(width, scale)


def _decoder(latent: int, channels: tuple[int, ...] = (128, 256, 512, 512), layers: int = 3) -> _Parts:
    """Decoder of the variational autoencoder that all of these models use; scales are fractions of the latent's."""
    parts, top = _Parts(), channels[-1]
    up = len(channels) - 1
    parts.add(Product("to decoder", latent, latent))
    parts.conv("convolution", latent, top, 1)
    parts.resnet(top, top, 1, 0)
    parts.norm(top, 1)
    parts.add(
        Product("queries", top, top), Product("keys", top, 2 * top), Core("self", 1, top), Product("output", top, top)
    )
    parts.plus(top, 1)
    parts.resnet(top, top, 1, 0)
    before = top
    for i, width in enumerate(reversed(channels)):
        for layer in range(layers):
            parts.resnet(before if layer == 0 else width, width, -(2**i), 0)
        if i < up:
            parts.conv("enlarging", width, width, -(2 ** (i + 1)))
        before = width
    parts.norm(channels[0], -(2**up), silu=True)
    parts.conv("convolution", channels[0], 3, -(2**up))
    return parts


Read = Callable[[str, Any], Any]
WIDE = ("tf32", "fp32", "bf16")
"""Formats of products in 32 bits, fastest first, and what remains where an engine has none."""


def _per_block(value: Any, count: int) -> list[int]:
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)] * count


def _unet(get: Read) -> Denoiser:
    """UNet of Stable Diffusion: residual blocks, spatial transformers where the block's name says so."""
    widths = _per_block(get("block_out_channels", None), 0)
    count, layers, text = len(widths), int(get("layers_per_block", 2)), int(get("cross_attention_dim", 768))
    latent, time = int(get("in_channels", 4)), 4 * widths[0]
    heads = _per_block(get("attention_head_dim", 8), count)  # the field of that name counts heads
    depth = _per_block(get("transformer_layers_per_block", 1), count)
    down, up = list(get("down_block_types", None)), list(get("up_block_types", None))
    parts, skips = _Parts(), [(widths[0], 1)]
    parts.conv("convolution", latent, widths[0], 1)
    parts.add(Product("time", widths[0], time, rows="image"), Product("time", time, time, rows="image"))
    pooled = get("projection_class_embeddings_input_dim", 0)
    if pooled:
        parts.add(Product("time", int(pooled), time, rows="image"), Product("time", time, time, rows="image"))
    before = widths[0]
    for i, (width, kind) in enumerate(zip(widths, down, strict=True)):
        scale = 2**i
        for _ in range(layers):
            parts.resnet(before, width, scale, time)
            if "CrossAttn" in kind:
                parts.transformer(width, heads[i], depth[i], scale, text)
            before = width
            skips.append((width, scale))
        if i < count - 1:
            parts.conv("halving", width, width, 2 * scale, stride=2)
            skips.append((width, 2 * scale))
    last, scale = count - 1, 2 ** (count - 1)
    parts.resnet(before, before, scale, time)
    parts.transformer(before, heads[last], depth[last], scale, text)
    parts.resnet(before, before, scale, time)
    kept = list(skips)
    for i, kind in zip(reversed(range(count)), up, strict=True):
        for _ in range(layers + 1):
            skip, scale = kept.pop()[0], 2**i
            parts.add(Stream("concatenation", before + skip, scale, flops=0.0))
            parts.resnet(before + skip, widths[i], scale, time)
            if "CrossAttn" in kind:
                parts.transformer(widths[i], heads[i], depth[i], scale, text)
            before = widths[i]
        if i:
            parts.conv("enlarging", before, before, scale // 2)
    parts.norm(widths[0], 1, silu=True)
    parts.conv("convolution", widths[0], int(get("out_channels", 4)), 1)
    sample = 8 * int(get("sample_size", 64))
    return Denoiser(
        "UNet2DConditionModel", tuple(parts.found.items()), tuple(_decoder(latent).found.items()), latent, 8, 77,
        tuple(skips), 8 * 2 ** (count - 1), sample, WIDE if get("force_upcast", False) else ("bf16",),
    )  # fmt: skip


def _pixart(get: Read) -> Denoiser:
    """Diffusion transformer with cross-attention and one shared modulation of all layers (PixArt)."""
    heads, head_dim = int(get("num_attention_heads", 16)), int(get("attention_head_dim", 72))
    width, layers, patch = heads * head_dim, int(get("num_layers", 28)), int(get("patch_size", 2))
    latent, caption = int(get("in_channels", 4)), int(get("caption_channels", 4096))
    sample = int(get("sample_size", 128))
    parts = _Parts()
    parts.conv("patches", latent, width, patch, taps=patch * patch, stride=patch)
    parts.add(Product("time", 256, width, rows="image"), Product("time", width, width, rows="image"))
    if sample == 128:  # size and aspect ratio: three embeddings of a third of the width
        for _ in range(2):
            parts.add(
                Product("time", 256, width // 3, rows="image"), Product("time", width // 3, width // 3, rows="image")
            )
    parts.add(Product("time", width, 6 * width, rows="image"))
    parts.add(
        Product("caption", caption, width, rows="text", role="cross"),
        Product("caption", width, width, rows="text", role="cross"),
    )
    for _ in range(layers):
        parts.attention(width, heads, patch, bias=True, affine=False)
        parts.attention(width, heads, patch, text=width, bias=True, affine=False)
        parts.feed_forward(width, patch, gated=False, affine=False)
        parts.add(*(Stream("modulation", width, patch, flops=2.0) for _ in range(2)))
    parts.norm(width, patch, affine=False)
    parts.add(Product("projection", width, patch * patch * int(get("out_channels", 8)), patch))
    return Denoiser(
        "PixArtTransformer2DModel", tuple(parts.found.items()), tuple(_decoder(latent).found.items()), latent, 8, 120,
        (), 8 * patch, 8 * sample, extra=layers * 6 * width + 2 * width,
    )  # fmt: skip


CLASSES: Mapping[str, Callable[[Read], Denoiser]] = {
    "UNet2DConditionModel": _unet,
    "PixArtTransformer2DModel": _pixart,
}


def read_denoiser(config: Mapping[str, Any]) -> Denoiser:
    """Translate the ``config.json`` of a published denoiser.

    Raises
    ------
    SpecError
        Naming the field that is missing or not understood.
    """
    name = config.get("_class_name")
    if name not in CLASSES:
        raise SpecError("is not supported", field="config._class_name", found=name, allowed=", ".join(CLASSES))
    needed = object()

    def get(field: str, default: Any) -> Any:
        value = config.get(field, needed)
        if value is needed or value is None:
            if default is None:
                raise SpecError("is required", field=f"config.{field}")
            return default
        return value

    try:
        return CLASSES[str(name)](get)
    except (TypeError, ValueError, IndexError) as error:
        raise SpecError(f"cannot be read: {error}", field="config", found=name) from None
