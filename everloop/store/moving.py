"""Objects moved from one place to another, say from the home's folder to a bucket, while the server goes on.

`place.json` beside the home's objects tells where they go: {"to", "from", "done"}; URLs as store/places.py reads them, "" is the home's folder. Until
it is done, what is new is written to the new place and everything is read wherever it is (Both). A file is checked before it is copied, and read
back from the new place and compared after. Killed in the middle, a move goes on with what is not there yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from everloop.core import packs
from everloop.core.errors import BadInput, EverloopError
from everloop.core.limits import VERIFY_SHOWN
from everloop.store.files import temp_name, write_parts
from everloop.store.objects import digest_of
from everloop.store.places import Both, Found, Place, open_place

LOCAL = {"tmp", "whole", "lock"}
"""Parts of a project's folder that stay on this host: locks and caches."""
_FILE = "place.json"


@dataclass
class Moved:
    """How far a move is. `copied` counts what this one copied, `there` what was there already."""

    to: str
    source: str
    state: str = "running"
    total: int = 0
    total_bytes: int = 0
    copied: int = 0
    copied_bytes: int = 0
    there: int = 0
    removed: int = 0
    damaged: list[dict[str, str]] = field(default_factory=list)
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a dict, "from" for the place that files come from."""
        told = asdict(self)
        return {"from": told.pop("source"), **told}


def read_plan(root: Path) -> dict[str, Any] | None:
    """Where the objects of a home were last told to move: {"to", "from", "done"}; None where never."""
    try:
        found = orjson.loads((root / _FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise BadInput(
            f"{root / _FILE} cannot be read: {error}.", 'It tells where objects lie: restore it, or write {"to": URL, "done": true}.'
        ) from None
    return dict(found)


def write_plan(root: Path, plan: dict[str, Any], fsync: bool) -> None:
    """Keep where objects move to."""
    root.mkdir(parents=True, exist_ok=True)
    temp = temp_name(root)
    write_parts(temp, [orjson.dumps(plan)], fsync, 0o644)
    os.replace(temp, root / _FILE)


def where(setting: str, root: Path) -> tuple[str, str | None]:
    """(URL of the place that objects are written to, URL of one they may still lie in or None) for a setting and what a move left."""
    plan = read_plan(root)
    to = setting or (plan["to"] if plan else "")
    if plan is not None and plan["to"] == to:
        return to, None if plan["done"] else plan["from"]
    if plan is not None:
        return to, plan["to"]
    return to, "" if to and _has_objects(root) else None


def place(setting: str, root: Path, fsync: bool = True) -> Place:
    """The place, or the two places, that a server reads and writes."""
    to, old = where(setting, root)
    new = open_place(to, root, fsync)
    return new if old is None else Both(new, open_place(old, root, fsync))


def move(new: Place, old: Place, projects: Iterable[str], told: Moved, *, remove: bool = False, stop: Callable[[], bool] = lambda: False) -> None:
    """Copy all files of these project folders that `new` has not, checked; `told` is brought up to date as it goes. Blocking.

    A damaged file is told and stays where it is. With `remove` files that are in the new place go from the old one, once all are copied.
    """
    files = [found for project in projects for found in old.list(project) if _part(found.key) not in LOCAL]
    told.total, told.total_bytes = len(files), sum(found.size for found in files)
    bad: set[str] = set()
    for found in files:
        if stop():
            told.state = "stopped"
            return
        there = new.stat(found.key)
        if there is not None and there.size == found.size:
            told.there += 1
            continue
        why = _copied(new, old, found)
        if why:
            bad.add(found.key)
            if len(told.damaged) < VERIFY_SHOWN:
                told.damaged.append({"key": found.key, "error": why})
            continue
        told.copied, told.copied_bytes = told.copied + 1, told.copied_bytes + found.size
    for found in files if remove else ():
        if found.key not in bad:
            told.removed += old.remove(found.key)
    told.state = "done" if not bad else "damaged"


def _copied(new: Place, old: Place, found: Found) -> str:
    """Copy one file; answers what is wrong with it, if anything. One that was deleted meanwhile is no fault."""
    try:
        data = old.read(found.key)
    except FileNotFoundError:
        return ""
    why = damage(found.key, data)
    if why:
        return why
    new.write(found.key, [data])
    if digest_of(new.read(found.key)) != digest_of(data):
        raise BadInput(f"{found.key} does not read back from the new place as it was written.", "The old place still has it. Look into the new one.")
    return ""


def damage(key: str, data: bytes) -> str:
    """What is wrong with a file of the object store, or "": each kind carries its own digests."""
    name, part = key.rsplit("/", 1)[-1], _part(key)
    try:
        if part == "packs":
            size = packs.header_size(data)
            told, entries = packs.entries(data[:size])
            for digest, offset, length in entries:
                if digest_of(data[offset : offset + length]) != digest:
                    return f"{digest} in it does not match its digest"
            return "" if told == name else f"it holds the pack {told}"
        if part in ("objects", "chunks") and name.endswith(".list"):
            head, _, body = data.partition(b"\n")
            return "" if digest_of(body) == head.decode(errors="replace") else "the list does not match its checksum"
        if part in ("objects", "chunks") and digest_of(data) != name:
            return "it does not match its digest"
    except EverloopError as error:
        return error.what
    return ""


def _part(key: str) -> str:
    return [*key.split("/"), ""][1]


def _has_objects(root: Path) -> bool:
    return root.is_dir() and any((folder / part).is_dir() for folder in root.iterdir() for part in ("packs", "objects", "chunks"))
