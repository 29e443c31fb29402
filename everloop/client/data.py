"""`client.data`: load tables and documents, read them back."""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.core.errors import BadInput
from everloop.core.limits import UPLOAD_MEMORY_BYTES
from everloop.core.refs import Ref

_SECONDS = 1800.0
"""How long an upload may take, reading and checking included."""
_SKIP = {".git", "node_modules", "__pycache__", ".venv"}


class Data:
    """Datasets: every load is a version; the same content answers the same version."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def add(
        self,
        name: str,
        data: Any,
        *,
        target: str | None = None,
        time: str | None = None,
        positive: Any = None,
        protected: str | Iterable[str] = (),
        id: str | None = None,
        roles: Mapping[str, Any] | None = None,
        contract: Mapping[str, Any] | None = None,
        description: str = "",
        run: str | None = None,
        reads: Iterable[str] = (),
        origin: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Load a CSV or Parquet file, a pandas DataFrame or an Arrow table; answers the dataset version with its manifest.

        Roles say what columns are for: target, time, the positive class, protected attributes, id. Without any, those of the version before stay.
        Raises BadInput saying what is wrong where, and nothing is loaded.
        """
        named = {
            "target": target,
            "time": time,
            "positive": positive,
            "protected": [protected] if isinstance(protected, str) else [*protected],
            "id": id,
        }
        given = {k: v for k, v in named.items() if v not in (None, [])}
        full = {**(roles or {}), **given} if roles is not None or given else None
        fields = {"name": name, "description": description, "run": run or "", "reads": _json([*reads] or None)}
        fields |= {"roles": _json(full), "contract": _json(contract), "origin": _json(origin), "tags": _json(tags)}
        fields = {k: v for k, v in fields.items() if v}
        if isinstance(data, (str, os.PathLike)):
            path = Path(data)
            if not path.is_file():
                raise BadInput(f"There is no file {path}.", "Give the path of a CSV or Parquet file.")
            if path.stat().st_size > UPLOAD_MEMORY_BYTES:
                return self._stream(fields, path)
            return self._http.upload("/api/v1/datasets", fields, [("file", path.name, path.read_bytes())], timeout=_SECONDS)
        return self._http.upload("/api/v1/datasets", fields, [("file", f"{name}.parquet", _parquet(data))], timeout=_SECONDS)

    def add_documents(
        self,
        name: str,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Mapping[str, bytes],
        *,
        description: str = "",
        run: str | None = None,
        reads: Iterable[str] = (),
    ) -> dict[str, Any]:
        """Load documents (PDF, HTML, Markdown, text) as one version of a documents dataset: a folder, a file, a list of both, or {path: bytes}.

        What cannot be read is listed with why in the manifest's `skipped`; BadInput where nothing can, and nothing is loaded then.
        """
        found = dict(files) if isinstance(files, Mapping) else {path: file.read_bytes() for path, file in _found(files).items()}
        fields = {k: v for k, v in {"name": name, "description": description, "run": run or "", "reads": _json([*reads] or None)}.items() if v}
        return self._http.upload("/api/v1/datasets", fields, [("files", path, data) for path, data in found.items()], timeout=_SECONDS)

    def documents(self, ref: str) -> list[dict[str, Any]]:
        """The texts of a documents dataset: {"id", "path", "title", "type", "text", "headings", "pages"} each; `id` is the path."""
        parsed = Ref.parse(ref, "dataset")
        path = f"/api/v1/datasets/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}/documents"
        items: list[dict[str, Any]] = []
        offset: int | None = 0
        while offset is not None:
            page = self._http.get(path, params={"offset": offset, "limit": 1000})
            items += page["items"]
            offset = page["next"]
        return items

    def list(self, search: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """Datasets by last change, newest first."""
        return self._http.get("/api/v1/assets", params={"kind": "dataset", "search": search, "limit": limit})["items"]

    def get(self, ref: str) -> dict[str, Any]:
        """One version: schema, statistics, roles, notes in its manifest."""
        parsed = Ref.parse(ref, "dataset")
        return self._http.get(f"/api/v1/assets/dataset/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}")

    def rows(self, ref: str, limit: int = 50, offset: int = 0) -> dict[str, Any]:
        """Some rows: {"ref", "columns", "rows", "total", "next"}."""
        parsed = Ref.parse(ref, "dataset")
        path = f"/api/v1/datasets/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}/rows"
        return self._http.get(path, params={"limit": limit, "offset": offset})

    def diff(self, old: str, new: str = "", *, key: str | Iterable[str] = (), limit: int = 10) -> dict[str, Any]:
        """What differs between two versions: `diff("credit@2", "credit@3")`; without `new`, the latest one.

        Tables: schema, rows added, removed and changed (matched by `key` columns, else by the id column, else by content) with `limit` examples of
        each, and every column's statistics side by side. Other datasets: files added, removed, changed and renamed.
        """
        first = Ref.parse(old, "dataset")
        second = Ref.parse(new, "dataset") if new else Ref("dataset", first.name)
        at = [f"{ref}" if ref.at else f"{ref}@latest" for ref in (first, second)]
        asked = {"from": at[0], "to": at[1], "key": [key] if isinstance(key, str) else [*key], "limit": limit}
        return self._http.get(f"/api/v1/datasets/{quote(first.name, safe='')}/diff", params=asked, timeout=_SECONDS)

    def table(self, ref: str) -> Any:
        """The whole table as an Arrow table."""
        import pyarrow.parquet as pq

        asset = self.get(ref)
        if asset["manifest"].get("format") != "table":
            raise BadInput(f"{asset['ref']} is a set of documents, not a table.", "Name a dataset that was loaded from CSV or Parquet.")
        digest = asset["manifest"]["files"][0]["digest"]
        data = io.BytesIO(self._http.get_bytes(f"/api/v1/objects/{digest}", timeout=_SECONDS))
        return pq.read_table(data, pre_buffer=False)  # its threads can abort a program that ends right after

    def frame(self, ref: str) -> Any:
        """The whole table as a pandas DataFrame."""
        return self.table(ref).to_pandas()

    def _stream(self, fields: Mapping[str, str], path: Path) -> dict[str, Any]:
        """Upload without holding the file in memory (not tried again on failure)."""
        boundary = secrets.token_hex(16)
        kind = f"multipart/form-data; boundary={boundary}"
        return self._http.request("POST", "/api/v1/datasets", data=_parts(fields, path, boundary), headers={"content-type": kind}, timeout=_SECONDS)


def _parts(fields: Mapping[str, str], path: Path, boundary: str) -> Iterator[bytes]:
    for key, value in fields.items():
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
    name = path.name.replace('"', "%22")
    yield f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode()
    with path.open("rb") as file:
        while piece := file.read(1024 * 1024):
            yield piece
    yield f"\r\n--{boundary}--\r\n".encode()


def _parquet(data: Any) -> bytes:
    """A data frame or Arrow table as Parquet bytes (a frame's index is left out)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(data, pa.Table):
        if not hasattr(data, "columns"):
            raise BadInput(
                f"A dataset cannot be made of {type(data).__name__}.", "Give a path to CSV or Parquet, a pandas DataFrame or an Arrow table."
            )
        names = [str(c) for c in data.columns]
        if len(set(names)) < len(names):
            raise BadInput(
                f"The data frame has columns with the same name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}.", "Rename them."
            )
        try:
            data = pa.Table.from_pandas(data.set_axis(names, axis=1), preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise BadInput(f"The data frame cannot be stored: {error.args[0]}.", "Give each column values of one type.") from None
    file = io.BytesIO()
    pq.write_table(data, file, compression="zstd")
    return file.getvalue()


def _found(files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    """Path within the load to file. Files of one folder go by their path inside it; of several, by the folder's name too."""
    given = [Path(files)] if isinstance(files, (str, os.PathLike)) else [Path(f) for f in files]
    found: dict[str, Path] = {}
    for base in given:
        if base.is_file():
            name = base.name if base.name not in found else base.as_posix().lstrip("./")
            found[name] = base
        elif base.is_dir():
            head = "" if len(given) == 1 else f"{base.resolve().name}/"
            inside = {p.relative_to(base).as_posix(): p for p in sorted(base.rglob("*")) if p.is_file() and _wanted(p.relative_to(base))}
            if not inside:
                raise BadInput(f"The folder {base} holds no files.", "Put PDF, HTML, Markdown or text files into it.")
            found |= {head + path: file for path, file in inside.items()}
        else:
            raise BadInput(f"There is no folder or file {base}.", "Give a folder with PDF, HTML, Markdown or text files.")
    return found


def _wanted(path: Path) -> bool:
    return not any(part.startswith(".") or part in _SKIP for part in path.parts)


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value, default=str)
