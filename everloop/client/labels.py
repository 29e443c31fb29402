"""`client.labels`: annotation queues: make one, label, see how far annotators agree, make a dataset version of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote


class Labels:
    """What people label, by a rubric, and what comes of it."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def make(self, name: str, source: str, rubric: Sequence[Mapping[str, Any]], **spec: Any) -> dict[str, Any]:
        """A queue over dataset:NAME (rows, documents) or endpoint:NAME (traces).

        `rubric`: questions {"name", "type": class, score or text, "classes", "ordered", "min", "max", "instructions", "required"}. `spec`: annotators
        (names; viewers may be among them; ["*"] is every member), overlap (labels wanted of each item), extra (more where those differ), assignment
        (open or dealt), order ("uncertainty" or {"by": "uncertainty", "release": ...}; given, random, score, disagreement), limit, columns (that
        annotators see), instructions, since, until (of traces).
        """
        return self._http.put(self._path(name), json={"source": source, "rubric": [*rubric], **spec}, timeout=300)

    def list(self) -> list[dict[str, Any]]:
        """All queues, with how far each is."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self._http.get("/api/v1/queues", params={"limit": 500, "cursor": cursor})
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                return found

    def get(self, name: str) -> dict[str, Any]:
        """One queue: spec, progress, annotators, and Krippendorff's alpha for each question."""
        return self._http.get(self._path(name))

    def items(self, name: str) -> list[dict[str, Any]]:
        """All items with their labels (your own only, unless you are editor)."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self._http.get(self._path(name, "items"), params={"limit": 500, "cursor": cursor})
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                return found

    def next(self, name: str) -> dict[str, Any] | None:
        """The next item for you, {"item", "shown", "why"}; None where nothing is left. Others do not get it for 15 minutes."""
        return self._http.post(self._path(name, "next"), json={})["item"]

    def label(self, name: str, item: str, answers: Mapping[str, Any], comment: str = "") -> dict[str, Any]:
        """Answer the rubric for an item; a second time replaces the first."""
        return self._http.post(self._path(name, "labels"), json={"item": item, "answers": dict(answers), "comment": comment})

    def skip(self, name: str, item: str, comment: str = "") -> dict[str, Any]:
        """Say that you cannot tell."""
        return self._http.post(self._path(name, "labels"), json={"item": item, "skip": True, "comment": comment})

    def change(self, name: str, *, annotators: Sequence[str] | None = None, closed: bool | None = None) -> dict[str, Any]:
        """Name other annotators, close a queue, or open it again."""
        return self._http.patch(self._path(name), json={"annotators": annotators and [*annotators], "closed": closed})

    def dataset(self, name: str, dataset: str | None = None, *, least: int = 1, target: str | None = None) -> dict[str, Any]:
        """The labels as the next version of a dataset (default: of the queue's name), of items with at least `least` labels."""
        return self._http.post(self._path(name, "dataset"), json={"dataset": dataset, "least": least, "target": target}, timeout=300)

    def _path(self, name: str, *more: str) -> str:
        return "/".join(["/api/v1/queues", quote(name, safe=""), *more])
