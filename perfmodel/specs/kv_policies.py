"""What happens to cached keys and values, as records: which tokens stay, which of them a query reads."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from perfmodel.errors import UnknownName
from perfmodel.specs.facts import Spec
from perfmodel.specs.load import parse
from perfmodel.specs.yamlfile import read

__all__ = ["Clusters", "KvPolicy", "kv_policies", "kv_policy"]

Share = Annotated[float, Field(gt=0, le=1)]


class Clusters(Spec):
    """One level of clusters, each of so many tokens, of which a query is compared with a share."""

    tokens: Annotated[float, Field(gt=1)]
    compared: Share = 1.0


class KvPolicy(Spec):
    """One policy; the head of ``kv_policies.yaml`` says what each line means."""

    title: str
    kept: Share = 1.0
    budget: Annotated[int, Field(gt=0)] | None = None
    scored: bool = False
    read: Share = 1.0
    levels: tuple[Clusters, ...] = ()
    source: str

    @model_validator(mode="after")
    def _does_something(self) -> KvPolicy:
        if (self.read < 1.0) != bool(self.levels):
            raise ValueError("`read` below 1 and `levels` belong together")
        if self.kept == 1.0 and self.budget is None and not self.levels:
            raise ValueError("write `kept`, `budget`, or `read` with `levels`")
        return self

    @property
    def clusters(self) -> float:
        """Clusters per token of the fixed context, of all levels: keys without values that are stored beside it."""
        return sum(1.0 / level.tokens for level in self.levels)

    @property
    def compared(self) -> float:
        """Clusters per token of the fixed context that a query is compared with."""
        return sum(level.compared / level.tokens for level in self.levels)


class _File(Spec):
    """The shipped policies."""

    sources: dict[str, str]
    policies: dict[str, KvPolicy]

    @model_validator(mode="after")
    def _sources_exist(self) -> _File:
        for name, record in self.policies.items():
            if record.source not in self.sources:
                raise ValueError(f"`{name}` names a source that is not listed: {record.source}")
        return self


@lru_cache(maxsize=1)
def kv_policies() -> dict[str, KvPolicy]:
    """Every shipped policy by name."""
    return parse(_File, read(Path(__file__).parent / "kv_policies.yaml")).policies


def kv_policy(name: str) -> KvPolicy:
    """Return the policy of that name.

    Raises
    ------
    UnknownName
        If there is none.
    """
    found = kv_policies()
    if name not in found:
        raise UnknownName("policy of the KV cache", name, found, remedy="there are " + ", ".join(found))
    return found[name]
