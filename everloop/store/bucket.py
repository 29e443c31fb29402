"""Objects in a bucket of an S3-compatible store, through obstore (extra `s3`).

Where and who comes from the environment, as every S3 client reads it: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, and
AWS_ENDPOINT_URL for a store that is not Amazon's. Large files go in parts; what fails on the way is tried again. A file cannot be touched in a
bucket: a small one below `touched/` stands for that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from everloop.core.errors import BadInput, EverloopError, MissingDependency, UpstreamFailed
from everloop.core.limits import BUCKET_PART_BYTES, BUCKET_RETRIES, BUCKET_RETRY_SECONDS, BUCKET_SEEN_SECONDS
from everloop.store.places import Found

T = TypeVar("T")
_TOUCHED = "touched"


class Bucket:
    """Files below s3://BUCKET/PREFIX. UpstreamFailed where the store cannot be reached; BadInput where the bucket or the right is missing."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError:
            raise MissingDependency("obstore", f"to keep objects in {url}", "s3") from None
        from datetime import timedelta

        self.url = url.rstrip("/")
        self._obstore = obstore
        more = {"client_options": {"allow_http": True}} if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://") else {}
        retry = {"max_retries": BUCKET_RETRIES, "retry_timeout": timedelta(seconds=BUCKET_RETRY_SECONDS)}
        try:
            self._store: Any = S3Store.from_url(self.url, retry_config=retry, **more)  # type: ignore[arg-type]
        except obstore.exceptions.BaseError as error:
            raise BadInput(f"{url} cannot be a place for objects: {_said(error)}.", "Write it as s3://BUCKET/PREFIX.") from error

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """One request, or several parts where it is large; it is there when all are."""
        data = b"".join(parts)
        self._call(lambda: self._obstore.put(self._store, key, data, chunk_size=BUCKET_PART_BYTES))

    def take(self, key: str, file: Path) -> None:
        """Sent in parts, never whole in memory."""
        self._call(lambda: self._obstore.put(self._store, key, file, chunk_size=BUCKET_PART_BYTES))

    def read(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if size == 0:
            return b""
        if size is None and not offset:
            return bytes(self._call(lambda: self._obstore.get(self._store, key).bytes()))
        end = offset + size if size is not None else self._size(key)
        return bytes(self._call(lambda: self._obstore.get_range(self._store, key, start=offset, end=end)))

    def stat(self, key: str) -> Found | None:
        try:
            found = self._call(lambda: self._obstore.head(self._store, key))
        except FileNotFoundError:
            return None
        at = found["last_modified"].timestamp()
        try:
            at = max(at, self._call(lambda: self._obstore.head(self._store, _mark(key)))["last_modified"].timestamp())
        except FileNotFoundError:
            pass
        return Found(key, found["size"], at)

    def touch(self, key: str) -> None:
        self._call(lambda: self._obstore.put(self._store, _mark(key), b""))

    def remove(self, key: str) -> bool:
        if self.stat(key) is None:
            return False
        self._call(lambda: self._obstore.delete(self._store, [key, _mark(key)]))
        return True

    def list(self, prefix: str) -> Iterator[Found]:
        touched = {found["path"]: found["last_modified"].timestamp() for found in self._listed(_mark(prefix))}
        for found in self._listed(prefix):
            at = found["last_modified"].timestamp()
            yield Found(found["path"], found["size"], max(at, touched.get(_mark(found["path"]), 0.0)))

    def state(self, prefix: str) -> object:
        """Another value every BUCKET_SEEN_SECONDS: what other processes put is seen after that, what this one put at once."""
        return int(time.time() / BUCKET_SEEN_SECONDS)

    def file(self, key: str) -> Path | None:
        return None

    def check(self) -> None:
        """Raise what is wrong with the bucket, if anything: it is missing, may not be written, or does not answer."""
        probe = f"probe/{os.getpid()}"
        self.write(probe, [b"everloop"])
        self._call(lambda: self._obstore.delete(self._store, probe))

    def _size(self, key: str) -> int:
        return int(self._call(lambda: self._obstore.head(self._store, key))["size"])

    def _listed(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = iter(self._obstore.list(self._store, prefix, chunk_size=1000))
        while True:
            page = self._call(lambda: next(pages, None))
            if page is None:
                return
            yield from map(dict, page)

    def _call(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._error(error) from error
            raise
        except (self._obstore.exceptions.BaseError, OSError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> EverloopError:
        text = str(error)
        if "NoSuchBucket" in text:
            return BadInput(f"The bucket of {self.url} does not exist.", "Make it, or set EVERLOOP_OBJECTS to one that is there.")
        if isinstance(error, PermissionError) or any(word in text for word in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403")):
            return BadInput(f"{self.url} refuses the credentials: {_said(error)}.", "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION.")
        if "credential" in text.lower():
            return BadInput(f"There are no credentials for {self.url}.", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
        return UpstreamFailed(f"{self.url} does not answer as it should: {_said(error)}.", "Try again; nothing of this write is referred to.")


def _mark(key: str) -> str:
    """Where it is noted that a file was found again: below the project, so that its own listing does not show it."""
    project, _, rest = key.partition("/")
    return f"{project}/{_TOUCHED}/{rest}"


def _said(error: Exception) -> str:
    return " ".join(str(error).split("\n\nDebug source:")[0].split())[:300].rstrip(".")
