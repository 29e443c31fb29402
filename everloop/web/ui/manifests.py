"""A version's manifest in readable form, by kind. A manifest is what somebody sent: every part is looked at before it is used, and what is
not as expected is left to the raw view.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import orjson

from everloop.core.errors import EverloopError
from everloop.core.refs import KINDS
from everloop.web.ui.page import View
from everloop.web.ui.spans import messages

PREVIEW_ROWS = 20
DOCUMENTS_SHOWN = 200
CASES_SHOWN = 100
FILES_SHOWN = 200
INDEX_ROWS = 20
CARD_BYTES = 400_000
"""Largest model card, and largest file of cases, that a page reads."""


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; empty for anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


async def readable(page: View, asset: dict[str, Any]) -> dict[str, Any]:
    """What the page of a version shows besides facts that all kinds have."""
    manifest = mapping(asset["manifest"])
    make = _KINDS.get(asset["kind"])
    return await make(page, asset, manifest) if make else {}


async def _dataset(page: View, asset: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    if manifest.get("format") == "documents":
        found = dicts(manifest.get("documents"))
        wanted = page.word("document")
        at = next((i for i, d in enumerate(found) if wanted is not None and str(d.get("id")) == wanted), None)
        read = await _or_none(lambda: page.ws.data.documents(page.who, asset["ref"], 1, at)) if at is not None else None
        opened = read["items"][0] if read and read["items"] else None
        return {
            "documents": found[:DOCUMENTS_SHOWN],
            "opened": opened,
            "total": len(found),
            "skipped": dicts(manifest.get("skipped"))[:DOCUMENTS_SHOWN],
        }
    roles, stats = mapping(manifest.get("roles")), mapping(manifest.get("stats"))
    columns = []
    for column in dicts(manifest.get("schema")):
        name = str(column.get("name", ""))
        one = mapping(stats.get(name))
        histogram = mapping(one.get("histogram"))
        top = [pair for pair in one.get("top") or [] if isinstance(pair, list) and len(pair) == 2][:20]
        protected = roles.get("protected") if isinstance(roles.get("protected"), list) else []
        roled = [role for role in ("target", "time", "id") if roles.get(role) == name] + (["protected"] if name in protected else [])
        counts = histogram.get("counts") or [c for _, c in top]
        columns.append({**column, "stats": one, "counts": counts, "top": top, "roles": roled, "histogram": bool(histogram)})
    held = [f for f in dicts(manifest.get("files")) if f.get("path") == "data.parquet" and isinstance(f.get("digest"), str)]
    whole = manifest.get("format") == "table" and isinstance(manifest.get("rows"), int) and bool(held)
    told = page.query.get("rows", "")
    offset = int(told) if told.isdigit() and len(told) < 16 else 0
    preview = await _or_none(lambda: page.ws.data.preview(page.who, asset["ref"], PREVIEW_ROWS, offset)) if whole else None
    rules = mapping(mapping(manifest.get("contract")).get("columns"))
    contract = [{"column": str(column), "rules": rule} for column, rule in rules.items() if isinstance(rule, dict)]
    others = {key: rule for key, rule in mapping(manifest.get("contract")).items() if key != "columns"}
    contract += [{"column": "the whole table", "rules": others}] if others else []
    splits = mapping(mapping(manifest.get("splits")).get("names"))
    report = mapping(manifest.get("contract_report"))
    broken = {"total": report.get("total") or 0, "counts": mapping(report.get("counts")), "rows": dicts(report.get("violations"))[:CASES_SHOWN]}
    more = {
        "offset": offset,
        "size": PREVIEW_ROWS,
        "contract": contract,
        "broken": {**broken, "list": mapping(report.get("list"))},
        "splits": splits,
        **(await _folder(page, asset, manifest)),
    }
    return {**more, "columns": columns, "preview": preview, "notes": [str(n) for n in manifest.get("notes") or [] if isinstance(n, str)][:20]}


async def _folder(page: View, asset: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """Files of a folder's version a page at a time, below what was typed."""
    if manifest.get("format") != "files":
        return {}
    under, after = page.query.get("under", "").strip(), page.query.get("after", "")
    listed = await _or_none(lambda: page.ws.data.files(page.who, asset["ref"], under, FILES_SHOWN, after))
    return {"folder": listed, "under": under, "after": after} if listed else {}


