"""What happens to cached keys and values, as records: which tokens stay, which of them a query reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from perfmodel.specs.facts import Spec
from perfmodel.specs.records import Records

__all__ = ["POLICIES", "Clusters", "KvPolicy", "kv_policies", "kv_policy"]

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


POLICIES = Records("policy of the KV cache", "policies", KvPolicy, Path(__file__).parent / "kv_policies.yaml")


def kv_policies() -> Mapping[str, KvPolicy]:
    """Every shipped policy by name."""
    return POLICIES.shipped()


def kv_policy(name: str) -> KvPolicy:
    """Return the policy of that name, or in that file; ``UnknownName`` if there is none."""
    return POLICIES.get(name)
