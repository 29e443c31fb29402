"""Datasets of files as they are: registered by their list, listed page by page, fetched many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from everloop.core import packs, trees
from everloop.core.errors import BadInput, EverloopError, NotFound, TooLarge
from everloop.core.limits import FETCH_BYTES, FETCH_OBJECTS, OBJECTS_ASKED, TREE_FILES, TREE_PAGE
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref, check_name

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

TYPES_SHOWN = 20


async def add(
    ws: Workspace,
    who: Principal,
    name: str,
    tree: str,
    *,
    description: str = "",
    run: str | None = None,
    reads: Iterable[str] = (),
    tags: Mapping[str, str] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Register the files that the object `tree` lists (core/trees.py) as the next version of `dataset:name`; answers the asset.

    BadInput for a list that is none; NotFound names files whose bytes are not here; nothing is registered then.
    """
    who.need(Role.editor, "add data")
    check_name(name)
    manifest = await asyncio.to_thread(manifest_of, ws, who.project, tree)
    manifest["source"] = dict(origin or {})
    return await ws.assets.register(who, "dataset", name, manifest, run=run, reads=reads, description=description, tags=dict(tags or {}))


def manifest_of(ws: Workspace, project: str, tree: str) -> dict[str, Any]:
    """The manifest of a list of files, every file of which is there. Blocking."""
    count = links = folders = total = 0
    types: dict[str, list[int]] = {}
    asked: dict[str, str] = {}
    only: dict[str, Any] = {}
    for entry in entries(ws, project, tree):
        if "link" in entry or "folder" in entry:
            links, folders = links + ("link" in entry), folders + ("folder" in entry)
            continue
        count, total = count + 1, total + entry["size"]
        kind = types.setdefault(PurePosixPath(entry["path"]).suffix.lower()[:20], [0, 0])
        kind[0], kind[1] = kind[0] + 1, kind[1] + entry["size"]
        asked[entry["digest"]] = entry["path"]
        only = {key: entry[key] for key in ("path", "digest", "size")}
        if len(asked) >= OBJECTS_ASKED:
            _need(ws, project, asked)
            asked = {}
        if count > TREE_FILES:
            raise TooLarge(f"The list names over {TREE_FILES:,} files.", "Make several datasets of it, or pack small files into archives or a table.")
    _need(ws, project, asked)
    if not count:
        raise BadInput("The list names no file at all.", "Add a folder with files in it.")
    shown = sorted(types.items(), key=lambda item: (-item[1][1], item[0]))[:TYPES_SHOWN]
    return {
        "format": trees.FORMAT,
        "files": [],
        "tree": {"digest": tree, "size": ws.objects.size(project, tree)},
        "count": count,
        "bytes": total,
        "single": only if count == 1 and not links and not folders and "/" not in only["path"] else None,
        "links": links,
        "folders": folders,
        "types": [{"type": kind, "count": n, "bytes": size} for kind, (n, size) in shown],
    }


def entries(ws: Workspace, project: str, tree: str) -> Iterator[dict[str, Any]]:
    """The files that an object lists, checked, one by one."""
    with ws.objects.open(project, tree) as lines:
        yield from trees.load(lines)


async def page(ws: Workspace, who: Principal, ref: str, prefix: str = "", limit: int = 100, after: str = "") -> dict[str, Any]:
    """Files of a version by path: {"ref", "format", "items": [{"path", "digest", "size", ...}], "total", "bytes", "next": path or None}.

    `prefix` is the beginning of their paths, `after` the `next` of the page before. Any dataset has files: a table its Parquet, documents theirs.
    """
    asset = await ws.assets.get(who.need(Role.viewer), Ref.parse(ref, "dataset"))
    limit = max(1, min(limit, TREE_PAGE))
    found = await asyncio.to_thread(_page, ws, who.project, asset["manifest"], prefix, limit + 1, after)
    following = found[limit - 1]["path"] if len(found) > limit else None
    manifest = asset["manifest"]
    total = manifest.get("count", len(manifest.get("files") or []))
    size = manifest.get("bytes", sum(f.get("size") or 0 for f in manifest.get("files") or []))
    return {"ref": asset["ref"], "format": manifest.get("format"), "items": found[:limit], "total": total, "bytes": size, "next": following}


def listed(ws: Workspace, project: str, manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The files of a dataset of any format, sorted by path."""
    if "tree" in manifest:
        yield from entries(ws, project, manifest["tree"]["digest"])
    else:
        yield from sorted((dict(f) for f in manifest.get("files") or []), key=lambda f: str(f["path"]))


def as_table(files: Iterable[Mapping[str, Any]]) -> Any:
    """Files as an Arrow table (path, folder, type, size), in their order, so that they can be split as rows are."""
    import pyarrow as pa

    paths, sizes = [], []
    for entry in files:
        if "digest" in entry:
            paths.append(PurePosixPath(entry["path"]))
            sizes.append(entry["size"])
    texts = {"path": [str(p) for p in paths], "folder": [str(p.parent) for p in paths], "type": [p.suffix.lower() for p in paths]}
    return pa.table({**{name: pa.array(values, pa.string()) for name, values in texts.items()}, "size": pa.array(sizes, pa.int64())})


def _page(ws: Workspace, project: str, manifest: Mapping[str, Any], prefix: str, limit: int, after: str) -> list[dict[str, Any]]:
    found = []
    for entry in listed(ws, project, manifest):
        if entry["path"] > after and entry["path"].startswith(prefix):
            found.append(entry)
            if len(found) >= limit:
                break
    return found


def frames(ws: Workspace, project: str, digests: list[str]) -> Iterator[bytes]:
    """The objects' bytes as frames (core/packs.py), in the order asked for; one that cannot be read ends it with its error."""
    if len(digests) > FETCH_OBJECTS:
        raise BadInput(f"{len(digests):,} objects were asked for; at most {FETCH_OBJECTS:,} go in one request.", "Ask in parts.")
    gone = ws.objects.missing(project, digests)
    if gone:
        raise NotFound(f"The project has no object {gone[0]}.", f"{len(gone):,} of the {len(digests):,} asked for are missing.")
    return _gathered(_framed(ws, project, digests))


def _framed(ws: Workspace, project: str, digests: list[str]) -> Iterator[bytes]:
    import orjson

    for digest in digests:
        try:
            yield from packs.framed(ws.objects.parts(project, digest))
        except EverloopError as error:
            told = orjson.dumps({**error.problem(), "digest": digest})
            yield packs.FRAME.pack(packs.FAILED, len(told)) + told
            return


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= FETCH_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _need(ws: Workspace, project: str, asked: Mapping[str, str]) -> None:
    gone = ws.objects.missing(project, list(asked))
    if gone:
        raise NotFound(
            f"The bytes of {len(gone):,} files are not here, among them {asked[gone[0]]!r} ({gone[0]}).", "Send them first: add the folder again."
        )
