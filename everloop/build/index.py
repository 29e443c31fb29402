"""The index step: documents cut into passages, an embedder fitted on them, both stored as an index version that a chat release can pin."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput, NotFound

PIPELINE: dict[str, Any] = {"steps": [{"name": "index", "call": "everloop.build.index:build", "after": []}], "params": {}}
"""Params: `documents` (a reference to a documents dataset) and `name` (of the index), and those of DEFAULTS."""
DEFAULTS: dict[str, Any] = {"chars": 800, "overlap": 120, "dims": 128, "embedder": "lsa", "store": "arrays", "update": False}
"""`chars` and `overlap`: size of passages in characters; `dims`: dimensions of the embedding; `update`: index anew only what changed since the
latest version of the index, with its embedder as it was."""
UPDATE_SHARE = 0.25
"""An update that changes more than this share of the documents builds all anew: the embedder would not know the new words."""
UPDATE_SEGMENTS = 16
"""An index that was updated this often is built anew."""


def build(step: Any) -> dict[str, Any]:
    """Make an index version of a documents dataset: {"index", "count", "documents", "dims", "explained", "how"}.

    BadInput for params that cannot be, a dataset that holds no documents or no text; nothing is registered then.
    """
    from everloop.assets.chunks import chunks

    params = _params(step.params)
    started = time.perf_counter()
    asset = step.client.data.get(params["documents"])
    documents = step.client.data.documents(asset["ref"])
    base = _base(step, params, asset) if params["update"] else None
    if base is not None:
        changed = [d for d in documents if d["id"] in base["changed"]]
        held = {d["id"] for d in documents if next(iter(chunks([d], params["chars"], params["overlap"])), None)}
        index = base["index"].replace(chunks(changed, params["chars"], params["overlap"]), base["gone"])
        embedder, explained, how = dict(base["embedder"]), None, f"{len(changed)} documents anew, {len(base['gone'])} gone, since {base['ref']}"
    else:
        passages = list(chunks(documents, params["chars"], params["overlap"]))
        held = {p["document"] for p in passages}
        index, embedder, explained = _anew(step, params, passages, asset["ref"])
        how = "all documents"
    parts = index.save(step.client.assets.put_object)
    parts["files"] = [*parts["files"], {"path": "embedder.npz", "digest": embedder["file"], "size": embedder["size"]}]
    manifest = {"documents": asset["ref"], "chunking": {n: params[n] for n in ("chars", "overlap")}, "embedder": embedder, **parts}
    reads = [asset["ref"], *([base["ref"]] if base is not None else [])]
    made = step.client.assets.register("index", params["name"], manifest, run=step.run.id, reads=reads)
    _declare(step, made["ref"], asset, held, base)
    seconds = round(time.perf_counter() - started, 3)
    step.run.log_params({n: params[n] for n in DEFAULTS} | {"documents": asset["ref"]})
    figures = {"passages": index.count, "documents": len(documents), "dims": index.dims, "seconds": seconds}
    for name, value in {**figures, **({} if explained is None else {"explained_variance": explained})}.items():
        step.run.log_metric(name, value)
    kept = "" if explained is None else f", which keep {explained:.0%} of the terms' variance"
    step.log(f"{made['ref']}: {index.count:,} passages of {len(documents):,} documents ({how}), {index.dims} dimensions{kept}; {seconds:.1f} s")
    return {"index": made["ref"], "count": index.count, "documents": len(documents), "dims": index.dims, "explained": explained, "how": how}


def _declare(step: Any, made: str, asset: Mapping[str, Any], held: set[str], base: Mapping[str, Any] | None) -> None:
    """Lineage document by document: those that gave passages; of an update also those that stand in it as earlier versions had them."""
    now = {d["id"]: d["digest"] for d in asset["manifest"]["documents"] if d["id"] in held}
    sources: dict[str, Any] = {asset["ref"]: asset["manifest"]["documents"]}
    if base is not None:
        earlier = [one["source"] for one in step.client.lineage.declared(base["ref"]) if one["form"] != "none"]
        sources |= {ref: step.client.data.get(ref)["manifest"]["documents"] for ref in earlier if ref not in sources}
    told: dict[str, Any] = {ref: [i for i, d in enumerate(listed) if now.get(d["id"]) == d["digest"]] for ref, listed in sources.items()}
    if base is not None:
        told[base["ref"]] = "none"
    step.client.lineage.derives(made, told, run=step.run.id, why="documents that passages were cut from; others changed, went or hold no words")


def _params(given: Mapping[str, Any]) -> dict[str, Any]:
    """The step's params with their defaults, numbers as such."""
    for name in ("documents", "name"):
        if not given.get(name):
            raise BadInput(f"The index step needs the param {name!r}.", 'For example: {"documents": "dataset:handbook", "name": "handbook"}')
    params = {**DEFAULTS, **given}
    for name in ("chars", "overlap", "dims"):
        try:
            params[name] = int(params[name])
        except (TypeError, ValueError):
            raise BadInput(f"The param {name!r} of the index step is {params[name]!r}.", "Give a whole number.") from None
    return params


def _anew(step: Any, params: Mapping[str, Any], passages: list[dict[str, Any]], ref: str) -> tuple[Any, dict[str, Any], float | None]:
    """(index, the manifest's embedder, share of variance kept) of all passages."""
    from everloop.engines.base import embedders
    from everloop.store.vectors import indexed, stores

    if not passages:
        raise BadInput(f"{ref} gives no passages: its documents hold no words.", "Load documents with text.")
    spec = params["embedder"] if isinstance(params["embedder"], Mapping) else {"name": params["embedder"]}
    settings = {"dims": params["dims"], **spec}
    embedder = embedders.get(str(spec["name"])).fit([indexed(p) for p in passages], settings)
    index = stores.get(str(params["store"])).create(passages, embedder)
    stored = step.client.assets.put_object(embedder.save())
    entry = {**settings, "dims": embedder.dims, "file": stored["digest"], "size": stored["size"]}
    explained = getattr(embedder, "explained", None)
    return index, entry, explained


def _base(step: Any, params: Mapping[str, Any], asset: Mapping[str, Any]) -> dict[str, Any] | None:
    """The latest version of the index with what changed since; None (and the log says why) where all must be built anew."""
    from everloop.serve.retrieve import load_index

    try:
        latest = step.client.assets.get(f"index:{params['name']}")
    except NotFound:
        return None
    manifest = latest["manifest"]
    name = params["embedder"]["name"] if isinstance(params["embedder"], Mapping) else params["embedder"]
    if manifest["chunking"] != {n: params[n] for n in ("chars", "overlap")} or manifest["embedder"]["name"] != name:
        step.log(f"all anew: {latest['ref']} was built with other settings")
        return None
    before = {d["id"]: d["digest"] for d in step.client.data.get(manifest["documents"])["manifest"]["documents"]}
    now = {d["id"]: d["digest"] for d in asset["manifest"]["documents"]}
    changed, gone = {i for i in now if before.get(i) != now[i]}, sorted(set(before) - set(now))
    if len(changed) + len(gone) > UPDATE_SHARE * max(1, len(now)):
        step.log(f"all anew: {len(changed)} of {len(now)} documents changed and {len(gone)} went since {latest['ref']}")
        return None
    if len(manifest["segments"]) > UPDATE_SEGMENTS:
        step.log(f"all anew: {latest['ref']} was updated {UPDATE_SEGMENTS} times")
        return None
    index = load_index(manifest, step.client.assets.get_object)
    return {"ref": latest["ref"], "index": index, "embedder": manifest["embedder"], "changed": changed, "gone": gone}
