"""What an engine is, and the registries through which files here and third parties offer one.

Four kinds: a *model engine* loads a registered model's files into a `Predictor`; an *LLM engine* makes a `Serve` from the spec in a release's
parameters; an *embedder* turns texts into vectors; a *format* says how a kind of model's files are served. A new one is one file here, or an entry point of group `everloop` named `engine.<name>`,
`llm.<name>`, `embedder.<name>` or `format.<name>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from everloop.core.registry import Registry
from everloop.core.types import Batch, Predictions, Serve
from everloop.engines.signature import Signature

Read = Callable[[str], bytes]
"""Reads an object by its digest."""
Secrets = Callable[[str, str], str]
"""Turns a reference to a secret (`env:OPENAI_API_KEY`) and the URL it is to be sent to into its value; raises where it may not go there."""


class Predictor(Protocol):
    """A loaded model: answers batches, from any thread. `fast` when one row takes well under a millisecond."""

    signature: Signature
    fast: bool

    def predict(self, batch: Batch) -> Predictions:
        """Predictions for a batch that `coerce` made."""


Load = Callable[[Mapping[str, Any], Read], Predictor]
Make = Callable[[Mapping[str, Any], Secrets], Serve]

Describe = Callable[[Mapping[str, Any], Read], dict[str, Any]]
"""From what is known of a model's files to the fields of a manifest that make it servable. It is given {"format", "files", "signature" (ours) or
None, "flavor" (what MLflow's client said of it), "classes" or None, "task" or None}; it answers {"engine", "task", "classes", "positive",
"signature"}, and BadInput says what is missing. It reads safe formats only: nothing that a file holds is run."""

engines: Registry[Load] = Registry("engine", "everloop.engines")
llms: Registry[Make] = Registry("llm", "everloop.engines")
formats: Registry[Describe] = Registry("format", "everloop.engines")
ISOLATED = "isolated"
"""The engine of models that can only be loaded by running what their producer wrote (pickles, code): in a process of its own, if trusted."""


class Embedder(Protocol):
    """From texts to vectors, from any thread."""

    name: str
    dims: int

    def embed(self, texts: Sequence[str]) -> Any:
        """A float32 array of `dims` columns, one row a text, of length 1 (a row of zeros where a text says nothing to it)."""

    def asked(self, text: str) -> Any:
        """A question's vector; its length, from 0 to 1, says how much of the question the embedder takes in (1 for those that cannot tell)."""

    def save(self) -> bytes:
        """What `load` needs besides the settings; b"" where nothing."""


class Embedding(Protocol):
    """A kind of embedder, as the registry holds it."""

    def fit(self, texts: Sequence[str], settings: Mapping[str, Any]) -> Embedder:
        """An embedder for these texts; kinds that are trained elsewhere only look at the settings. BadInput for settings that cannot be."""

    def load(self, spec: Mapping[str, Any], read: Read) -> Embedder:
        """The embedder of an index's manifest: {"name", "dims", "file" (digest of what `save` gave), ...settings}."""


embedders: Registry[Embedding] = Registry("embedder", "everloop.engines")
