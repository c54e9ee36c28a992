"""What drafts tokens for a model to verify, as records: heads, layers or a model, how far and how many candidates."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from perfmodel.errors import SpecError
from perfmodel.specs.facts import Number, Spec
from perfmodel.specs.records import Records

__all__ = ["DRAFTERS", "Drafter", "drafter", "drafters"]

Count = Annotated[int, Field(ge=0)]
Some = Annotated[int, Field(ge=1)]


class Drafter(Spec):
    """One drafter; the head of ``drafters.yaml`` says what each line means."""

    title: str
    takes: Literal["model", "share"] | None = None
    model: str | None = None
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    depth: Some
    branching: Some = 1
    sizes: tuple[Some, ...]
    together: bool = False
    prefix: Count = 0
    layers: Count = 0
    experts: bool = False
    matrices: tuple[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], ...] = ()
    growing: tuple[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], ...] = ()
    one_for_all: bool = False
    head: Literal["own", "model", "none"] = "none"
    head_rows: Some | None = None
    lossless: bool = True
    fade: Number
    breadth: Number
    source: str

    @model_validator(mode="after")
    def _consistent(self) -> Drafter:
        if self.together and (self.layers or self.growing):
            raise ValueError("what drafts all positions together has neither `layers` nor `growing` matrices")
        if self.branching == 1 and max(self.sizes) > self.depth:
            raise ValueError(f"a chain of {self.depth} positions has no more tokens; see `sizes`")
        if self.fade.value > 1.0:
            raise ValueError("`fade` is at most 1")
        return self


DRAFTERS = Records("drafter", "drafters", Drafter, Path(__file__).parent / "drafters.yaml")


def drafters() -> Mapping[str, Drafter]:
    """Every shipped drafter by name."""
    return DRAFTERS.shipped()


@lru_cache(maxsize=64)
def drafter(name: str) -> Drafter:
    """Return the drafter of that name; ``draft-model:NAME`` and ``early-exit:SHARE`` say which model, how much of it.

    Raises
    ------
    UnknownName
        If there is none.
    SpecError
        If what stands behind the colon is missing or does not fit.
    """
    head, colon, argument = name.partition(":")
    record = DRAFTERS.get(head)
    if record.takes is None:
        if colon:
            raise SpecError("this drafter has nothing to choose", field="speculation", found=name, allowed=head)
        return record
    if not colon:
        if getattr(record, record.takes) is not None:
            return record
        example = {"model": "llama-3.2-1b", "share": "0.25"}[record.takes]
        raise SpecError(f"say which {record.takes}", field="speculation", found=name, allowed=f"{head}:{example}")
    return record.model_copy(update={record.takes: _share(name, argument) if record.takes == "share" else argument})


def _share(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise SpecError("a share of the layers is needed", field="speculation", found=name, allowed="between 0 and 1")
    return value
