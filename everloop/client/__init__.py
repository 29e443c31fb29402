"""What users' code imports: `el.connect()`, `el.run()`, `el.dataset()`, `el.step`, `el.pipeline`, `el.Project`. Talks HTTP only; imported piece by piece at first use."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "connect": "base",
    "Client": "base",
    "Http": "http",
    "run": "runs",
    "step": "pipelines",
    "pipeline": "pipelines",
    "Step": "pipelines",
    "Project": "declare",
    "trace": "tracing",
    "current_span": "tracing",
    "flush": "tracing",
    "dataset": "dataset_view",
    "Dataset": "dataset_view",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """A public name, imported from its file when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"everloop.client has no {name!r}")
    value = getattr(importlib.import_module(f"everloop.client.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
