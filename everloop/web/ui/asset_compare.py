"""Two versions of an asset side by side: what went in, what it takes and gives, how good it is; of a dataset its schema, rows and statistics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from everloop.core.errors import BadInput, EverloopError
from everloop.core.refs import KINDS
from everloop.web.ui.page import Page, View
from everloop.web.ui.show import piece

router = APIRouter(include_in_schema=False)
EXAMPLES = 10
"""Example rows of each sort."""
VERSIONS = 100
"""Versions that can be chosen."""
FILES = 200


@router.get("/ui/assets/{kind}/{name}/compare")
async def compare(page: Page, kind: str, name: str) -> Response:
    """Version `from` beside version `to`: the two newest when not told."""
    ws, who = page.ws, page.who
    if kind not in KINDS:
        raise BadInput(f"There is no kind of asset called {kind!r}.", f"Kinds: {', '.join(KINDS)}.")
    versions = await ws.assets.versions(who, kind, name, VERSIONS)
    newest = [str(v["version"]) for v in versions]
    right = page.word("to") or (newest[0] if newest else "latest")
    left = page.word("from") or next((v for v in newest if v != right), right)
    found = await ws.assets.compare(who, kind, name, left, right)
    data, problem = await _data(page, name, left, right) if kind == "dataset" else (None, None)
    return await page.render(
        "asset_compare.html",
        f"{left} and {right}",
        [("Assets", "/ui/assets"), (kind, f"/ui/assets?kind={kind}"), (name, f"/ui/assets/{kind}/{piece(name)}")],
        c=found,
        kind=kind,
        name=name,
        versions=versions,
        left=str(found["from"]["version"]),
        right=str(found["to"]["version"]),
        sides=_sides(found, kind),
        data=data,
        problem=problem,
        files=FILES,
    )


async def _data(page: View, name: str, left: str, right: str) -> tuple[dict[str, Any] | None, EverloopError | None]:
    key = [one for one in (part.strip() for part in (page.word("key") or "").split(",")) if one]
    try:
        return await page.ws.data.diff(page.who, f"dataset:{name}@{left}", f"dataset:{name}@{right}", key, EXAMPLES), None
    except EverloopError as error:
        return None, error


def _sides(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Metrics, params, tags and the rest of the manifest: what changed, and how many are the same."""
    made = []
    for title, side in (("Metrics", "metrics"), ("Params", "params"), ("Tags", "tags"), ("Manifest", "manifest")):
        if kind == "dataset" and side == "manifest":
            continue
        rows = found[side]
        changed = [row for row in rows if row["changed"]]
        made.append({"title": title, "metrics": side == "metrics", "changed": changed, "same": [row for row in rows if not row["changed"]]})
    return [side for side in made if side["changed"] or side["same"]]
