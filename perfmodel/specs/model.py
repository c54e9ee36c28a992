"""A model a user may name: our YAML file around a HuggingFace configuration, or any ``config.json`` as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from perfmodel.specs.architecture import Architecture
from perfmodel.specs.huggingface import Where, read_config
from perfmodel.specs.load import parse
from perfmodel.specs.yamlfile import Document, read

__all__ = ["Model", "ModelFile", "load_model"]


class ModelFile(BaseModel):
    """A file of ``models/``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    """What reports print."""
    aliases: tuple[str, ...] = ()
    """What else it can be called on the command line; unique over all files."""
    source: str = Field(min_length=1)
    """Where the dimensions come from."""
    license: str | None = None
    """Licence of the released weights."""
    notes: str | None = None
    """What a reader of the numbers should know."""
    config: dict[str, Any]
    """The fields of the HuggingFace ``config.json`` that say the structure."""


@dataclass(frozen=True)
class Model:
    """A model that can be planned for."""

    name: str
    aliases: tuple[str, ...]
    source: str
    architecture: Architecture

    @property
    def parameters(self) -> int:
        """Exact number of parameters."""
        return self.architecture.parameters

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes."""
        return self.architecture.active_parameters


def load_model(path: Path) -> Model:
    """Read a model file: ours (YAML or JSON with ``name`` and ``config``) or a ``config.json``.

    Raises
    ------
    SpecError
        With file, line and field (``config.num_attention_heads``) of what is wrong.
    """
    document = read(Path(path))
    return _plain(document) if _is_plain(document) else _ours(document)


def _is_plain(document: Document) -> bool:
    """Whether the file is a configuration itself rather than one of ours around it."""
    return "config" not in document.data and (document.path.suffix.lower() == ".json" or "model_type" in document.data)


def _ours(document: Document) -> Model:
    file = parse(ModelFile, document)
    architecture = read_config(file.config, where=_place(document), prefix=("config",))
    return Model(file.name, file.aliases, file.source, architecture)


def _plain(document: Document) -> Model:
    architecture = read_config(document.data, where=_place(document))
    return Model(_name(document), (), str(document.path), architecture)


def _name(document: Document) -> str:
    """Return the last part of ``_name_or_path``, else the file's name (its folder's if that is only ``config``)."""
    given = document.data.get("_name_or_path")
    if isinstance(given, str) and given.strip("/. "):
        return given.rstrip("/").rsplit("/", 1)[-1]
    path = document.path.resolve()
    return path.parent.name if path.stem == "config" and path.parent.name else path.stem


def _place(document: Document) -> Where:
    return lambda path: (str(document.path), document.line(path))
