"""Several arrays and lists of words as one file: npz, uncompressed, never with pickle."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from everloop.core.errors import Corrupt


def pack(arrays: Mapping[str, Any], **words: Iterable[str]) -> bytes:
    """Arrays and lists of words (without line breaks) as bytes."""
    import numpy as np

    texts: dict[str, Any] = {name: np.frombuffer("\n".join(items).encode(), np.uint8) for name, items in words.items()}
    out = io.BytesIO()
    np.savez(out, **{**arrays, **texts})
    return out.getvalue()


def unpack(data: bytes, arrays: Iterable[str], words: Iterable[str] = ()) -> dict[str, Any]:
    """The inverse of `pack`, by the names that must be there; Corrupt for bytes that are not such or hold something else."""
    import numpy as np

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            found: dict[str, Any] = {name: file[name] for name in arrays}
            for name in words:
                text = file[name].tobytes().decode()
                found[name] = text.split("\n") if text else []
            return found
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise Corrupt(f"A file of the index cannot be read: {error}.", "Build the index again.") from error
