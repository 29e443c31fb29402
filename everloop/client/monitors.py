"""`client.monitors`: declare monitors, look, list alarms."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote


class Monitors:
    """Checks over windows of live traffic."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def put(self, name: str, endpoint: str, **spec: Any) -> dict[str, Any]:
        """Declare a monitor; spec: checks, window_days, label_window_days, every, min_rows, cooldown_days, retrain_on, on_fail."""
        return self._http.put(f"/api/v1/monitors/{quote(name, safe='')}", json={"endpoint": endpoint, "spec": spec})

    def list(self) -> list[dict[str, Any]]:
        """All monitors with what they last saw."""
        return self._http.get("/api/v1/monitors")["items"]

    def get(self, name: str) -> dict[str, Any]:
        """One monitor."""
        return self._http.get(f"/api/v1/monitors/{quote(name, safe='')}")

    def tick(self, name: str, at: float | str | None = None) -> dict[str, Any]:
        """Look now, or at the window that ends `at` (epoch seconds or ISO)."""
        return self._http.post(f"/api/v1/monitors/{quote(name, safe='')}/tick", json={"at": at} if at is not None else {}, timeout=300)

    def scores(self, name: str, limit: int = 100) -> list[dict[str, Any]]:
        """What a monitor saw, newest first."""
        return self._http.get(f"/api/v1/monitors/{quote(name, safe='')}/scores", params={"limit": limit})["items"]

    def alerts(self, monitor: str | None = None) -> list[dict[str, Any]]:
        """Alarms, newest first."""
        return self._http.get("/api/v1/alerts", params={"monitor": monitor})["items"]
