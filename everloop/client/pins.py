"""Pins: a small text file beside data that git does not hold, which says which version of which dataset belongs there.

    # Pinned by everloop; `everloop data checkout` brings the data back.
    dataset: loans
    version: 3
    digest: 5f0c...     of the version
    content: 91ab...    of the file, or of the list of a folder's files
    files: 1
    size: 48211
    path: loans.csv     relative to this file

`loans.csv.everloop` is committed, `loans.csv` stands in .gitignore; so a commit of code names its data.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.client.checkout import Checkout, Progress
from everloop.client.file_cache import FileCache
from everloop.client.upload import SKIPPED, local_files
from everloop.core import packs, trees
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import PIN_CHARS
from everloop.core.refs import check_name

ENDING = ".everloop"
HEAD = "# Pinned by everloop; `everloop data checkout` brings the data back.\n"
_SKIP = {*SKIPPED, "node_modules", "__pycache__", ".venv"}
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """Which version belongs at a path. `file` is the pin's own file."""

    file: Path
    dataset: str
    version: int
    digest: str
    content: str
    files: int
    size: int
    path: str

    @property
    def target(self) -> Path:
        """Where the data belong."""
        return self.file.parent / self.path

    @property
    def ref(self) -> str:
        """The version as a reference."""
        return f"dataset:{self.dataset}@{self.version}"

    def text(self) -> str:
        """What stands in the pin's file."""
        names = ("dataset", "version", "digest", "content", "files", "size", "path")
        return HEAD + "".join(f"{name}: {getattr(self, name)}\n" for name in names)


def write(asset: dict[str, Any], path: Path) -> Pin:
    """Pin the version that was made of `path`: writes PATH.everloop and has git ignore PATH. BadInput where the version does not hold its bytes."""
    manifest = asset["manifest"]
    if "tree" in manifest and not (manifest.get("source") or {}).get("single"):
        content, files, size = manifest["tree"]["digest"], manifest["count"], manifest["bytes"]
    else:
        held = next((f for f in (manifest["files"] or [manifest.get("single")]) if f and f["path"] == path.name), None)
        if held is None:
            raise BadInput(f"{asset['ref']} does not hold {path.name} as it is, so it cannot be pinned.", "Add it again with --pin.")
        content, files, size = held["digest"], 1, held["size"]
    pin = Pin(path.with_name(path.name + ENDING), asset["name"], asset["version"], asset["digest"], content, files, size, path.name)
    pin.file.write_text(pin.text(), encoding="utf-8")
    _ignore(path)
    return pin


def read(file: Path) -> Pin:
    """The pin in a file; BadInput says what cannot be read in it."""
    try:
        with file.open(encoding="utf-8") as source:
            text = source.read(PIN_CHARS)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The pin {file} cannot be read: {error}.") from None
    if text.startswith("<<<<<<<") or "\n<<<<<<<" in text:
        raise BadInput(f"The pin {file} has a conflict of git in it.", "Choose one side, then check out again.")
    found = dict(re.findall(r"(?m)^(\w+): (.*)$", text))
    try:
        numbers = {name: int(found[name]) for name in ("version", "files", "size")}
        texts = {name: found[name] for name in ("dataset", "digest", "content", "path")}
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"The pin {file} is not whole: {error}.", "Get it from git again, or pin the data anew: everloop data add NAME PATH --pin"
        ) from None
    check_name(texts["dataset"])
    if "/" in trees.check_path(texts["path"]) or not all(_DIGEST.fullmatch(texts[n]) for n in ("digest", "content")):
        raise BadInput(f"The pin {file} names a path or digest that cannot be.", "A pin's data lie beside it.")
    return Pin(file=file, **texts, **numbers)


def find(folder: Path) -> Iterator[Pin]:
    """The pins in a folder and those below, by path."""
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIP)
        for name in sorted(files):
            if name.endswith(ENDING) and name != ENDING:
                yield read(Path(base) / name)


def checkout(http: Any, pin: Pin, force: bool = False, progress: Progress | None = None) -> int:
    """Bring a pin's data; answers how many files were written. NotFound where the server has neither the version nor the bytes."""
    work = Checkout(http, progress, force)
    if pin.files == 1 and not _is_tree(http, pin):
        work.file(pin.content, pin.size, pin.target)
    else:
        work.folder(_entries(http, pin), pin.target)
    return work.written


def status(http: Any, pin: Pin) -> dict[str, Any]:
    """How a pin's data differ from what is here: {"path", "ref", "state": same | changed | missing, "added", "removed", "changed", "newer"}.

    `newer` is the latest version's number where that is another one; None too where no server answers for it.
    """
    told: dict[str, Any] = {"path": str(pin.target), "ref": pin.ref, "state": "same", "added": [], "removed": [], "changed": []}
    try:
        latest = http.get(f"/api/v1/assets/dataset/{quote(pin.dataset, safe='')}/latest")["version"]
    except NotFound:
        latest = None
    told["newer"] = latest if latest is not None and latest > pin.version else None
    if not pin.target.exists():
        return {**told, "state": "missing"}
    here = {entry["path"]: entry for entry in local_files(pin.target, FileCache())}
    if pin.target.is_file():
        changed = here[pin.target.name]["digest"] != pin.content
        return {**told, "state": "changed" if changed else "same", "changed": [pin.target.name] if changed else []}
    if packs.digest_of(trees.dump(here.values())) == pin.content:
        return told
    there = {entry["path"]: entry for entry in _entries(http, pin)}
    told["added"], told["removed"] = sorted(here.keys() - there.keys()), sorted(there.keys() - here.keys())
    told["changed"] = sorted(path for path in here.keys() & there.keys() if here[path] != there[path])
    return {**told, "state": "changed"}


def _entries(http: Any, pin: Pin) -> list[dict[str, Any]]:
    data = http.get_bytes(f"/api/v1/objects/{pin.content}")
    if packs.digest_of(data) != pin.content:
        raise BadInput(f"The bytes that came are not those of {pin.content}.", "Try again.")
    return list(trees.load(io.BytesIO(data)))


def _is_tree(http: Any, pin: Pin) -> bool:
    """Whether a pin of one file is that of a folder with one file in it."""
    manifest = http.get(f"/api/v1/assets/dataset/{quote(pin.dataset, safe='')}/{pin.version}")["manifest"]
    return bool((manifest.get("tree") or {}).get("digest") == pin.content)


def _ignore(path: Path) -> None:
    """Have git ignore a path, by a line in the .gitignore beside it."""
    place = path.with_name(".gitignore")
    text = place.read_text(encoding="utf-8") if place.exists() else ""
    line = "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path.name)
    if line not in text.splitlines():
        place.write_text(text + ("" if not text or text.endswith("\n") else "\n") + line + "\n", encoding="utf-8")
