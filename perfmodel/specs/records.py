"""Tables of records that a technique chooses from: shipped ones by name, and a user's own by the path of a file.

A table is a YAML file with ``sources`` and one mapping from names to records. A file of one's own has the same shape
and holds one record; its path stands wherever a name of the table may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import create_model, model_validator

from perfmodel.errors import UnknownName
from perfmodel.specs.facts import FieldError, Spec
from perfmodel.specs.load import parse
from perfmodel.specs.sources import check_sources
from perfmodel.specs.yamlfile import Document, read

__all__ = ["OFF", "Records"]

LISTED = 24
"""Names that a message lists."""

OFF = "none"
"""The value of a column that chooses no record."""

Record = TypeVar("Record", bound=Spec)


class _File(Spec):
    """A table as it stands in a file."""

    sources: dict[str, str]

    @model_validator(mode="after")
    def _sources_exist(self) -> _File:
        check_sources(self, self.sources)
        for shelf in type(self).model_fields:
            for name, record in getattr(self, shelf).items():
                named = getattr(record, "source", None)
                if shelf != "sources" and named is not None and named not in self.sources:
                    known = ", ".join(self.sources) or "none defined"
                    where = (shelf, name, "source")
                    raise FieldError("the source is not defined under `sources`", where, found=named, allowed=known)
        return self


@dataclass(frozen=True)
class Records(Generic[Record]):
    """One table.

    Parameters
    ----------
    kind : what messages call a record, as ``weight format``.
    shelf : key of the mapping in the file.
    record : what a record is.
    file : the shipped table.
    """

    kind: str
    shelf: str
    record: type[Record]
    file: Path

    def shipped(self) -> Mapping[str, Record]:
        """Every shipped record by name."""
        return cast(Mapping[str, Record], _shelf(self, self.file))

    def get(self, name: str) -> Record:
        """Return the record of that name, or that of a file.

        Raises
        ------
        UnknownName
            If there is none.
        SpecError
            If a file says something that is wrong, or holds more or less than one record.
        """
        shipped = self.shipped()
        if name in shipped:
            return shipped[name]
        if name.endswith((".yaml", ".yml")):
            return cast(Record, _own(self, name))
        listed = "there are " + ", ".join(shipped) if len(shipped) <= LISTED else "perfmodel specs formats lists them"
        remedy = f"{listed}; or give the path of a YAML file with one under `{self.shelf}`"
        raise UnknownName(self.kind, name, shipped, remedy=remedy)

    def has(self, name: str) -> bool:
        """Whether a name is one of the table's, or of a file that can hold a record."""
        return name in self.shipped() or name.endswith((".yaml", ".yml"))


@lru_cache(maxsize=16)
def _model(table: Records[Any]) -> type[_File]:
    shelves: dict[str, Any] = {table.shelf: (dict[str, table.record], ...)}  # type: ignore[name-defined]
    return create_model("Table", __base__=_File, **shelves)


def _parsed(table: Records[Any], document: Document) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], getattr(parse(_model(table), document), table.shelf))


@lru_cache(maxsize=16)
def _shelf(table: Records[Any], path: Path) -> Mapping[str, Any]:
    return _parsed(table, read(path))


@lru_cache(maxsize=16)
def _own(table: Records[Any], path: str) -> Any:
    document = read(Path(path))
    found = _parsed(table, document)
    if len(found) != 1:
        raise document.error("a file of one's own holds one record", (table.shelf,), found=len(found), allowed="1")
    return next(iter(found.values()))
