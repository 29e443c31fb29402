"""Tensors of the Open Inference Protocol: JSON and binary, to columns of a batch and back. Every mistake of a client is BadInput."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.types import Batch

TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
OF_SIGNATURE = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}


def batch_of(inputs: Sequence[Mapping[str, Any]], tail: bytes, names: Sequence[str]) -> Batch:
    """The request's tensors as columns: one tensor a column, or one 2-D tensor whose columns are the signature's `names` in order."""
    columns: dict[str, Any] = {}
    offset = 0
    for tensor in inputs:
        name, shape = str(tensor.get("name")), tensor.get("shape")
        if not isinstance(shape, list) or not shape or not all(isinstance(s, int) and s >= 0 for s in shape):
            raise BadInput(f"The input {name!r} has the shape {shape!r}.", "Send a list of sizes such as [2, 1].")
        count = 1
        for size in shape:
            count *= size
        length = (tensor.get("parameters") or {}).get("binary_data_size")
        if length is not None:
            values = _from_bytes(name, str(tensor.get("datatype")), tail[offset : offset + int(length)], count)
            offset += int(length)
        else:
            values = _from_json(name, str(tensor.get("datatype")), tensor.get("data"), count)
        if name not in names and len(inputs) == 1 and len(shape) == 2 and shape[1] == len(names):
            return Batch({column: values[i :: len(names)] for i, column in enumerate(names)}, shape[0])
        if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
            raise BadInput(f"The input {name!r} has the shape {shape}; a column has [n] or [n, 1].", f"Columns: {', '.join(names)}.")
        columns[name] = values
    sizes = {len(values) for values in columns.values()}
    if len(sizes) != 1:
        raise BadInput(f"The inputs have different numbers of rows: {sorted(sizes)}.", f"Columns: {', '.join(names)}.")
    return Batch(columns, sizes.pop())


def _from_json(name: str, datatype: str, data: Any, count: int) -> list[Any]:
    if datatype not in TYPES and datatype != "BYTES":
        raise BadInput(f"The input {name!r} has the datatype {datatype!r}.", f"One of: {', '.join(TYPES)}, BYTES.")
    if not isinstance(data, list):
        raise BadInput(f"The input {name!r} has no list 'data'.")
    flat = data
    while flat and isinstance(flat[0], list):
        if not all(isinstance(part, list) for part in flat):
            raise BadInput(f"The data of the input {name!r} mix lists and values.")
        flat = [value for part in flat for value in part]
    if len(flat) != count:
        raise BadInput(f"The input {name!r} has {len(flat)} values; its shape needs {count}.")
    wanted: tuple[type, ...] = (str,) if datatype == "BYTES" else (bool,) if datatype == "BOOL" else (int, float)
    for row, value in enumerate(flat):
        if value is not None and not isinstance(value, wanted):
            raise BadInput(f"The input {name!r}, value {row}: {value!r} is not a {datatype}.")
    return flat


def _from_bytes(name: str, datatype: str, data: bytes, count: int) -> list[Any]:
    import numpy as np

    if datatype == "BYTES":
        values, at = [], 0
        while at + 4 <= len(data):
            (size,) = struct.unpack_from("<I", data, at)
            values.append(data[at + 4 : at + 4 + size].decode("utf-8", "replace"))
            at += 4 + size
        if at != len(data) or len(values) != count:
            raise BadInput(f"The input {name!r} holds {len(values)} whole strings; its shape needs {count}.")
        return values
    if datatype not in TYPES:
        raise BadInput(f"The input {name!r} has the datatype {datatype!r}.", f"One of: {', '.join(TYPES)}, BYTES.")
    kind = np.dtype(TYPES[datatype])
    if len(data) != count * kind.itemsize:
        raise BadInput(f"The input {name!r} has {len(data)} bytes; {count} values of {datatype} are {count * kind.itemsize}.")
    return list(np.frombuffer(data, kind).tolist())


def tensor_of(name: str, values: Sequence[Any], binary: bool) -> tuple[dict[str, Any], bytes]:
    """An output column as a tensor of shape [n], with its bytes where the client wants them so."""
    import numpy as np

    first = next((v for v in values if v is not None), 0.0)
    datatype = "BYTES" if isinstance(first, str) else "BOOL" if isinstance(first, bool) else "INT64" if isinstance(first, int) else "FP64"
    tensor: dict[str, Any] = {"name": name, "shape": [len(values)], "datatype": datatype}
    if not binary:
        return {**tensor, "data": list(values)}, b""
    if datatype == "BYTES":
        raw = b"".join(struct.pack("<I", len(b)) + b for b in (str(v).encode() for v in values))
    else:
        raw = np.asarray(values, TYPES[datatype]).tobytes()
    return {**tensor, "parameters": {"binary_data_size": len(raw)}}, raw
