"""`client.indexes`: build an index of documents, look things up in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from everloop.core.refs import Ref

_CALL = "everloop.build.index:build"


class Indexes:
    """What chat releases retrieve from."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def build(
        self, name: str, documents: str, *, wait: float = 600.0, progress: Callable[[str, str], None] | None = None, **params: Any
    ) -> dict[str, Any]:
        """Index a documents dataset in a worker, as the next version of `index:name`; answers the asset once it is there.

        Params: chars, overlap, dims, update (see everloop.build.index). Waits `wait` seconds at most; BadInput says which param cannot be,
        NotFound that there is no such dataset.
        """
        from everloop.client.assets import Assets
        from everloop.client.pipelines import Pipelines

        pipelines, pipeline = Pipelines(self._http), f"index-{name}"
        exact = Assets(self._http).get(str(Ref.parse(documents, "dataset")))["ref"]
        given = {"documents": exact, "name": name, **params}
        pipelines.put(pipeline, {"steps": [{"name": "index", "call": _CALL, "after": []}], "params": given})
        done = pipelines.wait(pipelines.run(pipeline)["id"], timeout=wait, progress=progress)
        return Assets(self._http).get(next(t["result"]["index"] for t in done["tasks"] if t["step"] == "index"))

    def search(self, ref: str, query: str, k: int = 4, mode: str = "hybrid", min_score: float = 0.0) -> list[dict[str, Any]]:
        """The best k passages: {"n", "chunk", "document", "path", "title", "heading", "text", "score", "page"?}; mode: hybrid, text or vector."""
        parsed = Ref.parse(ref, "index")
        path = f"/api/v1/indexes/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}/search"
        return self._http.get(path, params={"query": query, "k": k, "mode": mode, "min_score": min_score})["items"]
