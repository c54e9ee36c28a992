"""Models and workloads of image generation: files like those of language models, in folders of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from perfmodel.errors import SpecError
from perfmodel.specs.diffusion import Denoiser, read_denoiser
from perfmodel.specs.facts import FieldError, Spec
from perfmodel.specs.load import parse
from perfmodel.specs.locate import find_image_model, find_image_workload, image_model_names, image_workload_names
from perfmodel.specs.model import ModelFile
from perfmodel.specs.yamlfile import Document, read
from perfmodel.units import UnitError, parse_quantity

__all__ = ["ImageModel", "ImageWorkload", "asks_for_images", "load_image_model", "load_image_workload", "revise_images"]

Pixels = Annotated[int, Field(gt=0, le=65536)]


def _seconds(data: object) -> object:
    if data is None or not isinstance(data, str):
        return data
    try:
        return parse_quantity(data, "s")
    except UnitError as error:
        raise ValueError(str(error)) from error


class ImageWorkload(Spec):
    """Make images of so many pixels in so many steps."""

    kind: Literal["image"]
    name: str
    aliases: tuple[str, ...] = ()
    notes: str = ""
    height: Pixels = 1024
    width: Pixels = 1024
    steps: Annotated[int, Field(gt=0)] = 50
    """Passes of the denoiser."""
    guidance: bool = True
    """Every step predicts twice, with the prompt and without it."""
    decode: bool = True
    """Turn the latent into an image at the end."""
    latency: Annotated[float | None, BeforeValidator(_seconds)] = None
    """Longest time from prompt to image [s]."""

    @model_validator(mode="after")
    def _limit(self) -> ImageWorkload:
        if self.latency is not None and self.latency <= 0.0:
            raise FieldError("must be greater than zero", ("latency",))
        return self


@dataclass(frozen=True)
class ImageModel:
    """A diffusion model that can be planned for."""

    name: str
    source: str
    denoiser: Denoiser

    @property
    def parameters(self) -> int:
        """Exact number of parameters of the denoiser."""
        return self.denoiser.parameters


def load_image_model(name: str | Path) -> ImageModel:
    """Return the diffusion model of that name or path: ours around a configuration, or a ``config.json``.

    Raises
    ------
    SpecError
        Naming the field that is missing or not understood.
    """
    document = read(find_image_model(name))
    if "config" not in document.data:
        return ImageModel(document.path.stem, str(document.path), _denoiser(document, document.data))
    file = parse(ModelFile, document)
    return ImageModel(file.name, file.source, _denoiser(document, file.config))


def _denoiser(document: Document, config: Mapping[str, object]) -> Denoiser:
    try:
        return read_denoiser(config)
    except SpecError as error:
        raise SpecError(
            error.message, file=str(document.path), field=error.field, found=error.found, allowed=error.allowed
        ) from None


def load_image_workload(name: str | Path) -> ImageWorkload:
    """Return the workload of that name or path."""
    return parse(ImageWorkload, read(find_image_workload(name)))


def revise_images(workload: ImageWorkload, changes: Mapping[str, object]) -> ImageWorkload:
    """Return the workload with some fields changed, checked like a file."""
    data = {**{n: getattr(workload, n) for n in type(workload).model_fields}, **changes}
    return parse(ImageWorkload, Document(Path(workload.name), {n: v for n, v in data.items() if v is not None}))


def asks_for_images(model: str | Path, workload: str | Path | None) -> bool:
    """Whether a model or a workload is one of image generation, told by its name or its file."""
    names = {n for e in image_model_names() for n in (e.name, *e.aliases)}
    works = {n for e in image_workload_names() for n in (e.name, *e.aliases)}
    if str(model) in names or str(workload) in works:
        return True
    return _says(model, "_class_name") or (workload is not None and _says(workload, "kind: image"))


def _says(name: str | Path, words: str) -> bool:
    path = Path(name)
    try:
        return path.is_file() and words in path.read_text(encoding="utf-8", errors="replace")[:20000]
    except OSError:
        return False
