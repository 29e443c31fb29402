"""Evaluation data sets and scorers of MLflow's clients: see assets/eval_sets and assets/scorers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from everloop.assets import eval_sets, experiments, scorers
from everloop.core.errors import BadInput
from everloop.core.limits import EVAL_RECORDS
from everloop.core.principal import Principal, Role

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


class EvalSets:
    """Facade over evaluation data sets, and over registered scorers."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create(self, who: Principal, name: str, experiments: Sequence[str] = (), tags: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A new data set without records."""
        return await self._write(who, lambda tx: eval_sets.create(tx, name, experiments, tags or {}))

    async def get(self, who: Principal, id: str) -> dict[str, Any]:
        """A data set without its records."""
        return await self._read(who, lambda tx: eval_sets.get(tx, id))

    async def search(self, who: Principal, **wanted: Any) -> tuple[list[dict[str, Any]], bool]:
        """A page of data sets and whether there are more (see assets.eval_sets.search)."""
        return await self._read(who, lambda tx: eval_sets.search(tx, **wanted))

    async def delete(self, who: Principal, id: str) -> None:
        """Forget a data set; its versions stay."""
        await self._write(who, lambda tx: eval_sets.delete(tx, id))

    async def tag(self, who: Principal, id: str, tags: Mapping[str, str | None]) -> dict[str, Any]:
        """Merge tags in; None takes one away."""

        def work(tx: Any) -> dict[str, Any]:
            now = {**eval_sets.get(tx, id)["tags"], **tags}
            return eval_sets.change(tx, id, tags={str(k): str(v) for k, v in now.items() if v is not None})

        return await self._write(who, work)

    async def place(self, who: Principal, id: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> dict[str, Any]:
        """Put a data set into experiments, or take it out. NotFound for an experiment to add that is not there."""

        def work(tx: Any) -> dict[str, Any]:
            for one in add:
                experiments.get(tx, one)
            there = dict.fromkeys([*eval_sets.get(tx, id)["experiments"], *add])
            return eval_sets.change(tx, id, experiments=[one for one in there if one not in remove])

        return await self._write(who, work)

    async def records(self, who: Principal, id: str) -> list[dict[str, Any]]:
        """All records of a data set, as its newest version has them."""
        return await self._records(who, await self.get(who, id))

    async def merge(self, who: Principal, id: str, records: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Add records, or merge them into those with the same inputs; answers (added, changed). One more version of the table."""
        who.need(Role.editor, "change an evaluation data set")
        async with self._locks[who.project, id]:
            found = await self.get(who, id)
            now_ms = int(self.ws.clock.now() * 1000)
            kept, added, changed = eval_sets.merged(await self._records(who, found), records, now_ms)
            if len(kept) > EVAL_RECORDS:
                raise BadInput(f"An evaluation data set holds at most {EVAL_RECORDS} records; these would be {len(kept)}.")
            by = next((str(one["tags"][eval_sets.USER]) for one in reversed(records) if (one.get("tags") or {}).get(eval_sets.USER)), who.name)
            await self._keep(who, found, kept, fields=eval_sets.fields_of(found["fields"], records), updated_by=by)
        return added, changed

    async def remove(self, who: Principal, id: str, ids: Sequence[str]) -> int:
        """Take records out; answers how many there were."""
        who.need(Role.editor, "change an evaluation data set")
        async with self._locks[who.project, id]:
            found = await self.get(who, id)
            before = await self._records(who, found)
            kept = [one for one in before if one["dataset_record_id"] not in ids]
            if len(kept) < len(before):
                await self._keep(who, found, kept)
        return len(before) - len(kept)

    async def register_scorer(self, who: Principal, experiment: str, name: str, body: str) -> dict[str, Any]:
        """The next version of a scorer."""
        return await self._write(who, lambda tx: scorers.register(tx, experiment, name, body))

    async def scorers(self, who: Principal, wanted: list[str] | None) -> list[dict[str, Any]]:
        """The newest version of every scorer of these experiments (None: of all)."""
        return await self._read(who, lambda tx: scorers.newest(tx, wanted))

    async def scorer_versions(self, who: Principal, experiment: str, name: str) -> list[dict[str, Any]]:
        """All versions of a scorer, oldest first."""
        return await self._read(who, lambda tx: scorers.versions(tx, experiment, name))

    async def scorer(self, who: Principal, experiment: str, name: str, version: int | None = None) -> dict[str, Any]:
        """One version of a scorer, or its newest."""
        return await self._read(who, lambda tx: scorers.get(tx, experiment, name, version))

    async def delete_scorer(self, who: Principal, experiment: str, name: str, version: int | None = None) -> None:
        """Delete a version of a scorer, or all."""
        await self._write(who, lambda tx: scorers.delete(tx, experiment, name, version))

    async def configure_scorer(self, who: Principal, experiment: str, name: str, rate: float, filter: str | None = None) -> dict[str, Any]:
        """Keep which share of live traces a scorer is meant for. everloop does not run MLflow's scorers; monitors judge live traces."""
        return await self._write(who, lambda tx: scorers.configure(tx, experiment, name, rate, filter))

    async def scorer_configs(self, who: Principal, ids: list[str]) -> list[dict[str, Any]]:
        """What was configured for these scorers."""
        return await self._read(who, lambda tx: scorers.configs(tx, ids))

    async def _records(self, who: Principal, found: Mapping[str, Any]) -> list[dict[str, Any]]:
        if not found["version"] or not found["count"]:
            return []
        return eval_sets.from_columns(await self.ws.data.columns(who, f"dataset:{found['asset']}@{found['version']}"))

    async def _keep(self, who: Principal, found: Mapping[str, Any], records: list[dict[str, Any]], **more: Any) -> None:
        """Write records as the next version of the table; a data set that is empty again keeps its last version, and counts none."""
        version = found["version"]
        if records:
            body = await asyncio.to_thread(eval_sets.to_parquet, records)
            origin = {"evaluation_dataset": found["id"], "name": found["name"]}
            made = await self.ws.data.add_table(who, found["asset"], body, "records.parquet", roles={"id": "dataset_record_id"}, origin=origin)
            version = made["version"]
        await self._write(who, lambda tx: eval_sets.change(tx, found["id"], version=version, count=len(records), **more))

    async def _read(self, who: Principal, work: Callable[[Any], Any]) -> Any:
        return await self.ws.records.read(who.need(Role.viewer), work)

    async def _write(self, who: Principal, work: Callable[[Any], Any]) -> Any:
        who.need(Role.editor, "change evaluation data sets and scorers")
        return await self.ws.records.write(who, work)
