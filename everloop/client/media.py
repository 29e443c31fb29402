"""Tables, figures and pictures as files: (name, bytes). Libraries are used where the value comes from them, never asked for."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from everloop.core.errors import BadInput

File = tuple[str, bytes]


def any_file(value: Any, name: str) -> File:
    """Whatever `run.log` is given that is no number; TypeError for what is no picture, figure or table either."""
    kind = type(value).__module__.partition(".")[0]
    if hasattr(value, "savefig") or kind == "plotly":
        return figure(value, name)
    if kind in ("PIL", "numpy") or isinstance(value, bytes):
        return image(value, name)
    if kind in ("pandas", "polars", "pyarrow") or (isinstance(value, list) and value and all(isinstance(row, dict) for row in value)):
        return table(value, name)
    raise TypeError(
        f"{type(value).__name__} cannot be logged as {name.rpartition('/')[0]!r}: give a number, a picture (PIL, numpy), a figure (matplotlib, Plotly) or a table "
        "(pandas, Polars, Arrow, list of dicts); text is a tag (set_tag) or a file (log_text)"
    )


def table(value: Any, name: str) -> File:
    """A table as the kind of file that `name` ends with: .parquet (when it has no end), .csv or .json. BadInput for what is no table."""
    import pyarrow as pa

    kind = type(value).__module__.partition(".")[0]
    if kind == "pandas":
        arrow = pa.Table.from_pandas(value, preserve_index=False)
    elif kind == "polars":
        arrow = value.to_arrow()
    elif isinstance(value, pa.Table):
        arrow = value
    elif isinstance(value, list) and all(isinstance(row, dict) for row in value):
        arrow = pa.Table.from_pylist(value)
    else:
        raise BadInput(f"{type(value).__name__} is not a table.", "Give a pandas, Polars or Arrow table, or a list of dicts.")
    buffer = io.BytesIO()
    if name.endswith(".csv"):
        from pyarrow import csv

        csv.write_csv(arrow, buffer)
    elif name.endswith(".json"):
        import orjson

        buffer.write(orjson.dumps(arrow.to_pylist(), default=str))
    else:
        from pyarrow import parquet

        parquet.write_table(arrow, buffer)
        name = name if name.endswith(".parquet") else name + ".parquet"
    return name, buffer.getvalue()


def figure(value: Any, name: str) -> File:
    """matplotlib's figure as .png (when `name` has no end), .svg or .pdf; Plotly's as .html (when it has none) or .json."""
    if hasattr(value, "savefig"):
        end = name.rpartition(".")[2] if name.endswith((".png", ".svg", ".pdf", ".jpg")) else "png"
        buffer = io.BytesIO()
        value.savefig(buffer, format=end, bbox_inches="tight")
        return (name if name.endswith("." + end) else f"{name}.{end}"), buffer.getvalue()
    if hasattr(value, "to_html"):
        if name.endswith(".json"):
            return name, value.to_json().encode()
        return (name if name.endswith(".html") else name + ".html"), value.to_html(include_plotlyjs=True).encode()
    raise BadInput(f"{type(value).__name__} is not a figure.", "Give a figure of matplotlib or Plotly.")


def image(value: Any, name: str) -> File:
    """A picture as PNG; bytes of a PNG, JPEG, GIF or WebP stay as they are. BadInput for what is none."""
    if isinstance(value, bytes):
        end = _kind_of(value)
        return (name if "." in name.rpartition("/")[2] else f"{name}.{end}"), value
    name = name if name.endswith(".png") else name + ".png"
    if hasattr(value, "save") and hasattr(value, "size"):
        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        return name, buffer.getvalue()
    return name, _png(value)


def _kind_of(data: bytes) -> str:
    for start, end in ((b"\x89PNG", "png"), (b"\xff\xd8", "jpg"), (b"GIF8", "gif")):
        if data.startswith(start):
            return end
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise BadInput("These bytes are not a picture.", "Give those of a PNG, JPEG, GIF or WebP; other files: run.log_artifact(data, name).")


def _png(value: Any) -> bytes:
    """A PNG of an array: height x width (grey), x 3 (RGB) or x 4 (RGBA); floats from 0 to 1, or whole numbers from 0 to 255."""
    import numpy as np

    pixels = np.asarray(value)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)) or not pixels.size or pixels.dtype.kind not in "fiub":
        raise BadInput(
            f"An array of shape {pixels.shape} and type {pixels.dtype} is not a picture.", "Give height x width, or height x width x 3 (RGB) or x 4."
        )
    if pixels.dtype.kind == "f":
        pixels = np.clip(np.nan_to_num(pixels), 0.0, 1.0) * 255.0 + 0.5
    elif pixels.dtype.kind == "b":
        pixels = pixels * 255
    pixels = np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8))
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    raw = np.concatenate((np.zeros((height, 1), np.uint8), rows), axis=1).tobytes()
    colour = {1: 0, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(raw, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
