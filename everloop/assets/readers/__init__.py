"""One file a format: from a file's bytes to a `Document`. A new format is one file here, or an entry point `reader.<suffix>` of group `everloop`."""

from __future__ import annotations

from collections.abc import Callable

from everloop.assets.text import Document
from everloop.core.registry import Registry

Reader = Callable[[str, bytes], Document]
"""(path, bytes) to a document; BadInput says why not, and what to do."""

readers: Registry[Reader] = Registry("reader", "everloop.assets.readers")
"""By suffix without its dot: pdf, html, md, txt ..."""
