"""Two versions of one asset side by side: what went in (params, data, code), what it takes and gives (signature), how good it is (metrics), its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from everloop.assets import catalog, lineage, runs
from everloop.core.errors import NotFound
from everloop.core.refs import Ref
from everloop.store.records import Tx
from everloop.store.schema import run_inputs

APART = ("files", "signature", "figures", "mlflow", "stats", "messages", "cases", "documents", "chunks")
"""Parts of a manifest that are compared in their own way, or are too long to be shown whole."""


def compare(tx: Tx, kind: str, name: str, left: str, right: str) -> dict[str, Any]:
    """Version `left` beside version `right` (numbers or aliases) of `kind:name`; NotFound where one is not there.

    Answers {"kind", "name", "from", "to" (each {"ref", "version", "digest", "created_at", "created_by", "aliases", "run", "description", "size",
    "files", "data", "code"}), "same", "params", "metrics", "tags", "manifest" (lists of {"key", "from", "to", "changed"}; metrics have "difference"
    too), "signature": {"inputs", "outputs"} (lists of {"name", "from", "to", "change"}), "files" ([{"path", "from", "to", "change"}])}.
    """
    assets = [catalog.get(tx, Ref(kind, name, "" if at == "latest" else at)) for at in (left, right)]
    sides = [_side(tx, asset) for asset in assets]
    one, other = [asset["manifest"] for asset in assets]
    return {
        "kind": kind,
        "name": name,
        "from": sides[0]["shown"],
        "to": sides[1]["shown"],
        "same": assets[0]["digest"] == assets[1]["digest"],
        "params": rows(sides[0]["params"], sides[1]["params"]),
        "metrics": _differences(rows({**_figures(one), **sides[0]["metrics"]}, {**_figures(other), **sides[1]["metrics"]})),
        "tags": rows(assets[0]["tags"], assets[1]["tags"]),
        "manifest": rows(_flat(one), _flat(other)),
        "messages": {"from": one.get("messages"), "to": other.get("messages"), "changed": one.get("messages") != other.get("messages")},
        "signature": {
            side: _changes(_columns(one, side), _columns(other, side), "name")
            for side in ("inputs", "outputs")
            if _columns(one, side) or _columns(other, side)
        },
        "files": _changes(_files(one), _files(other), "path"),
    }


def rows(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every key of two mappings by name: [{"key", "from", "to", "changed"}]; a side that lacks it says None."""
    return [
        {"key": key, "from": left.get(key), "to": right.get(key), "changed": left.get(key) != right.get(key)}
        for key in sorted({*left, *right}, key=str)
    ]


def _side(tx: Tx, asset: dict[str, Any]) -> dict[str, Any]:
    """What belongs to one version beyond its manifest: its run's params, metrics and code, the data behind it."""
    try:
        run = runs.get(tx, asset["run"]) if asset["run"] else {}
    except NotFound:
        run = {}
    files = asset["manifest"].get("files") or []
    shown = {key: asset[key] for key in ("ref", "version", "digest", "created_at", "created_by", "aliases", "run", "description")}
    shown |= {"size": sum(int(one.get("size") or 0) for one in files), "files": len(files)}
    shown |= {"data": _data(tx, asset), "code": run.get("code") or {}}
    return {"shown": shown, "params": run.get("params") or {}, "metrics": run.get("metrics") or {}}


def _data(tx: Tx, asset: dict[str, Any]) -> list[str]:
    """The data behind a version: our dataset versions upstream, and data sets that its run's client described (name and digest)."""
    found = [node for node in lineage.upstream(tx, asset["ref"])["nodes"] if node.startswith("dataset:") and node != asset["ref"]]
    if asset["run"]:
        described = sa.select(run_inputs.c.name, run_inputs.c.digest).where(run_inputs.c.project == tx.project, run_inputs.c.run == asset["run"])
        found += [f"{row['name']} ({row['digest']})" for row in tx.rows(described.order_by(run_inputs.c.name, run_inputs.c.digest))]
    return found


def _figures(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Figures that a manifest holds itself, as {"holdout auc": value}."""
    figures = manifest.get("figures") or {}
    return {f"holdout {name}": one.get("value") if isinstance(one, dict) else one for name, one in figures.items()}


def _differences(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    numbers = (int, float)
    for one in found:
        both = isinstance(one["from"], numbers) and isinstance(one["to"], numbers)
        one["difference"] = one["to"] - one["from"] if both else None
    return found


def _flat(manifest: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A manifest's plain values by dotted key, without the parts that are compared apart."""
    found: dict[str, Any] = {}
    for key, value in manifest.items():
        if not prefix and key in APART:
            continue
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + str(key)] = value
    return found


def _columns(manifest: Mapping[str, Any], side: str) -> dict[str, Any]:
    return {str(one.get("name", place)): one for place, one in enumerate((manifest.get("signature") or {}).get(side) or [])}


def _files(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {str(one["path"]): {"digest": one["digest"], "size": one.get("size")} for one in manifest.get("files") or [] if "path" in one}


def _changes(left: Mapping[str, Any], right: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    found = []
    for key in [*left, *(key for key in right if key not in left)]:
        one, other = left.get(key), right.get(key)
        change = "added" if one is None else "removed" if other is None else "same" if one == other else "changed"
        found.append({what: key, "from": one, "to": other, "change": change})
    return found
