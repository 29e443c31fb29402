"""`client.lineage`: declare which rows or documents an output came from."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput


class Lineage:
    """What steps, scripts and programs say of where their outputs came from. `client.why(id)` and `client.impact(ref)` ask."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def derives(self, output: str, sources: Mapping[str, Any], *, run: str | None = None, why: str = "") -> list[dict[str, Any]]:
        """Declare which rows or documents of which dataset versions `output` (a version, of any kind) came from; answers what is kept.

        `sources` is {"dataset:x@3": rows}; a split (`dataset:x@3#train`) counts its own rows. `rows` is "all", "none", a mask (a true or false a row),
        row numbers from 0 (as pandas' index has them; -1 for none), {"keys": [...]} (values of the id column; of documents ids or paths) or {"rows": numbers,
        "to": numbers in the output}. Where there are as many numbers as the output has rows, they are in its order, and rows can be followed further.

        `run` is the run that says so; its next declaration about the same two replaces this one. BadInput for rows that cannot be, NotFound for a key or
        version that is not there; nothing is kept then.
        """
        body = {"output": output, "run": run or "", "why": why, "sources": {ref: self._spec(rows) for ref, rows in sources.items()}}
        return list(self._http.post("/api/v1/lineage/derivations", json=body)["items"])

    def declared(self, ref: str) -> list[dict[str, Any]]:
        """What was declared of where a version (or `run:ID`) came from: [{"source", "target", "form", "count", "of", "why", "by", "at"}]."""
        return list(self._http.get("/api/v1/lineage/derivations", params={"ref": ref})["items"])

    def _spec(self, rows: Any) -> Any:
        """What the server takes: numbers go as an object."""
        if isinstance(rows, str):
            if rows not in ("all", "none"):
                raise BadInput(f"Rows cannot be {rows!r}.", 'Give "all", "none", a mask, row numbers, or {"keys": [...]}.')
            return rows
        if isinstance(rows, Mapping):
            if "keys" in rows:
                return {"keys": [one.item() if hasattr(one, "item") else one for one in rows["keys"]]}
            if "rows" not in rows:
                raise BadInput(f"Rows cannot be read from {sorted(map(str, rows))}.", 'Give {"keys": [...]} or {"rows": [...], "to": [...]}.')
            return self._object(_numbers(rows["rows"]), None if rows.get("to") is None else _numbers(rows["to"]))
        found = _numbers(rows)
        if found.dtype.kind == "b":
            return {**self._object(found.nonzero()[0], None), "of": len(found)}
        if found.dtype.kind in "OUS":
            return {"keys": [str(one) for one in found]}
        return self._object(found, None)

    def _object(self, rows: Any, to: Any) -> dict[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"row": rows} if to is None else {"row": rows, "to": to}
        if len({len(column) for column in columns.values()}) > 1:
            raise BadInput(f"There are {len(rows):,} rows and {len(to):,} places for them.", "Give one place a row.")
        try:
            table = pa.table({name: pa.array(column, pa.int64()) for name, column in columns.items()})
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise BadInput(f"Rows are not whole numbers: {error}.", "Give numbers from 0, a mask of booleans, or keys.") from None
        file = io.BytesIO()
        pq.write_table(table, file, compression="zstd", use_dictionary=False, column_encoding=dict.fromkeys(columns, "DELTA_BINARY_PACKED"))
        return {"object": self._http.post("/api/v1/objects", data=file.getvalue())["digest"]}


def _numbers(values: Any) -> Any:
    """A list, array, series, index or Arrow column as a numpy array."""
    import numpy as np

    if hasattr(values, "to_numpy"):
        try:
            return np.asarray(values.to_numpy(zero_copy_only=False))
        except TypeError:
            return np.asarray(values.to_numpy())
    return np.asarray(list(values) if not hasattr(values, "__array__") else values)
