"""Reading fields of a configuration: every field is read by name, checked, and remembered.

What a family does not read and what is not in :data:`HARMLESS` has an unknown effect on the structure, so
:meth:`Fields.finish` refuses it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from perfmodel.errors import SpecError
from perfmodel.specs.huggingface.harmless import EXPECTED, HARMLESS, HARMLESS_ENDS, HARMLESS_STARTS

__all__ = ["ALIASES", "Fields", "Switch", "Where"]

Path = tuple[str | int, ...]
Where = Callable[[Path], tuple[str | None, int | None]]
"""Says in which file and line the field of a path stands."""

Switch = bool | str
"""A fixed answer, or the name of the field that gives it (absent means false; a leading ``+`` means absent is true)."""

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "num_key_value_heads": (
        "num_key_value_heads",
        "num_kv_heads",
        "n_head_kv",
        "num_attention_groups",
        "num_query_groups",
    ),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "experts_per_token",
        "top_k_experts",
        "moe_top_k",
        "moe_k",
    ),
    "head_dim": ("head_dim", "attention_head_dim"),
    "layer_types": ("layer_types", "layers_block_type"),
}
"""Names that different families and releases give the same quantity; the first is ours."""

LIMITS: Final[Mapping[str, int]] = {
    "num_hidden_layers": 10_000,
    "vocab_size": 100_000_000,
    "max_position_embeddings": 10**10,
}
LARGEST: Final = 10_000_000
DROPOUTS: Final = ("dropout", "_pdrop")
HEAD_DROPOUTS: Final = ("classifier_", "summary_")


class Fields:
    """The fields of one (possibly nested) configuration block of a family."""

    def __init__(self, data: Mapping[str, Any], family: str, where: Where, path: Path = ()) -> None:
        self.data, self.family, self.where, self.path = data, family, where, path
        self.seen: set[str] = set()
        self.blocks: list[Fields] = []

    # ---- errors ----------------------------------------------------------------------------------------------------

    def error(self, message: str, name: str = "", *, found: object = None, allowed: str | None = None) -> SpecError:
        """Return the error for the field ``name`` of this block."""
        path = (*self.path, name) if name else self.path
        file, line = self.where(path)
        field = ".".join(str(p) for p in path) or None
        return SpecError(message, file=file, line=line, field=field, found=found, allowed=allowed)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def find(self, name: str) -> tuple[str, Any]:
        """Return the spelling found and its value (``None`` if absent or null); spellings must agree."""
        names = ALIASES.get(name, (name,))
        self.seen.update(names)
        hits = [(n, self.data[n]) for n in names if self.data.get(n) is not None]
        for other, value in hits[1:]:
            if value != hits[0][1]:
                raise self.error(f"disagrees with {hits[0][0]} = {hits[0][1]!r}", other, found=value)
        return hits[0] if hits else (name, None)

    def get(self, name: str) -> Any:
        """Return the value as it stands, ``None`` if absent or null."""
        return self.find(name)[1]

    def count(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a whole number; without a default the field is required."""
        spelling, value = self.find(name)
        if value is None:
            if default is None:
                raise self.error(f"is required for model_type {self.family!r}", name)
            return default
        most = LIMITS.get(name, LARGEST)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error("must be a whole number", spelling, found=value)
        if not least <= value <= most:
            raise self.error("is out of range", spelling, found=value, allowed=f"{least} to {most}")
        return value

    def optional(self, name: str, *, least: int = 1) -> int | None:
        """Return a whole number or ``None``."""
        return None if self.get(name) is None else self.count(name, least=least)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a yes/no field."""
        spelling, value = self.find(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error("must be true or false", spelling, found=value)
        return value

    def on(self, switch: Switch) -> bool:
        """Resolve a :data:`Switch`."""
        if isinstance(switch, bool):
            return switch
        return self.flag(switch.removeprefix("+"), switch.startswith("+"))

    def choice(self, name: str, default: str | None, allowed: Sequence[str]) -> str | None:
        """Return a word out of ``allowed``."""
        value = self.get(name)
        if value is None:
            return default
        if value not in allowed:
            raise self.error("is not supported", name, found=value, allowed=", ".join(allowed))
        return str(value)

    def listed(self, name: str, length: int | None = None, *, spare: int = 0) -> list[Any] | None:
        """Return a list (``length`` entries of a list that may carry ``spare`` more) or ``None``."""
        spelling, value = self.find(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise self.error("must be a list", spelling, found=value)
        if length is not None and not length <= len(value) <= length + spare:
            raise self.error(f"must have one entry per layer ({length})", spelling, found=f"{len(value)} entries")
        return list(value[:length])

    def indices(self, name: str) -> frozenset[int]:
        """Return a list of layer numbers."""
        values = self.listed(name) or []
        if any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in values):
            raise self.error("must be a list of layer numbers", name, found=values)
        return frozenset(values)

    def block(self, name: str, family: str = "", *, required: bool = True) -> Fields:
        """Return a nested block."""
        value = self.get(name)
        if value is None and not required:
            value = {}
        if value is None:
            raise self.error(f"is required for model_type {self.family!r}", name)
        if not isinstance(value, Mapping):
            raise self.error("must be a block of fields", name, found=value)
        made = Fields(value, family or self.family, self.where, (*self.path, name))
        self.blocks.append(made)
        return made

    def idle(self, name: str) -> None:
        """Accept a size or a yes/no without effect here."""
        if not isinstance(self.get(name), bool) and self.get(name) != "auto":
            self.optional(name, least=0)

    def declared(self, name: str) -> None:
        """Require that the field is spelt out, be it as null."""
        if not any(n in self.data for n in ALIASES.get(name, (name,))):
            raise self.error(f"is required for model_type {self.family!r} (null for none)", name)

    def expect(self, name: str, *values: object) -> None:
        """Refuse a field whose value is none of ``values`` (absent and null are fine)."""
        value = self.get(name)
        if value is not None and not any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values):
            raise self.error(
                f"changes the structure of {self.family!r} in a way that is not understood",
                name,
                found=value,
                allowed=" or ".join(repr(v) for v in values),
            )

    # ---- what everything has ---------------------------------------------------------------------------------------

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.count("hidden_size")

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.count("num_hidden_layers")

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return self.count("num_attention_heads")

    @property
    def dropout(self) -> bool:
        """Whether any dropout rate is above zero."""
        rates = (v for k, v in self.data.items() if k.endswith(DROPOUTS) and not k.startswith(HEAD_DROPOUTS))
        return any(isinstance(r, int | float) and r > 0 for r in rates)

    def finish(self) -> None:
        """Refuse every field that nobody read and that is not known to be harmless."""
        for name, value in self.data.items():
            if name in self.seen or value in (None, [], {}) or _harmless(name):
                continue
            if name in EXPECTED:
                self.expect(name, *EXPECTED[name])
                continue
            raise self.error(f"is not understood for model_type {self.family!r}", name, found=value)
        for block in self.blocks:
            block.finish()


def _harmless(name: object) -> bool:
    return isinstance(name, str) and (
        name in HARMLESS or name.startswith(HARMLESS_STARTS) or name.endswith(HARMLESS_ENDS)
    )
