"""Two lists of files compared by path and content: what came, went, changed, or only has another name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from everloop.core.limits import DIFF_FILES_SHOWN


def compare(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]], limit: int = DIFF_FILES_SHOWN) -> dict[str, Any]:
    """{"counts": {"added", "removed", "changed", "renamed", "same"}, "added": [file], "removed": [file], "changed": [...], "renamed": [...],
    "bytes": {"from", "to"}, "cut": bool} of two lists of {"path", "digest", "size", ...}.

    A removed and an added path with the same digest are one renamed file. At most `limit` of each are listed, by path; all are counted.
    """
    before, after = {f["path"]: f for f in old}, {f["path"]: f for f in new}
    gone = [before[p] for p in sorted(before.keys() - after.keys())]
    came = [after[p] for p in sorted(after.keys() - before.keys())]
    changed = [p for p in sorted(before.keys() & after.keys()) if _identity(before[p]) != _identity(after[p])]
    renamed, gone, came = _renames(gone, came)
    both = [{"path": p, **{k: {"from": before[p].get(k), "to": after[p].get(k)} for k in ("digest", "size")}} for p in changed[:limit]]
    counts = {"added": len(came), "removed": len(gone), "changed": len(changed), "renamed": len(renamed)}
    return {
        "counts": {**counts, "same": len(before.keys() & after.keys()) - len(changed)},
        "added": [_shown(f) for f in came[:limit]],
        "removed": [_shown(f) for f in gone[:limit]],
        "changed": both,
        "renamed": renamed[:limit],
        "bytes": {"from": sum(f.get("size") or 0 for f in before.values()), "to": sum(f.get("size") or 0 for f in after.values())},
        "cut": max(counts.values()) > limit,
    }


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
