"""Bytes that a server lost, sent again from files that are still here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from everloop.client.file_cache import FileCache, Stamp
from everloop.client.upload import Progress, Upload, local_entries
from everloop.core import trees
from everloop.core.errors import NotFound


class Mend(Upload):
    """Sends, of a folder's files, those objects and chunks that are wanted, and nothing else."""

    def __init__(self, http: Any, wanted: Iterable[str], progress: Progress | None = None) -> None:
        super().__init__(http, progress)
        self._wanted = set(wanted)
        self._all = False

    def folder(self, base: Path) -> str:
        """Look through a folder (or one file) and send what is wanted of it, and the list of its files if that is; answers the list's digest."""
        found = local_entries(base)
        entries = [entry for _, at, entry in found if at is None]
        entries += self._files([one for one in found if one[1] is not None], _Nothing())
        return self.put(trees.dump(entries))

    def _large(self, file: BinaryIO, name: str, total: int) -> tuple[str, int]:
        """As an upload does; where the list of chunks was lost too, nobody could tell which of them are wanted: then all that are missing are."""
        try:
            return super()._large(file, name, total)
        except NotFound:
            self._all = True
            file.seek(0)
            return super()._large(file, name, total)
        finally:
            self._all = False

    def _missing(self, digests: Iterable[str]) -> list[str]:
        return super()._missing(digest for digest in digests if self._all or digest in self._wanted)


class _Nothing(FileCache):
    """Remembers nothing: what the server has not is read, though it once had it."""

    def __init__(self) -> None:
        pass

    def get(self, path: str, at: Stamp) -> str | None:
        return None

    def put(self, seen: Sequence[tuple[str, Stamp, str]]) -> None:
        return
