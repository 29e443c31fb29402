"""`el.dataset("credit@3")`: one version of a dataset, read when it is asked for."""

from __future__ import annotations

import builtins
import io
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.client.checkout import Checkout
from everloop.client.file_cache import cache_folder
from everloop.core import packs, trees
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import DATASET_CACHE_BYTES, DATASET_MEMORY_BYTES
from everloop.core.refs import Ref, cut_part

SECONDS = 1800.0
PARQUET = "data.parquet"


def dataset(ref: str, client: Any = None) -> Dataset:
    """The dataset version that `ref` means now: `credit@3`, `credit@champion`, `credit` (the latest), `credit@3#train` (a split of it).

    Nothing is fetched but its description. NotFound says which versions there are.
    """
    from everloop.client.base import default

    return (client or default()).data.dataset(ref)


class Dataset:
    """One version of a dataset. Its bytes come when `path`, `arrow()` and the like are used; they are kept in the cache folder, by content."""

    def __init__(self, http: Any, asset: Mapping[str, Any], part: str = "") -> None:
        self._http = http
        self.asset = dict(asset)
        self.part = part
        self._entries: list[dict[str, Any]] | None = None
        if part and part not in self.splits:
            raise NotFound(f"{asset['ref']} has no split {part!r}.", f"It has: {', '.join(self.splits) or 'none'}.")

    @property
    def ref(self) -> str:
        """The exact reference, with the split where one was named."""
        return str(self.asset["ref"]) + (f"#{self.part}" if self.part else "")

    @property
    def version(self) -> int:
        """The version's number."""
        return int(self.asset["version"])

    @property
    def manifest(self) -> dict[str, Any]:
        """What is known of it: format, schema, statistics, files, splits."""
        return dict(self.asset["manifest"])

    @property
    def format(self) -> str:
        """table, files or documents."""
        return str(self.manifest.get("format"))

    @property
    def splits(self) -> dict[str, int]:
        """Names of its splits and how many rows (or files) each has."""
        return dict((self.manifest.get("splits") or {}).get("names") or {})

    def split(self, name: str) -> Dataset:
        """One split of it; NotFound lists those there are."""
        return Dataset(self._http, self.asset, name)

    def files(self) -> builtins.list[dict[str, Any]]:
        """Its files: [{"path", "digest", "size"}], those of the split where one was named."""
        if self._entries is None:
            self._entries = self._listed()
        return [entry for entry in self._entries if "digest" in entry]

    @property
    def path(self) -> Path:
        """A local folder with its files (for a table, the Parquet file), fetched at first use and verified. Do not change files in it."""
        place = cache_folder() / "data" / str(self.asset["digest"])
        if self.part and self.format != "table":
            place = place.with_name(f"{place.name}-{packs.digest_of(self.part.encode())[:16]}")
        target = place / PARQUET if self.format == "table" else place
        if not target.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _trim(place.parent)
            if target is place:
                self.checkout(place)
            else:
                held = self._parquet()
                Checkout(self._http).file(held["digest"], held["size"], target)
        os.utime(place)
        return target

    def checkout(self, target: Path, progress: Any = None, force: bool = False) -> int:
        """Make the folder `target` hold its files; answers how many were written. See Checkout for what is refused."""
        work = Checkout(self._http, progress, force)
        self.files()
        work.folder(self._entries or [], Path(target))
        return work.written

    def open(self, path: str) -> io.BytesIO:
        """One of its files, in memory; NotFound if it has none of that path."""
        found = next((entry for entry in self.files() if entry["path"] == path), None)
        if found is None:
            raise NotFound(f"{self.ref} has no file {path!r}.", "See .files() for those it has.")
        return io.BytesIO(self._object(found["digest"]))

    def batches(self, rows: int = 65_536) -> Iterator[Any]:
        """A table as Arrow record batches of at most so many rows, never all in memory."""
        import pyarrow.parquet as pq

        chosen = self._chosen()
        at = 0
        self._parquet()
        with pq.ParquetFile(str(self.path), pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=rows, use_threads=False):
                if chosen is None:
                    yield batch
                else:
                    kept = batch.filter(chosen.slice(at, len(batch)))
                    if len(kept):
                        yield kept
                at += len(batch)

    def arrow(self, columns: builtins.list[str] | None = None) -> Any:
        """A table (or its split) as an Arrow table, all or some columns."""
        import pyarrow.parquet as pq

        held = self._parquet()
        source: Any = io.BytesIO(self._object(held["digest"])) if held["size"] <= DATASET_MEMORY_BYTES else str(self.path)
        found = pq.read_table(source, columns=columns, pre_buffer=False)  # its threads can abort a program that ends right after
        chosen = self._chosen()
        return found if chosen is None else found.filter(chosen)

    def pandas(self, columns: builtins.list[str] | None = None) -> Any:
        """A table (or its split) as a pandas DataFrame."""
        return self.arrow(columns).to_pandas()

    def polars(self, columns: builtins.list[str] | None = None) -> Any:
        """A table (or its split) as a Polars DataFrame; MissingDependency where Polars is not installed."""
        try:
            import polars
        except ImportError:
            from everloop.core.errors import MissingDependency

            raise MissingDependency("polars", "to read a dataset as a Polars DataFrame") from None
        return polars.from_arrow(self.arrow(columns))

    def __repr__(self) -> str:
        return f"<{self.ref}: {self.format}>"

    def _parquet(self) -> dict[str, Any]:
        """The file of a table; BadInput for what is none."""
        if self.format != "table":
            raise BadInput(f"{self.asset['ref']} holds {self.format}, not a table.", "Use .path, .files() or .open(PATH).")
        return dict(next(f for f in self.manifest["files"] if f["path"] == PARQUET))

    def _chosen(self) -> Any:
        """Which rows the split has, as an Arrow boolean array; None for all."""
        if not self.part:
            return None
        import pyarrow.compute as pc

        return pc.equal(self._codes(), self.part)

    def _codes(self) -> Any:
        import pyarrow.parquet as pq

        data = io.BytesIO(self._object(self.manifest["splits"]["digest"]))
        return pq.read_table(data, pre_buffer=False).column("split").combine_chunks()

    def _listed(self) -> builtins.list[dict[str, Any]]:
        if "tree" not in self.manifest:
            return [dict(entry) for entry in self.manifest.get("files") or []]
        lines = io.BytesIO(self._object(self.manifest["tree"]["digest"]))
        found = list(trees.load(lines))
        if not self.part:
            return found
        codes = self._codes().to_pylist()
        files = [entry for entry in found if "digest" in entry]
        return [entry for entry, code in zip(files, codes, strict=True) if code == self.part]

    def _object(self, digest: str) -> bytes:
        data: bytes = self._http.get_bytes(f"/api/v1/objects/{quote(digest)}", timeout=SECONDS)
        if packs.digest_of(data) != digest:
            raise BadInput(f"The bytes that came are not those of {digest}.", "Try again.")
        return data


def _trim(folder: Path) -> None:
    """Keep cached datasets within DATASET_CACHE_BYTES, longest unused first, none used in the last hour."""
    held = []
    for place in folder.iterdir():
        if not place.name.startswith("."):
            size = sum(file.lstat().st_size for file in place.rglob("*"))
            held.append((place.stat().st_mtime, size, place))
    total = sum(size for _, size, _ in held)
    for used, size, place in sorted(held):
        if total <= DATASET_CACHE_BYTES or used > time.time() - 3600:
            return
        shutil.rmtree(place, ignore_errors=True)
        total -= size


def parse(ref: str) -> tuple[Ref, str]:
    """(reference, split) of `name@3#train`; the split is "" where none is named."""
    head, part = cut_part(ref)
    return Ref.parse(head, "dataset"), part
