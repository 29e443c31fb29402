"""`client.data`: load tables and documents, read them back."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from everloop.client.http import query_text
from everloop.core.errors import BadInput
from everloop.core.limits import UPLOAD_MEMORY_BYTES
from everloop.core.refs import Ref

if TYPE_CHECKING:
    from everloop.client.dataset_view import Dataset
    from everloop.client.upload import Progress

_SECONDS = 1800.0
"""How long an upload may take, reading and checking included."""
TABLES = (".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather", ".txt", ".data", ".dat", ".tab", ".gz", ".xls", ".xlsx", "")
"""Endings of files that are loaded as tables (spreadsheets are then refused with what to do); others are kept as they are."""
_SKIP = {".git", "node_modules", "__pycache__", ".venv"}

Told = list[dict[str, Any]]
"""One dict a thing; the class below has a method called list."""


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
        splits: Mapping[str, Any] | None = None,
        keep_file: bool = False,
        as_files: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Load a table (CSV, Parquet, Arrow or Feather file, pandas or Polars DataFrame, Arrow table, data set or reader), or keep files and folders of any size as they are.

        Answers the dataset version with its manifest. A folder, a file of another sort, and anything with `as_files` is kept as it is: only what the
        server has not is sent, and it is never in memory whole. `splits` names parts of the rows: {"parts": {"train": 0.8, "test": 0.2}, "seed": 1,
        "stratify": "bad"}; without, those of the version before. With `keep_file` a table's file is kept as it came, too. `progress` is called with (what, done, total).

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
        if isinstance(data, (str, os.PathLike)) and (as_files or not _is_table(Path(data))):
            refused = [*given, *(["contract"] if contract else [])]
            if refused:
                raise BadInput(f"{data} is kept as it is; {', '.join(refused)} is for tables.", "Give a CSV, Parquet, Arrow or Feather file.")
            more = {"description": description, "run": run, "reads": [*reads], "origin": origin, "tags": tags}
            return self._keep(name, Path(data), progress, {k: v for k, v in more.items() if v})
        fields = {"name": name, "description": description, "run": run or "", "reads": _json([*reads] or None)}
        fields |= {"roles": _json(full), "contract": _json(contract), "origin": _json(origin), "tags": _json(tags)}
        fields |= {"splits": _json(splits), "keep_file": "true" if keep_file else ""}
        fields = {k: v for k, v in fields.items() if v}
        if isinstance(data, (str, os.PathLike)):
            path = Path(data)
            if not path.is_file():
                raise BadInput(f"There is no file {path}.", "Give the path of a CSV or Parquet file.")
            return self._send(fields, path, path.name)
        from everloop.client import frames

        with tempfile.TemporaryDirectory(prefix="everloop-") as folder:
            file = Path(folder) / f"{name}.parquet".replace("/", "-")
            frames.write(data, file)
            return self._send(fields, file, f"{name}.parquet")

    def _keep(self, name: str, path: Path, progress: Progress | None, more: dict[str, Any]) -> dict[str, Any]:
        """Send what is missing of a folder or file, then register the list of its files."""
        from everloop.client.upload import Upload

        if not path.exists():
            raise BadInput(f"There is no file or folder {path}.", "Check the path.")
        tree = Upload(self._http, progress).folder(path)
        source = {**(more.pop("origin", None) or {}), "name": path.resolve().name, "single": path.is_file()}
        return self._http.post("/api/v1/datasets", json={"name": name, "tree": tree, "origin": source, **more}, timeout=_SECONDS)

    def pin(self, asset: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
        """Pin the version that was just made of `path`: writes PATH.everloop for git to hold, and has git ignore PATH."""
        from everloop.client import pins

        return pins.write(dict(asset), Path(path)).file

    def restore(self, folder: str | os.PathLike[str] = ".", *, force: bool = False, progress: Progress | None = None) -> Told:
        """Bring the data of every pin in a folder and below it (or of one pin's file): [{"ref", "path", "written"}]."""
        from everloop.client import pins

        found = [pins.read(Path(folder))] if Path(folder).is_file() else [*pins.find(Path(folder))]
        return [{"ref": pin.ref, "path": str(pin.target), "written": pins.checkout(self._http, pin, force, progress)} for pin in found]

    def status(self, folder: str | os.PathLike[str] = ".") -> Told:
        """How the data of every pin in a folder differ from what is here: [{"path", "ref", "state", "added", "removed", "changed", "newer"}]."""
        from everloop.client import pins

        return [pins.status(self._http, pin) for pin in pins.find(Path(folder))]

    def split(self, ref: str, parts: Mapping[str, float], *, seed: int = 0, stratify: str = "", group: str = "", time: str = "") -> dict[str, Any]:
        """Name parts of a version's rows or files, as shares: the next version, which has them; `credit@4#train` reads one.

        `stratify` keeps each class's share, `group` keeps rows of a group together, `time` puts the oldest rows into the first part (columns; of files:
        path, folder, type, size). The same seed gives the same rows.
        """
        parsed = Ref.parse(ref, "dataset")
        spec: dict[str, Any] = {"parts": dict(parts), "seed": seed, "stratify": stratify, "group": group, "time": time}
        path = f"/api/v1/datasets/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}/splits"
        return self._http.post(path, json={k: v for k, v in spec.items() if v != ""})

    def dataset(self, ref: str) -> Dataset:
        """One version, read when asked for: `.path`, `.files()`, `.pandas()`, `.polars()`, `.arrow()`, `.batches()`; `credit@3#train` is a split."""
        from everloop.client.dataset_view import Dataset, parse

        parsed, part = parse(ref)
        return Dataset(self._http, self.get(str(parsed)), part)

    def files(self, ref: str, prefix: str = "", limit: int = 100, after: str = "") -> dict[str, Any]:
        """Files of a version by path: {"ref", "format", "items": [{"path", "digest", "size"}], "total", "bytes", "next"}."""
        parsed = Ref.parse(ref, "dataset")
        path = f"/api/v1/datasets/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}/files"
        return self._http.get(path, params={"prefix": prefix or None, "limit": limit, "after": after or None})

    def checkout(
        self, ref: str, path: str | os.PathLike[str] | None = None, *, force: bool = False, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Bring a version's files here, verified: {"ref", "path", "files", "written"}. What is there already is not fetched again.

        Without `path`: a folder of the dataset's name (a table: NAME.parquet; a single file: its name). A file that was changed and whose content is
        stored nowhere is not replaced (Conflict) unless `force`.
        """
        from everloop.client.checkout import Checkout

        found = self.dataset(ref)
        manifest, name = found.manifest, found.asset["name"]
        single = found.format == "table" or bool((manifest.get("source") or {}).get("single"))
        work = Checkout(self._http, progress, force)
        if not single:
            target = Path(path or name)
            written = found.checkout(target, progress, force)
            return {"ref": found.ref, "path": str(target), "files": len(found.files()), "written": written}
        file = found.files()[0]
        target = Path(path or (f"{name}.parquet" if found.format == "table" else file["path"]))
        work.file(file["digest"], file["size"], target / file["path"] if target.is_dir() else target)
        return {"ref": found.ref, "path": str(target), "files": 1, "written": work.written}

    def tag(self, ref: str, *names: str, **tags: str | None) -> dict[str, Any]:
        """Give a version names (aliases, which move there: `tag("credit@3", "gold")`) and tags (`source="bank"`; None removes one)."""
        asset = self.get(ref)
        path = f"/api/v1/assets/dataset/{quote(asset['name'], safe='')}"
        for name in names:
            self._http.put(f"{path}/aliases/{quote(name, safe='')}", json={"version": asset["version"]})
        if tags:
            self._http.patch(f"{path}/{asset['version']}", json={"tags": tags})
        return self.get(asset["ref"])

    def gc(self, *, grace: float | None = None, dry_run: bool = False) -> dict[str, Any]:
        """Delete the project's objects that nothing refers to and that are older than `grace` seconds (a day): {"deleted", "deleted_bytes", ...}.

        An admin's right. What a version, a run, a decision or a trace refers to stays, also what a deleted version that can be restored does.
        """
        return self._http.post("/api/v1/objects/gc" + query_text({"grace": grace, "dry_run": dry_run}), timeout=_SECONDS)

    def verify(self, ref: str | None = None) -> dict[str, Any]:
        """Have every object of the project, or of one version, read and checked: {"checked", "bytes", "damaged": [...], "damaged_count"}."""
        return self._http.post("/api/v1/objects/verify" + query_text({"ref": ref}), timeout=_SECONDS)

    def repair(self, source: str | os.PathLike[str] | None = None, *, places: Iterable[str] = (), progress: Progress | None = None) -> dict[str, Any]:
        """Mend damaged and missing objects of the project: {"damaged": [{"key", "error"}], "restored", "lost": [{"ref", "path", "digest"}], "lost_count"}.

        Damaged bytes are taken out, and put again from another copy in the store, from the home's folder where objects lie in a bucket, from `places`
        (URLs; a site admin's right), and from `source`, a folder or file here that has some of them, say a checkout. An admin's right.
        """
        done = self._http.post("/api/v1/objects/repair", json={"places": [*places]}, timeout=_SECONDS)
        if source is not None and not Path(source).exists():
            raise BadInput(f"There is no file or folder {source}.", "Give a folder with files that may be lost.")
        while source is not None and done["wanted"]:
            from everloop.client.mend import Mend

            Mend(self._http, done["wanted"], progress).folder(Path(source))
            after = self._http.post("/api/v1/objects/repair", json={"scan": False}, timeout=_SECONDS)
            came = set(done["wanted"]) - set(after["wanted"])
            done |= {"restored": done["restored"] + len(came), **{k: after[k] for k in ("lost", "lost_count", "wanted")}}
            if not came:  # a list of files that came back may name more that is wanted
                break
        return {key: value for key, value in done.items() if key != "wanted"}

    def move(self, to: str, *, remove: bool = False) -> dict[str, Any]:
        """Begin, or go on, to move all objects to s3://BUCKET/PREFIX or to "home", the server's own folder; answers the state (see `moved`).

        Each file is checked before and compared after; meanwhile both places are read. With `remove` files go from the old place once all are
        copied. A site admin's right.
        """
        return self._http.post("/api/v1/objects/move", json={"to": to, "remove": remove})

    def moved(self) -> dict[str, Any]:
        """How far a move is: {"to", "from", "state": none | running | done | damaged | stopped | failed, "total", "copied", "there", "damaged", ...}."""
        return self._http.get("/api/v1/objects/move")

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
        """One version: schema, statistics, roles, notes in its manifest. Of a split (`credit@3#train`), the version that has it."""
        from everloop.client.dataset_view import parse

        parsed, _ = parse(ref)
        return self._http.get(f"/api/v1/assets/dataset/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}")

    def rows(self, ref: str, limit: int = 50, offset: int = 0) -> dict[str, Any]:
        """Some rows of a version or of a split of it: {"ref", "columns", "rows", "total", "next"}."""
        from everloop.client.dataset_view import parse

        parsed, part = parse(ref)
        at = (parsed.at or "latest") + (f"#{part}" if part else "")
        path = f"/api/v1/datasets/{quote(parsed.name, safe='')}/{quote(at, safe='')}/rows"
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
        """The whole table (or a split of it: `credit@3#train`) as an Arrow table."""
        return self.dataset(ref).arrow()

    def frame(self, ref: str) -> Any:
        """The whole table as a pandas DataFrame."""
        return self.table(ref).to_pandas()

    def _send(self, fields: Mapping[str, str], path: Path, name: str) -> dict[str, Any]:
        """Upload a table's file; a large one without holding it in memory (then it is not tried again on failure)."""
        if path.stat().st_size <= UPLOAD_MEMORY_BYTES:
            return self._http.upload("/api/v1/datasets", fields, [("file", name, path.read_bytes())], timeout=_SECONDS)
        boundary = secrets.token_hex(16)
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        return self._http.request("POST", "/api/v1/datasets", data=_parts(fields, path, name, boundary), headers=headers, timeout=_SECONDS)


def _parts(fields: Mapping[str, str], path: Path, name: str, boundary: str) -> Iterator[bytes]:
    for key, value in fields.items():
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
    name = name.replace('"', "%22")
    yield f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode()
    with path.open("rb") as file:
        while piece := file.read(1024 * 1024):
            yield piece
    yield f"\r\n--{boundary}--\r\n".encode()


def _is_table(path: Path) -> bool:
    """Whether a path names a table: a file by its name's end. What is not there counts as one, so that the refusal is the same."""
    return not path.is_dir() and (path.suffix.lower() in TABLES or not path.exists())


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
