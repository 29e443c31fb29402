"""What a person who decides about a version must see: what differs from the version it would replace, in data, code and settings, and who started it."""

from __future__ import annotations

from typing import Any

from everloop.assets import catalog, comparison, runs
from everloop.core.errors import NotFound
from everloop.core.refs import Ref
from everloop.store.records import Tx

SHOWN = 30
"""Changed settings that are told at most, of each version."""


def changes(tx: Tx, ref: str, against: str | None) -> dict[str, Any]:
    """{"started": see `started`, "pins": [{"pin", "from", "to"}] that differ, "parts": [{"ref", "against", "data", "code", "params", "more"}]}.

    A part is a changed pin whose name stayed (or the version itself, where it is no release): `data` is [{"name", "from", "to"}]: the newest
    version of each dataset that each of the two rests on, where they differ, `code` {"from", "to"} where it differs, `params` the changed ones, at most SHOWN and `more` beyond.
    """
    asset = catalog.get(tx, ref)
    held = None
    if against is not None:
        try:
            held = catalog.get(tx, against)
        except NotFound:
            held = None
    told: dict[str, Any] = {"started": started(tx, asset.get("run")), "pins": [], "parts": []}
    if held is None:
        return told
    pairs = [(asset["ref"], held["ref"])]
    if asset["kind"] == "release":
        new, old = _settings(asset), _settings(held)
        told["pins"] = [{"pin": k, "from": old.get(k), "to": new.get(k)} for k in sorted({*new, *old}) if new.get(k) != old.get(k)]
        pairs = [(one["to"], one["from"]) for one in told["pins"] if _same_name(one["to"], one["from"])]
    told["parts"] = [part for pair in pairs if (part := _part(tx, *pair)) is not None]
    return told


def started(tx: Tx, run: str | None) -> dict[str, Any] | None:
    """How the run that made a version began: {"run", "pipeline", "trigger" (manual, schedule:NAME, monitor:NAME), "by", "at"}; None without a run."""
    seen: set[str] = set()
    while run is not None and run not in seen:
        seen.add(run)
        try:
            found = runs.get(tx, run)
        except NotFound:
            return None
        if found.get("parent") is None:
            trigger = (found.get("tags") or {}).get("trigger") or "manual"
            return {"run": run, "pipeline": found.get("pipeline"), "trigger": trigger, "by": found["created_by"], "at": found["started_at"]}
        run = found["parent"]
    return None


def _settings(release: dict[str, Any]) -> dict[str, Any]:
    """A release's pins, policy and params by name."""
    manifest = release["manifest"]
    return {**(manifest.get("pins") or {}), "policy": manifest.get("policy"), **{f"param {k}": v for k, v in (manifest.get("params") or {}).items()}}


def _same_name(one: Any, other: Any) -> bool:
    return isinstance(one, str) and isinstance(other, str) and ":" in one and one.rpartition("@")[0] == other.rpartition("@")[0]


def _part(tx: Tx, ref: str, against: str) -> dict[str, Any] | None:
    new, old = Ref.parse(ref), Ref.parse(against)
    try:
        found = comparison.compare(tx, new.kind, new.name, str(old.version), str(new.version))
    except NotFound:
        return None
    before, after = found["from"], found["to"]
    params = [one for one in found["params"] if one["changed"]]
    code = {"from": _code(before["code"]), "to": _code(after["code"])}
    return {
        "ref": ref,
        "against": against,
        "data": _data(before["data"], after["data"]),
        "code": code if code["from"] != code["to"] else None,
        "params": params[:SHOWN],
        "more": max(0, len(params) - SHOWN),
    }


def _data(before: list[str], after: list[str]) -> list[dict[str, Any]]:
    """By name of a dataset the newest version on each side, where they differ; a set that a client only described stands for itself."""
    old, new = _newest(before), _newest(after)
    return [{"name": name, "from": old.get(name), "to": new.get(name)} for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def _newest(refs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for ref in refs:
        name, at, version = ref.rpartition("@") if ref.startswith("dataset:") else (ref, "", "")
        if name not in found or (at and int(version) > int(found[name].rpartition("@")[2])):
            found[name] = ref
    return found


def _code(code: dict[str, Any]) -> str:
    """Code in a few words: the packaged version, or a commit (and whether there were changes beside it)."""
    if code.get("asset"):
        return str(code["asset"])
    commit = str(code.get("commit") or code.get("git_commit") or "")
    return f"commit {commit[:12]}{' with local changes' if code.get('dirty') else ''}" if commit else "not known"
