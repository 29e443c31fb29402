"""What an engine is, and the registries through which files here and third parties offer one.

Two kinds: a *model engine* loads a registered model's files into a `Predictor`; an *LLM engine* makes a `Serve` from the spec in a release's
parameters. A new one is one file here, or an entry point of group `everloop` named `engine.<name>` or `llm.<name>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

engines: Registry[Load] = Registry("engine", "everloop.engines")
llms: Registry[Make] = Registry("llm", "everloop.engines")
