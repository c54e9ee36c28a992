"""One iteration of continuous batching: some sequences decode, and chunks of prompts share the pass with them.

Matrices see every token of the iteration as one product; attention runs once over the decoding sequences and once over
the chunks. An iteration without chunks is the decode pass of a plan, one without decoding sequences its prefill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perfmodel.elementwise import Scalar
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.phases.compose import Slot, add_up
from perfmodel.phases.emit import call_terms, divided, uncovered
from perfmodel.phases.host import host_of, sending_of
from perfmodel.phases.serving import mixes_tokens, pass_sizes, pass_terms, pass_tree, settle_pass
from perfmodel.phases.settle import declare
from perfmodel.techniques.base import Situation, Technique, Term
from perfmodel.techniques.record import Layout
from perfmodel.techniques.settled import Plan, Settled, split_by
from perfmodel.units import Seconds

__all__ = ["Iteration"]


@dataclass(frozen=True)
class Iteration:
    """Times of the iterations of one replica plan; every number may be an array, all of one shape.

    Sequences and tokens are those of the whole replica: ranks that share its batch get equal parts, and so do the
    micro-batches that fill its pipeline stages.

    Parameters
    ----------
    x : the plan; its ``batch`` is not read.
    techniques, situation, machine, network, framework : as in :func:`perfmodel.phases.serving.evaluate_passes`.
    """

    x: Plan
    techniques: Sequence[Technique]
    situation: Situation
    machine: Machine
    network: Network
    framework: Mapping[str, float]

    @property
    def tokens_per_pass(self) -> Scalar:
        """Tokens that a sequence gains per decode pass (more than one where drafts are verified)."""
        return self._layout.tokens_per_pass

    @property
    def verify_tokens(self) -> Scalar:
        """Tokens of a sequence that a decode pass computes."""
        return self._layout.verify_tokens

    @property
    def _layout(self) -> Layout:
        return declare(self.techniques, self.x, self.situation)[1]

    @property
    def fetches(self) -> bool:
        """Whether keys and values of prompts come from a store."""
        return bool(self._layout.kv_fetched)

    def fetched(self) -> tuple[float, float, float]:
        """Share of a prompt that a store sends, and seconds of its link and of the device per token of it."""
        workload = self.situation.workload
        rest = 1.0 * (workload.prompt - workload.reused)
        s = self._settled(1.0, 1.0, queries=rest, context=1.0 * workload.prompt, decode=False)
        found = [t for t in self._added(s) if t.slot == "fetch"]
        link, main = (
            add_up([t.seconds for t in found if (t.lane == "main") == own]) / workload.reused for own in (False, True)
        )
        return workload.reused / workload.prompt, float(link), float(main)

    @property
    def ends_early(self) -> bool:
        """Whether prompts pass the lower layers only."""
        return self._settled(1.0, 1.0, context=1.0, decode=True).architecture.prompt_layers is not None

    @property
    def prompt_passes(self) -> int:
        """Times that a prompt passes the layers."""
        return self._settled(1.0, 1.0, context=1.0, decode=True).architecture.prompt_passes

    @property
    def pieces(self) -> tuple[float, float]:
        """Share of a prompt that is pieces which attend within themselves, and their number."""
        workload = self.situation.workload
        if not self._layout.pieces_apart:
            return 0.0, 1.0
        return workload.reused / workload.prompt, float(workload.pieces)

    def above(self, sequences: Scalar, context: Scalar) -> Seconds:
        """What decoding takes in the layers that prompts do not pass [s]."""
        s = self._settled(sequences, sequences, context=context, decode=True)
        lower = self._settled(1.0, 1.0, queries=1.0, context=1.0, decode=False).layers
        layer = Slot(tuple(t for t in self._terms(s) if t.slot == "layer"), items=s.layout.sub_batches)
        return (s.layers - lower) * layer.elapsed()

    def again(self, tokens: Scalar, mixers: Seconds) -> Seconds:
        """What passes of chunks of so many tokens take in the layers after the first of several [s]."""
        s = self._settled(1.0, 1.0, queries=tokens, context=tokens, decode=False)
        terms = pass_terms(s, self.machine, self.framework, rows=1.0, mixers=False)
        terms += [Term("attention", "layer", "main", mixers), *self._added(s)]
        layer = Slot(tuple(t for t in terms if t.slot == "layer"))
        return (s.architecture.prompt_passes - 1.0) * s.layers * layer.elapsed()

    def decode(self, sequences: Scalar, context: Scalar) -> Seconds:
        """An iteration that only decodes [s]; ``context`` is the mean over the sequences, new token included."""
        s = self._settled(sequences, sequences, context=context, decode=True)
        host, sending = self._host(s)
        return pass_tree(s, self._terms(s), host, latency=False, sending=sending).elapsed()

    def mixed(self, tokens: Scalar, rows: Scalar, mixers: Seconds) -> Seconds:
        """An iteration with chunks [s].

        Parameters
        ----------
        tokens : new tokens, decoded and of prompts.
        rows : sequences that take part, each of which a token is sampled for.
        mixers : time of attention and scans in an average layer, from :meth:`decode_mixers` and
            :meth:`chunk_mixers` [s].
        """
        parts = self._layout.side_by_side or 1.0
        s = self._settled(rows, 1.0, queries=tokens / parts, context=tokens / parts, decode=False)
        verified = rows * s.layout.verify_tokens
        terms = pass_terms(s, self.machine, self.framework, rows=verified / self._shares(s), mixers=False)
        each = mixers / parts
        terms.append(Term("attention", "layer", "main", each, core=True, memory=each))
        host, sending = self._host(s)
        return pass_tree(s, terms + self._added(s), host, latency=False, sending=sending).elapsed()

    def decode_mixers(self, sequences: Scalar, context: Scalar) -> Seconds:
        """Attention and scans of an average layer for decoding sequences of a mean context [s].

        A cache that is streamed to the device is read here, too; what techniques add behind the layers of a decode pass
        is spread over them.
        """
        s = self._settled(sequences, sequences, context=context, decode=True)
        added = self._added(s)
        streamed = add_up([t.seconds for t in added if t.core and t.prefetch])
        behind = add_up([t.seconds for t in added if t.slot == "head"])
        return s.layout.sub_batches * self._mixers(s) + streamed + behind / s.layers

    def chunk_mixers(self, sequences: Scalar, queries: Scalar, context: Scalar) -> Seconds:
        """Attention and scans of an average layer for ``sequences`` chunks of ``queries`` tokens each [s].

        ``context`` counts the keys that the last query of a chunk sees.
        """
        return self._mixers(self._settled(1.0, sequences, queries=queries, context=context, decode=False))

    def _settled(
        self, batch: Scalar, sequences: Scalar, *, queries: Scalar | None = None, context: Scalar, decode: bool
    ) -> Settled:
        """The settled pass of one rank and micro-batch.

        Chunks are cut along their tokens, since there may be fewer of them than ranks.
        """
        dims, layout, _ = declare(self.techniques, self.x, self.situation)
        ranks = split_by(dims, "batch")
        parts = ranks * split_by(dims, "layers") * (layout.sub_batches if decode else 1.0)
        sizes: Sizes = pass_sizes(
            self.situation, dims, layout,
            sequences=sequences / parts if queries is None else sequences,
            queries=layout.verify_tokens if queries is None else queries / parts,
            context=context, decode=decode,
        )  # fmt: skip
        return settle_pass(self.situation, self.network, self.framework, dims, layout, sizes, batch / ranks)

    def _shares(self, s: Settled) -> Scalar:
        return split_by(s.dims, "batch") * s.stages

    def _terms(self, s: Settled) -> list[Term]:
        return divided(s, lambda on: pass_terms(s, self.machine, self.framework, on=on)) + self._added(s)

    def _added(self, s: Settled) -> list[Term]:
        return [term for t in self.techniques for term in t.terms(self.x, s, self.machine, self.network)]

    def _mixers(self, s: Settled) -> Seconds:
        calls = uncovered(layer_calls(s.architecture, s.sizes), self.machine, s.layout.attention_engine)
        found = [c for c in calls if mixes_tokens(c)]
        return add_up([t.seconds for t in call_terms(found, "layer", self.machine, placed=s.layout.placed)])

    def _host(self, s: Settled) -> tuple[Seconds, Seconds]:
        """Host time of a pass, and that of the process that answers clients."""
        return host_of(self.framework, s), sending_of(self.framework, s) * s.layout.tokens_per_pass
