"""Figures over traces: traffic by model, user, endpoint or release, what guardrails did, and sessions. It reads telemetry; no state of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everloop.checks.statistics import wilson
from everloop.core.errors import BadInput
from everloop.core.limits import BREAKDOWN_ROWS, PAGE_ROWS, PAGE_ROWS_MAX
from everloop.core.principal import Principal, Role
from everloop.store import telemetry_reports as reports
from everloop.store import telemetry_scores
from everloop.store.telemetry_queries import Filter

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


class Reports:
    """What traces add up to. Reading needs the role viewer; times are epoch seconds, costs US dollars."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def breakdown(
        self,
        who: Principal,
        by: str,
        *,
        endpoint: str | None = None,
        release: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = BREAKDOWN_ROWS,
    ) -> list[dict[str, Any]]:
        """Figures by endpoint, release, alias, model, provider, user, session, principal or name, the busiest first (telemetry_reports.breakdown).

        Each has "thumbs_up" too: the share of thumbs that are up, with n and its Wilson interval at 95 % (None where nobody gave one).
        """
        who.need(Role.viewer)
        if not 1 <= limit <= BREAKDOWN_ROWS:
            raise BadInput(f"A breakdown has 1 to {BREAKDOWN_ROWS} rows, not {limit}.")
        wanted = Filter(endpoint=endpoint, release=release, since=since, until=until)
        rows = await self.ws.telemetry.query(lambda con: reports.breakdown(con, who.project, by, wanted, limit), who.project, since, until)
        return [{**row, "thumbs_up": share(row["up"], row["up"] + row["down"])} for row in rows]

    async def guardrails(
        self, who: Principal, *, endpoint: str | None = None, since: float | None = None, until: float | None = None
    ) -> list[dict[str, Any]]:
        """How often each guardrail judged, and failed what it judged: {"name", "endpoint", "judged", "failed"}."""
        who.need(Role.viewer)
        wanted = Filter(endpoint=endpoint, since=since, until=until)
        return await self.ws.telemetry.query(lambda con: reports.guardrails(con, who.project, wanted), who.project, since, until)

    async def sessions(
        self,
        who: Principal,
        *,
        endpoint: str | None = None,
        user: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = PAGE_ROWS,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Sessions, the one that went on last first: {"items", "next"} (telemetry_reports.sessions)."""
        who.need(Role.viewer)
        if not 1 <= limit <= PAGE_ROWS_MAX:
            raise BadInput(f"A page has 1 to {PAGE_ROWS_MAX} rows, not {limit}.")
        wanted = Filter(endpoint=endpoint, user=user, since=since, until=until)
        return await self.ws.telemetry.query(lambda con: reports.sessions(con, who.project, wanted, limit, cursor), who.project, since, until)

    async def scores(
        self, who: Principal, by: str = "release", *, name: str | None = None, source: str | None = None, **narrowed: Any
    ) -> list[dict[str, Any]]:
        """Scores by release, endpoint, alias, model, user, session or name: {"key", "name", "n", "mean", "interval"} at 95 %.

        The interval is Wilson's where all values are 0 or 1 (or thumbs), else Student's t; None for a single value. `narrowed`: endpoint, release, since, until.
        """
        who.need(Role.viewer)
        wanted = Filter(**narrowed)

        def work(con: Any) -> list[dict[str, Any]]:
            return telemetry_scores.summed(con, who.project, by, wanted, name, source)

        rows = await self.ws.telemetry.query(work, who.project, narrowed.get("since"), narrowed.get("until"))
        return [{key: row[key] for key in ("key", "name", "n", "mean")} | {"interval": interval(row)} for row in rows]


def interval(row: dict[str, Any]) -> tuple[float, float] | None:
    """The interval at 95 % of a sum of scores (see telemetry_scores.summed) round its mean."""
    n, mean = row["n"], row["mean"]
    if row["two"] or row["signs"]:
        low, high = wilson(row["up"], n)
        return (low, high) if row["two"] else (2 * low - 1, 2 * high - 1)
    if n < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, n - 1)) * row["deviation"] / n**0.5
    return mean - half, mean + half


def share(some: int, n: int) -> dict[str, Any] | None:
    """A share with its Wilson interval at 95 %: {"value", "n", "interval"}; None without cases."""
    return {"value": some / n, "n": n, "interval": tuple(wilson(some, n))} if n else None
