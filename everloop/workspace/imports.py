"""Bringing another tracker's records over, with their ids and times; for admins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from everloop.assets import imports, logged_models, run_metrics
from everloop.core.errors import BadInput, NotFound
from everloop.core.principal import Principal, Role

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


class Imports:
    """Facade over assets/imports.py."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def put(self, who: Principal, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """Bring one thing over (see `assets.imports.WHATS`), or answer that it is here: {..., "made": bool}."""
        who.need(Role.admin, "import with ids and times")
        work = imports.WHATS.get(what)
        if work is None:
            raise NotFound(f"Nothing called {what!r} can be imported.", f"There are: {', '.join(imports.WHATS)}.")
        return await self.ws.records.write(who, lambda tx: _told(work, tx, body))

    async def marked(self, who: Principal, source: str) -> list[str]:
        """What of a source is here whole."""
        return await self.ws.records.read(who.need(Role.admin, "import"), lambda tx: imports.marked(tx, source))

    async def model_metrics(self, who: Principal, metrics: list[Mapping[str, Any]]) -> None:
        """Tie metric points that are here already to logged models: [{"run", "model", "key", "value", "step", "at", "dataset_name", "dataset_digest"}]."""
        who.need(Role.admin, "import metrics")

        def tie(tx: Any, metrics: Any) -> None:
            for one in metrics:
                point = run_metrics.Point(str(one["key"]), float(one["value"]), int(one["step"]), float(one["at"]))
                tied = (str(one["model"]), point, str(one.get("dataset_name") or ""), str(one.get("dataset_digest") or ""))
                logged_models.put_metrics(tx, str(one["run"]), [tied])

        await self.ws.records.write(who, lambda tx: _told(tie, tx, metrics))


def _told(work: Callable[[Any, Any], Any], tx: Any, body: Any) -> Any:
    """Do the work; BadInput where a field is missing or of another type than it takes."""
    try:
        return work(tx, body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"What is to be imported lacks something, or has it in another form: {type(error).__name__}: {error}.") from error
