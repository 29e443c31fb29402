"""Users' code in a worker: fetched by digest, unpacked into a folder of its own, imported there and never in the server."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from everloop.core.errors import BadInput, Corrupt
from everloop.work.queue import check_call


def load(client: Any, call: str, code: str | None, cache: Path) -> Callable[..., Any]:
    """The function that `call` (module:function) names, from a code asset if given. BadInput if it is not there."""
    module, function = check_call(call, code)
    if code:
        folder = unpack(client, client.assets.get(code), cache)
        _use(folder, cache)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"The step {call!r} cannot be loaded: {error}.", "Check the name, and that the worker has the requirements.") from error
    return getattr(found, "function", found)  # type: ignore[no-any-return]


def unpack(client: Any, asset: dict[str, Any], cache: Path) -> Path:
    """The folder with a code asset's files, made if missing; Corrupt if bytes do not fit their digest, BadInput for a path that leaves it."""
    folder = cache / asset["digest"]
    if folder.is_dir():
        return folder
    from blake3 import blake3

    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache))
    for file in asset["manifest"]["files"]:
        path = PurePosixPath(file["path"])
        if path.is_absolute() or ".." in path.parts or "\\" in file["path"]:
            raise BadInput(f"The code {asset['ref']} has a file outside its folder: {file['path']!r}.")
        data = client.assets.get_object(file["digest"])
        if blake3(data).hexdigest() != file["digest"]:
            raise Corrupt(f"The file {file['path']!r} of {asset['ref']} is not what its digest says.")
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    try:
        os.rename(fresh, folder)
    except OSError:
        if not folder.is_dir():
            raise
    return folder


def _use(folder: Path, cache: Path) -> None:
    """Make `folder` importable and forget modules of other code assets."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(cache) and not Path(file).is_relative_to(folder):
            del sys.modules[name]
    sys.path[:] = [str(folder), *(p for p in sys.path if not p.startswith(str(cache)))]
    importlib.invalidate_caches()