async def _model(page: View, asset: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    signature = mapping(manifest.get("signature"))
    run = await _or_none(lambda: page.ws.runs.get(page.who, asset["run"])) if asset["run"] else None
    return {
        "inputs": dicts(signature.get("inputs")),
        "outputs": dicts(signature.get("outputs")),
        "card": await _text(page, manifest.get("card")),
        "training": mapping(manifest.get("training")),
        "conversion": mapping(manifest.get("conversion")),
        "metrics": {k: v for k, v in mapping(run["metrics"]).items() if not k.startswith(("curve_", "importance/"))} if run else {},
    }


async def _prompt(page: View, asset: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    other, lines = page.word("diff"), None
    if other is not None:
        held = await page.ws.assets.get(page.who, f"prompt:{asset['name']}@{other}")
        before, after = _prompt_lines(mapping(held["manifest"])), _prompt_lines(manifest)
        lines = [{"mark": line[:1], "text": line[2:]} for line in difflib.ndiff(before, after) if not line.startswith("?")]
    return {"messages": messages(manifest.get("messages")) or [], "diff": lines, "against": other}


def _prompt_lines(manifest: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for one in messages(manifest.get("messages")) or []:
        lines += [f"[{one['role']}]", *one["text"].splitlines()]
    for key in ("settings", "parameters", "defaults"):
        if manifest.get(key):
            lines += [f"[{key}]", *orjson.dumps(manifest[key], option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode().splitlines()]
    return lines


async def _suite(page: View, asset: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    body = await _text(page, mapping(manifest.get("cases")).get("digest"))
    cases = []
    for line in (body or "").splitlines()[:CASES_SHOWN]:
        try:
            cases.append(mapping(orjson.loads(line)))
        except orjson.JSONDecodeError:
            continue
    return {"cases": cases}


async def _policy(page: View, asset: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    return {"rules": dicts(manifest.get("rules"))}


async def _release(page: View, asset: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    pins = {str(k): str(v) for k, v in mapping(manifest.get("pins")).items()}
    endpoints = (await page.ws.endpoints.list(page.who))["items"]
    serving = [{"endpoint": e["name"], "alias": part["alias"]} for e in endpoints for part in e["live"] if part["ref"] == asset["ref"]]
    decisions = await page.ws.gates.decisions(page.who, "release", asset["name"], asset["version"], limit=20)
    calls, _ = await page.ws.traces.count_by_release(page.who, [asset["ref"]])
    return {"pins": pins, "params": mapping(manifest.get("params")), "serving": serving, "decisions": decisions, "calls": calls[asset["ref"]]}


async def _index(page: View, asset: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    documents = str(manifest.get("documents") or "")
    question, told = page.word("question"), page.word("offset") or "0"
    mode, k = page.word("mode") or "hybrid", page.word("k") or "4"
    found, problem = None, None
    if question:
        try:
            found = (await page.ws.data.search(page.who, asset["ref"], question, int(k) if k.isdigit() else 0, mode))["items"]
        except EverloopError as error:
            problem = error
    offset = int(told) if told.isdigit() else 0
    return {
        "documents": documents if documents.partition(":")[0] in KINDS else "",
        "chunking": mapping(manifest.get("chunking")),
        "embedder": mapping(manifest.get("embedder")),
        "question": question,
        "mode": mode,
        "k": k,
        "found": found,
        "problem": problem,
        "offset": offset,
        "passages": await _or_none(lambda: page.ws.data.passages(page.who, asset["ref"], INDEX_ROWS, offset)),
    }


async def _text(page: View, digest: Any) -> str | None:
    """An object's text, None where it is not there; only the first CARD_BYTES of it."""
    if not isinstance(digest, str) or not digest:
        return None
    data = await _or_none(lambda: page.ws.assets.get_object(page.who, digest))
    return None if data is None else data[:CARD_BYTES].decode("utf-8", "replace")


async def _or_none(ask: Callable[[], Any]) -> Any:
    """What `ask` answers; None where that is not there or cannot be read (the rest of the page still can)."""
    try:
        return await ask()
    except EverloopError:
        return None


_KINDS: dict[str, Any] = {
    "dataset": _dataset,
    "model": _model,
    "prompt": _prompt,
    "suite": _suite,
    "policy": _policy,
    "release": _release,
    "index": _index,
}
