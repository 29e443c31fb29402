"""What differs between runs: figures, params, tags, code with its changes, packages, data. Differences come first, the rest is folded away."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everloop.web.ui import curves
from everloop.web.ui.page import View
from everloop.web.ui.show import text

DIFF_LINES = 600
"""Lines of a difference between two patches that a page shows at most."""
PATCH_CHARS = 400_000
PATCHES = ("code/dirty.patch", "code.patch", "dirty.patch")
"""Files of a run that may hold what its code had besides the commit."""
CODE = ("commit", "dirty", "repository", "command", "entry", "asset")


async def parts(page: View, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All that is compared: {"sides": [{"title", "numeric", "rows", "same"}], "patches": differences of code, "data": as a side}."""
    ids = [one["id"] for one in found]
    links = await page.ws.runs.links(page.who, ids)
    read, _ = await page.ws.govern.beside(page.who, ids)
    data = [_data(links.get(id) or {}, read.get(id, [])) for id in ids]
    plain = lambda key: not key.startswith((curves.PREFIX, curves.IMPORTANCE))
    sides = [
        _side("Metrics", [{k: v for k, v in one["metrics"].items() if plain(k)} for one in found], numeric=True),
        _side("Params", [one["params"] for one in found]),
        _side("Data", data),
        _side("Code", [_code(one) for one in found]),
        _side("Packages", [_packages(one) for one in found]),
        _side("Tags", [one["tags"] for one in found]),
    ]
    return {"sides": [side for side in sides if side["rows"] or side["same"]], "patches": await _patches(page, found)}


def _side(title: str, columns: Sequence[Mapping[str, Any]], numeric: bool = False) -> dict[str, Any]:
    counts = Counter(key for column in columns for key in column)
    rows = [{"key": key, "values": [column.get(key) for column in columns]} for key, _ in counts.most_common()]
    differs: Callable[[dict[str, Any]], bool] = lambda row: len({str(v) for v in row["values"]}) > 1
    return {"title": title, "numeric": numeric, "rows": [r for r in rows if differs(r)], "same": [r for r in rows if not differs(r)]}


def _data(links: Mapping[str, Any], read: Sequence[str]) -> dict[str, Any]:
    """The data of a run: versions of ours by name, and what its client described by name and digest."""
    found = {ref.partition("@")[0]: ref for ref in read}
    for one in links.get("datasets") or []:
        of = one.get("dataset") or one
        found[str(of.get("name"))] = str(of.get("digest") or "")
    return found


def _code(run: Mapping[str, Any]) -> dict[str, Any]:
    code = run["code"] or {}
    found = {key: code[key] for key in CODE if code.get(key) not in (None, "")}
    for ours, theirs in (("commit", "mlflow.source.git.commit"), ("entry", "mlflow.source.name")):
        if ours not in found and run["tags"].get(theirs):
            found[ours] = run["tags"][theirs]
    return found


def _packages(run: Mapping[str, Any]) -> dict[str, Any]:
    environment = run["environment"] or {}
    packages = environment.get("packages")
    found = dict(packages) if isinstance(packages, dict) else {}
    return {**{key: environment[key] for key in ("python", "platform", "seed") if environment.get(key)}, **found}


async def patch(page: View, run: Mapping[str, Any]) -> str:
    """What a run's code had besides its commit, as a patch; "" where none is kept."""
    held = (run["code"] or {}).get("patch")
    if isinstance(held, str) and "\n" in held:
        return held[:PATCH_CHARS]
    if not (run["code"] or {}).get("dirty"):
        return ""
    there = {f["path"]: f["size"] for f in await page.ws.runs.artifacts(page.who, run["id"])}
    path = next((p for p in PATCHES if there.get(p, PATCH_CHARS + 1) <= PATCH_CHARS), None)
    return (await page.ws.runs.get_artifact(page.who, run["id"], path)).decode("utf-8", "replace") if path else ""


async def _patches(page: View, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How the uncommitted changes of each run differ from those of the first."""
    held = [await patch(page, one) for one in found]
    made = []
    for one, body in list(zip(found, held, strict=True))[1:]:
        if body != held[0]:
            made.append({"run": one, "lines": marked(difflib.unified_diff(held[0].splitlines(), body.splitlines(), lineterm="", n=2))})
    return made


def marked(lines: Any) -> list[dict[str, str]]:
    """Lines of a patch with what they are: added, removed or plain."""
    found = []
    for line in list(lines)[:DIFF_LINES]:
        kind = "" if line.startswith(("+++", "---")) else {"+": "added", "-": "removed"}.get(line[:1], "")
        found.append({"kind": kind, "text": text(line, 2_000) if len(line) > 2_000 else line})
    return found
