"""Two lists of files compared by path and content: what came, went, changed, or only has another name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from everloop.core.limits import DIFF_FILES_SHOWN


def compare(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]], limit: int = DIFF_FILES_SHOWN) -> dict[str, Any]:
    """{"counts": {"added", "removed", "changed", "renamed", "same"}, "added": [file], "removed": [file], "changed": [...], "renamed": [...],
    "bytes": {"from", "to"}, "cut": bool} of two lists of {"path", "digest", "size", ...}, each sorted by path.

    A removed and an added path with the same digest are one renamed file. At most `limit` of each are listed, by path; all are counted.
    """
    gone: list[Mapping[str, Any]] = []
    came: list[Mapping[str, Any]] = []
    changed: list[dict[str, Any]] = []
    counts = {"changed": 0, "same": 0}
    size = {"from": 0, "to": 0}
    for before, after in _pairs(iter(old), iter(new)):
        size["from"] += (before or {}).get("size") or 0
        size["to"] += (after or {}).get("size") or 0
        if before is None or after is None:
            came.append(after) if after is not None else gone.append(before or {})
        elif _identity(before) == _identity(after):
            counts["same"] += 1
        else:
            counts["changed"] += 1
            if len(changed) < limit:
                both = {k: {"from": before.get(k), "to": after.get(k)} for k in ("digest", "size")}
                changed.append({"path": after["path"], **both})
    renamed, gone, came = _renames(gone, came)
    counts |= {"added": len(came), "removed": len(gone), "renamed": len(renamed)}
    return {
        "counts": counts,
        "added": [_shown(f) for f in came[:limit]],
        "removed": [_shown(f) for f in gone[:limit]],
        "changed": changed,
        "renamed": renamed[:limit],
        "bytes": size,
        "cut": max(n for kind, n in counts.items() if kind != "same") > limit,
    }


def _pairs(old: Iterator[Mapping[str, Any]], new: Iterator[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """(old, new) by path, None on the side that has it not; both come sorted."""
    before, after = next(old, None), next(new, None)
    while before is not None or after is not None:
        first = min(f["path"] for f in (before, after) if f is not None)
        left = before if before is not None and before["path"] == first else None
        right = after if after is not None and after["path"] == first else None
        yield left, right
        before = next(old, None) if left is not None else before
        after = next(new, None) if right is not None else after


def _renames(
    gone: list[Mapping[str, Any]], came: list[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """(renamed, still gone, still new): each removed file meets the first added one of the same content, once."""
    waiting: dict[Any, list[Mapping[str, Any]]] = {}
    for file in reversed(came):
        if file.get("digest"):
            waiting.setdefault(_identity(file), []).append(file)
    renamed, left, taken = [], [], set()
    for file in gone:
        there = waiting.get(_identity(file))
        if not there:
            left.append(file)
            continue
        found = there.pop()
        taken.add(found["path"])
        renamed.append({"from": file["path"], "to": found["path"], "digest": file["digest"], "size": file.get("size")})
    return renamed, left, [f for f in came if f["path"] not in taken]


def _identity(file: Mapping[str, Any]) -> tuple[Any, ...]:
    return (file.get("digest"), file.get("link"), file.get("mode"))


def _shown(file: Mapping[str, Any]) -> dict[str, Any]:
    return {k: file[k] for k in ("path", "digest", "size", "link") if file.get(k) is not None}
