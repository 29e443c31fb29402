"""The list of a folder's files as an object: JSON lines sorted by path, so that equal folders have equal digests.

    {"digest": "ab...", "path": "img/1.png", "size": 4096}       a file; with "mode": 493 where it may be executed
    {"link": "../shared/x.png", "path": "img/x.png"}             a symbolic link that stays inside the folder
    {"folder": true, "path": "empty"}                            a folder with nothing in it

Paths are relative, with "/" between parts, in UTF-8.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.limits import TREE_PATH_CHARS

EXECUTABLE = 0o755
FORMAT = "files"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def dump(entries: Iterable[dict[str, Any]]) -> bytes:
    """The canonical bytes of a list of entries."""
    import orjson

    ordered = sorted(entries, key=lambda entry: str(entry["path"]))
    return b"".join(orjson.dumps(entry, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE) for entry in ordered)


def load(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The entries of a list, each checked (BadInput): no path leads out, stands twice, or lies below a file or link."""
    import orjson

    last = ""
    begun: list[str] = []  # files and links that the path at hand begins with, as text: only these can stand above it
    for number, line in enumerate(lines, 1):
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise BadInput(f"Line {number} of the list of files is not JSON.", "It was cut short, or is no list of files.") from None
        path = check(entry, number)
        if path <= last:
            raise BadInput(f"The list of files is not in order at {path!r}.", "Sort it by path; each path stands once.")
        last = path
        while begun and not path.startswith(begun[-1]):
            begun.pop()
        for above in begun:
            if path[len(above)] == "/":
                raise BadInput(f"{path!r} lies below {above!r}, which is no folder.")
        if "folder" not in entry:
            begun.append(path)
        yield entry


def check(entry: Any, number: int = 0) -> str:
    """The path of an entry that is one; BadInput otherwise."""
    if not isinstance(entry, dict):
        raise BadInput(f"Line {number} of the list of files is no object.")
    path = check_path(entry.get("path"))
    kinds = [kind for kind in ("digest", "link", "folder") if kind in entry]
    if len(kinds) != 1 or set(entry) - {"path", "digest", "size", "mode", "link", "folder"}:
        raise BadInput(f"The entry of {path!r} is neither a file, a link nor an empty folder.", "See everloop/core/trees.py for the format.")
    if "digest" in entry and not (_DIGEST.fullmatch(str(entry["digest"])) and isinstance(entry.get("size"), int) and entry["size"] >= 0):
        raise BadInput(f"The entry of {path!r} has no digest and size that can be.")
    if "link" in entry:
        check_link(path, entry["link"])
    return path


def check_path(path: Any) -> str:
    """A relative path that stays inside; BadInput otherwise."""
    if not isinstance(path, str) or not path or len(path) > TREE_PATH_CHARS:
        raise BadInput(f"{str(path)[:80]!r} cannot be the path of a file.", f"Use 1 to {TREE_PATH_CHARS} characters.")
    if "\0" in path or path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise BadInput(f"The path {path[:200]!r} could lead out of its folder.", "Paths are relative, without '..', '.' or empty parts.")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise BadInput(f"The name {path!r} is not UTF-8.", "Rename the file; names are kept as UTF-8.") from None
    return path


def check_link(path: str, target: Any) -> str:
    """The target of a symbolic link, if it is relative and stays inside the folder; BadInput otherwise."""
    inside = isinstance(target, str) and bool(target) and not target.startswith("/") and "\0" not in target
    if not inside or posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).split("/")[0] == "..":
        raise BadInput(f"The symbolic link {path!r} leads out of the folder (to {str(target)[:200]!r}).", "Copy the file in, or leave the link out.")
    return str(target)
