"""Chains of versions that only feed their own next version (a weekly load that takes in the last) are told as one line, not as one a week."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def earlier(subject: str, edges: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What of `subject`'s lineage can be told in few words: {"hidden": [nodes], "chains": [{"after": version, "count": earlier versions}]}.

    Hidden are dataset versions that go into nothing but later versions of their own name, and all that is behind those alone.
    """
    after: dict[str, list[str]] = {}
    before: dict[str, list[str]] = {}
    for edge in edges:
        after.setdefault(edge["source"], []).append(edge["target"])
        before.setdefault(edge["target"], []).append(edge["source"])

    def inner(ref: str) -> bool:
        name = _name(ref)
        if name is None or ref == subject:
            return False
        made = [one for target in after[ref] for one in (after.get(target, []) if target.startswith("run:") else [target])]
        runs_idle = any(target.startswith("run:") and not after.get(target) for target in after[ref])
        return bool(made) and not runs_idle and all(_name(one) == name for one in made)

    folded = {ref for ref in after if inner(ref)}
    reached, ahead = {subject}, [subject]
    while ahead:
        more = [one for one in before.get(ahead.pop(), []) if one not in reached and one not in folded]
        reached.update(more)
        ahead += more
    chains = []
    for name in sorted({str(_name(ref)) for ref in folded}):
        kept = [ref for ref in reached if _name(ref) == name]
        newest = max(kept, key=lambda ref: int(ref.rpartition("@")[2])) if kept else name
        chains.append({"after": newest, "count": sum(_name(ref) == name for ref in folded)})
    nodes = {*after, *before}
    return {"hidden": sorted(nodes - reached), "chains": chains}


def _name(ref: str) -> str | None:
    return ref.rpartition("@")[0] if ref.startswith("dataset:") else None
