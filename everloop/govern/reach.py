"""What some rows or documents reached: forward over the lineage, through what steps declared, and where they declared nothing as far as it could be.

Each node is reached in one of two ways. *Surely*: every step on the way said which rows it took, or took the whole of a version (a release that pins a
model). *Perhaps*: a step on the way read the version and did not say which of its rows, so the answer is an upper bound. A node that is reached in
neither way was not reached: on every way to it a step declared that it left these rows out.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Follow = Callable[[Mapping[str, Any], Any], tuple[bool, Any]]
"""(declaration, sorted rows of its source) to (whether any came into its target, their places there or None)."""
WHOLE = ("pins", "part_of")
"""Relations by which all of a version goes along."""


class Reach:
    """The walk. `states[node, sure]` is the sorted rows of the node that came of those asked for, or None where it is not known which."""

    def __init__(self, edges: Iterable[Mapping[str, Any]], declared: Iterable[Mapping[str, Any]], follow: Follow) -> None:
        self.states: dict[tuple[str, bool], Any] = {}
        self.left_out: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self._follow = follow
        self._out: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self._made: dict[str, list[str]] = defaultdict(list)
        self._said: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        for edge in edges:
            if edge["relation"] == "made":
                self._made[edge["source"]].append(edge["target"])
            else:
                self._out[edge["source"]].append(edge)
        for one in declared:
            self._said[one["source"], one["target"]].append(one)
        self._queue: deque[tuple[str, bool]] = deque()

    def walk(self, starts: Mapping[str, Any]) -> Reach:
        """From rows of some versions ({reference: sorted rows}) to all that they reached; answers itself."""
        for node, rows in starts.items():
            self._add(node, True, rows)
        while self._queue:
            node, sure = self._queue.popleft()
            for edge in self._out[node]:
                for certain, rows in self._over(edge, sure, self.states[node, sure]):
                    self._add(edge["target"], certain, rows)
                    if edge["relation"] == "read":
                        self._through(edge["target"], node)
        return self

    def how(self, node: str) -> str:
        """yes, may or no."""
        return "yes" if (node, True) in self.states else "may" if (node, False) in self.states else "no"

    def rows(self, node: str) -> Any:
        """The rows of a node that came of those asked for; None where that is not known, or where it has none."""
        return self.states.get((node, True), self.states.get((node, False)))

    def _add(self, node: str, sure: bool, rows: Any) -> None:
        key = (node, sure)
        if key not in self.states:
            self.states[key] = rows
        else:
            import numpy as np

            before = self.states[key]
            joined = None if before is None or rows is None else np.union1d(before, rows)
            if joined is before or (joined is not None and len(joined) == len(before)):
                return
            self.states[key] = joined
        self._queue.append(key)

    def _over(self, edge: Mapping[str, Any], sure: bool, rows: Any) -> Sequence[tuple[bool, Any]]:
        """How the target of an edge is reached: nothing, or (surely or not, rows)."""
        said = self._said.get((edge["source"], edge["target"]))
        if said:
            found = [one for declared in said for one in self._declared(declared, sure, rows)]
            if not found:
                self.left_out[edge["target"]] = said
            return found
        whole = edge["relation"] in WHOLE or edge["relation"] == "read" or not edge["source"].startswith("dataset:")
        return [(sure and whole, None)]

    def _declared(self, said: Mapping[str, Any], sure: bool, rows: Any) -> Sequence[tuple[bool, Any]]:
        if said["form"] == "none":
            return []
        if said["form"] == "all":
            return [(sure, rows if said["of"] == said["into"] else None)]
        if rows is None:
            return [(False, None)] if said["count"] else []
        hit, places = self._follow(said, rows)
        return [(sure, places)] if hit else []

    def _through(self, run: str, source: str) -> None:
        """What a run made that read `source`, and of which nobody said more than that."""
        for made in self._made[run]:
            told = any(edge["target"] == made for edge in self._out[source]) or (source, made) in self._said
            if not told and made != source:
                self._add(made, False, None)
