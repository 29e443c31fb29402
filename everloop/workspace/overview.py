"""What a person looks at first: the state of everything at once, and finding a thing by any word or id. It joins other facades; no state of its own."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import OVERVIEW_ENDPOINTS, SEARCH_HITS
from everloop.core.principal import Principal, Role
from everloop.core.refs import KINDS

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

DECISIONS_LOOKED_AT = 50
"""Among so many of a release's newest decisions an endpoint's last is looked for: others may be for aliases that no user gets."""
_ID = re.compile(r"([0-9a-f]{32})(-\d+)?")


class Overview:
    """Facade over facades: what stands, and search."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def frame(self, who: Principal) -> dict[str, Any]:
        """What every page shows: {"projects": names that `who` may act in, "pending": how many decisions wait for a person}."""
        projects, pending = await asyncio.gather(self.ws.identity.projects(who), self.ws.gates.pending(who))
        return {"projects": sorted(p["name"] for p in projects), "pending": len(pending)}

    async def home(self, who: Principal, since: float | None = None, until: float | None = None) -> dict[str, Any]:
        """{"endpoints": [...], "more": how many endpoints are not shown, "pending", "alerts", "counts", "extent"}; see `endpoint` for an item."""
        listed, pending, monitors, alerts, kinds, pipelines, extent = await asyncio.gather(
            self.ws.endpoints.list(who),
            self.ws.gates.pending(who),
            self.ws.monitors.list(who),
            self.ws.monitors.alerts(who, limit=6),
            self.ws.assets.kinds(who),
            self.ws.pipelines.list(who),
            self.ws.traces.extent(who),
        )
        shown = listed["items"][:OVERVIEW_ENDPOINTS]
        items = await asyncio.gather(*(self.endpoint(who, e, monitors, since, until) for e in shown))
        counts = {k["kind"]: k["names"] for k in kinds}
        counts |= {"endpoint": len(listed["items"]), "monitor": len(monitors), "pipeline": len(pipelines["items"])}
        more = len(listed["items"]) - len(shown)
        return {"endpoints": items, "more": more, "pending": pending, "alerts": alerts, "counts": counts, "extent": extent}

    async def endpoint(
        self, who: Principal, endpoint: dict[str, Any], monitors: list[dict[str, Any]], since: float | None = None, until: float | None = None
    ) -> dict[str, Any]:
        """An endpoint with how it goes: {**endpoint, "releases", "decision", "monitors", "stats", "totals", "state", "why"}.

        `releases` are the live ones with since when and by whom; `stats` are buckets of traces between `since` and `until` (epoch seconds of
        event time; None: all there is), `totals` the same figures over all of it; `state` is ok, attention or idle.
        """
        name, release = endpoint["name"], endpoint["spec"]["release"]
        history, decided, stats = await asyncio.gather(
            self.ws.assets.alias_history(who, "release", release),
            self.ws.gates.decisions(who, "release", release, limit=DECISIONS_LOOKED_AT),
            self.ws.traces.series(who, since, until, endpoint=name),
        )
        watching = [m for m in monitors if m["endpoint"] == name]
        releases = []
        for part in endpoint["live"]:
            move = next((m for m in history if m["alias"] == part["alias"]), None)
            releases.append({**part, "since": move["at"] if move else None, "by": move["by"] if move else None, "why": move["why"] if move else ""})
        state, why = _state(endpoint, watching)
        return {
            **endpoint,
            "releases": releases,
            "history": history,
            "decision": next((d for d in decided if d["alias"] in {part["alias"] for part in endpoint["live"]}), None),
            "monitors": watching,
            "stats": stats["items"],
            "bucket_s": stats["bucket_s"],
            "totals": stats["whole"] or {"count": 0, "errors": 0, "p50_ms": None, "p95_ms": None, "cost": None, "tokens": 0},
            "state": state,
            "why": why,
        }

    async def signature(self, who: Principal, endpoint: dict[str, Any]) -> list[dict[str, Any]] | None:
        """The inputs of the model that is live behind a predict endpoint: [{"name", "type", "categories"?, "min"?, "max"?}]; None where unknown."""
        live = next((part["ref"] for part in endpoint["live"] if part["ref"]), None)
        if live is None:
            return None
        model = (await self.ws.assets.get(who, live))["manifest"].get("pins", {}).get("model")
        if model is None:
            return None
        inputs = ((await self.ws.assets.get(who, model))["manifest"].get("signature") or {}).get("inputs")
        return [dict(i) for i in inputs or [] if isinstance(i, dict) and isinstance(i.get("name"), str)]

    async def find(self, who: Principal, text: str) -> dict[str, Any]:
        """What `text` may mean: {"node": exactly what it names ("trace:ID", "run:ID", "decision:ID", a reference) or None, "assets", "runs",
        "traces", "others"}, each list at most SEARCH_HITS long.
        """
        who.need(Role.viewer)
        text = text.strip()
        if not text:
            return {"node": None, "assets": [], "runs": [], "traces": [], "others": []}
        node = await self._named(who, text)
        if node is not None:
            return {"node": node, "assets": [], "runs": [], "traces": [], "others": []}
        assets, runs, traces, endpoints, monitors, pipelines = await asyncio.gather(
            self.ws.assets.list(who, None, text, SEARCH_HITS),
            self.ws.runs.search(who, "", None, SEARCH_HITS, text=text),
            self.ws.traces.list(who, text=text, limit=SEARCH_HITS),
            self.ws.endpoints.list(who),
            self.ws.monitors.list(who),
            self.ws.pipelines.list(who),
        )
        named = [("endpoint", endpoints["items"]), ("monitor", monitors), ("pipeline", pipelines["items"])]
        others = [f"{kind}:{row['name']}" for kind, rows in named for row in rows if text.lower() in row["name"].lower()]
        return {"node": None, "assets": assets["items"], "runs": runs["items"], "traces": traces["items"], "others": others[:SEARCH_HITS]}

    async def _named(self, who: Principal, text: str) -> str | None:
        kind, colon, id = text.partition(":")
        if colon and kind in KINDS:
            try:
                return str(await self.ws.assets.resolve(who, text))
            except (NotFound, BadInput):
                return None
        text = text.removeprefix("chatcmpl-").removeprefix("msg_")
        match = _ID.fullmatch(id if colon and kind in ("trace", "run", "decision") else text)
        if match is None:
            return None
        looks: tuple[tuple[str, Any], ...] = (
            ("trace", self.ws.traces.get),
            ("decision", self.ws.gates.decision),
            ("run", self.ws.runs.get),
        )
        for what, look in looks:
            try:
                await look(who, match[1])
            except NotFound:
                continue
            return f"{what}:{match[1]}{match[2] or '' if what == 'trace' else ''}"
        return None


def _state(endpoint: dict[str, Any], monitors: list[dict[str, Any]]) -> tuple[str, str]:
    """(ok, attention or idle, why) of an endpoint, from what is live and what its monitors last saw."""
    missing = [part["alias"] for part in endpoint["live"] if not part["ref"]]
    if missing and len(missing) == len(endpoint["live"]):
        return "idle", f"No release has the alias {', '.join(missing)} yet."
    failing = [m["name"] for m in monitors if (m["state"] or {}).get("verdict") == "fail"]
    if failing:
        return "attention", f"Monitor {', '.join(failing)} fails."
    broken = [m["name"] for m in monitors if (m["state"] or {}).get("error")]
    if broken:
        return "attention", f"Monitor {', '.join(broken)} cannot look."
    if missing:
        return "attention", f"No release has the alias {', '.join(missing)}, which the split names."
    return "ok", "" if monitors else "No monitor watches it."
