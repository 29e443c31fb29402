"""What is done with a selection of traces at once: kept as rows, as cases, put before annotators, asked again of another release."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from everloop.assets import queues, suites
from everloop.core.errors import BadInput, NotFound, TooLarge
from everloop.core.limits import ACTION_TRACES, PAGE_ROWS_MAX, REPLAY_TRACES
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref, check_name
from everloop.evaluate import selections
from everloop.evaluate.exports import Condition, correction
from everloop.workspace import label_items, replays

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

Items = list[dict[str, Any]]


class Actions:
    """Facade over bulk actions. All need the role editor. A selection is `traces` (ids) or the filters of `ws.traces.list`; `score` narrows it
    (`thumbs >= 1`), `limit` takes the newest so many. BadInput for one with nothing in it, TooLarge over ACTION_TRACES."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def dataset(self, who: Principal, name: str, *, of: str | None = None, **selection: Any) -> dict[str, Any]:
        """Add the selection to a dataset, as its next version: the asset, {"added", "rows", "left_out": {why: n}}.

        Rows are `of` predictions (features, outputs, label) where the traces are predictions, else of traces (question, answer, expected, scores). A row that is there already
        is left out. Its lineage reads the version before and the releases that answered; each row names its trace.
        """
        who.need(Role.editor, "add traces to a dataset")
        check_name(name)
        items = await self._selected(who, selection)
        of = of or ("predictions" if all(item["kind"] == selections.PREDICT for item in items) else "traces")
        if of not in ("predictions", "traces"):
            raise BadInput(f"There are no rows of {of!r}.", "Rows of: traces, predictions.")
        fresh = await self._rows(who, items, of)
        return await self._add_rows(who, name, fresh, "prediction_id" if of == "predictions" else "trace_id", items, selection)

    async def suite(self, who: Principal, name: str, *, tags: Sequence[str] = (), **selection: Any) -> dict[str, Any]:
        """Add the selection to a suite, as its next version: the asset, {"added", "cases", "left_out": {why: n}}.

        Chats become cases (question, the corrected answer as what is expected, tags; two of one question are one). Predictions with labels become rows of
        dataset:NAME-cases, which the suite is then of. BadInput where nothing could be added.
        """
        who.need(Role.editor, "add traces to a suite")
        check_name(name)
        if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
            raise BadInput("tags is not a list of texts.")
        items = await self._selected(who, selection)
        if all(item["kind"] == selections.PREDICT for item in items):
            return await self._predictive(who, name, items, selection)
        before, kept = await self._suite(who, name)
        known, ids, left, added = {selections.same_question(one) for one in kept}, {one["id"] for one in kept}, Counter[str](), 0
        for item in sorted(items, key=lambda one: correction(one["scores"]) is None):  # of two, the one that somebody corrected
            made = selections.case(item, tags)
            why = made if isinstance(made, str) else "asked in it already" if selections.same_question(made) in known or made["id"] in ids else ""
            if why or isinstance(made, str):
                left[why] += 1
                continue
            known.add(selections.same_question(made))
            kept.append(made)
            added += 1
        if not added:
            raise BadInput(f"Nothing was added to suite:{name}: {_told(left)}.", "Choose traces with a question that the suite does not ask yet.")
        body = b"".join(orjson.dumps(one, option=orjson.OPT_SORT_KEYS) + b"\n" for one in suites.cases(enumerate(kept, 1)))
        manifest = {**(before["manifest"] if before else {"task": "chat"}), "cases": await self.ws.assets.put_object(who, body)}
        reads = [*([before["ref"]] if before else []), *await self._releases(who, items)]
        asset = await self.ws.assets.register(who, "suite", name, manifest, reads=reads, description="cases from traces")
        return {**asset, "added": added, "cases": len(kept), "left_out": dict(left)}

    async def queue(self, who: Principal, name: str, *, rubric: Any = None, **selection: Any) -> dict[str, Any]:
        """Put the selection before annotators: {"queue", "added", "left_out"}. A queue that is not there is made with `rubric` (see ws.labels.make)."""
        who.need(Role.editor, "add traces to an annotation queue")
        items = await self._selected(who, selection)
        shown = [label_items.trace_item(item) for item in items]
        places = {item["endpoint"] for item in items}
        source = f"endpoint:{places.pop()}" if len(places) == 1 and None not in places else "traces"

        def work(tx: Any) -> tuple[dict[str, Any], int]:
            if queues.find(tx, name) is not None:
                return queues.get(tx, name), queues.add(tx, name, shown)
            if rubric is None:
                queues.need(tx, name)
            spec = queues.checked({"rubric": rubric})
            made = queues.make(tx, name, {**spec, "source": source, "of": "traces", "order": label_items.checked_order(None)}, shown)
            return made, len(shown)

        queue, added = await self.ws.records.write(who, work)
        return {"queue": queue["name"], "added": added, "left_out": {"in the queue already": len(shown) - added} if added < len(shown) else {}}

    async def replay(self, who: Principal, release: str, *, checks: Sequence[str] = (), **selection: Any) -> dict[str, Any]:
        """Ask a release what the selection was asked, beside production (nothing is recorded as traffic): see replays.run."""
        who.need(Role.editor, "ask a release again")
        items = await self._selected(who, selection, REPLAY_TRACES)
        exact = await self.ws.assets.resolve(who, Ref.parse(release, "release"))
        return await replays.run(self.ws, who, str(exact), items, checks)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    async def _selected(self, who: Principal, selection: Mapping[str, Any], most: int = ACTION_TRACES) -> Items:
        filters = dict(selection)
        limit, score = filters.pop("limit", None), filters.pop("score", None)
        condition = Condition.parse(score) if score else None
        if filters.get("traces") is not None and len(filters["traces"]) > most:
            raise TooLarge(f"{len(filters['traces'])} traces are named; at most {most} can be.", "Do it in parts.")
        await self.ws.telemetry.flush()
        found: Items = []
        cursor = None
        while limit is None or len(found) < limit:
            page = await self.ws.traces.list(who, limit=PAGE_ROWS_MAX, cursor=cursor, **filters)
            found += [item for item in page["items"] if condition is None or condition.holds(item["scores"])]
            if len(found) > most and (limit is None or limit > most):
                raise TooLarge(f"The selection has more than {most} traces.", "Narrow the filter, or take the newest with a limit.")
            if not (cursor := page["next"]):
                break
        if not found:
            raise BadInput("The selection has no trace in it.", "Look at what a filter finds with: everloop traces list")
        return found[:limit]

    async def _rows(self, who: Principal, items: Items, of: str) -> selections.Rows:
        if of == "traces":
            return [selections.trace_row(item) for item in items]
        return [row for item in items for row in selections.prediction_rows(await self.ws.traces.get(who, item["trace_id"]))]

    async def _add_rows(
        self, who: Principal, name: str, fresh: selections.Rows, key: str, items: Items, selection: Mapping[str, Any], target: str | None = None
    ) -> dict[str, Any]:
        """Rows behind those of the version before, as the next version of a dataset."""
        before = await self._latest(who, "dataset", name)
        columns = await self.ws.data.columns(who, before["ref"]) if before else {}
        if before and key not in columns:
            raise BadInput(f"{before['ref']} has no column {key!r}, so it was not made of traces.", "Choose another name.")
        known = set(columns.get(key, ()))
        added = [row for row in fresh if row[key] not in known]
        if not added:
            raise BadInput(f"Nothing was added to dataset:{name}: {'all of it is there already' if fresh else 'the traces hold no predictions'}.")
        held = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        body = await asyncio.to_thread(selections.table, [*held, *added])
        reads = [*([before["ref"]] if before else []), *await self._releases(who, items)]
        origin = {"traces": len(items), "selection": {k: str(v) for k, v in selection.items() if v and k != "traces"}}
        several = target is not None and len({row[target] for row in (*held, *added)}) > 1  # one class alone is no target yet
        roles = {"id": key, **({"target": target} if several else {})} if target else None if before else {"id": key}
        made = await self.ws.data.add_table(who, name, body, f"{name}.parquet", roles=roles, reads=reads, origin=origin, description="from traces")
        left = {"in it already": len(fresh) - len(added)} if len(added) < len(fresh) else {}
        return {**made, "added": len(added), "rows": len(held) + len(added), "left_out": left}

    async def _predictive(self, who: Principal, name: str, items: Items, selection: Mapping[str, Any]) -> dict[str, Any]:
        rows = await self._rows(who, items, "predictions")
        labelled = [row for row in rows if row["label"] is not None]
        if not labelled:
            raise BadInput("None of these predictions has a label yet.", "Labels come late: everloop labels join FILE --on prediction_id")
        data = await self._add_rows(who, f"{name}-cases", labelled, "prediction_id", items, selection, "label")
        before = await self._latest(who, "suite", name)
        if before and before["manifest"]["task"] == "chat":
            raise BadInput(f"suite:{name} asks questions; predictions cannot be added to it.", "Choose another name.")
        task = before["manifest"]["task"] if before else await self._task(who, labelled)
        manifest = {**(before["manifest"] if before else {"protected": [], "cases": None}), "task": task, "dataset": data["ref"], "target": "label"}
        asset = await self.ws.assets.register(who, "suite", name, manifest, reads=[data["ref"]], description="labelled predictions from traces")
        left = {"no label yet": len(rows) - len(labelled)} if len(labelled) < len(rows) else {}
        return {**asset, "added": data["added"], "cases": data["rows"], "left_out": {**left, **data["left_out"]}}

    async def _task(self, who: Principal, rows: selections.Rows) -> str:
        release = await self.ws.assets.get(who, Ref.parse(rows[0]["release"], "release"))
        return str((await self.ws.assets.get(who, release["manifest"]["pins"]["model"]))["manifest"]["task"])

    async def _suite(self, who: Principal, name: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        before = await self._latest(who, "suite", name)
        if before is None:
            return None, []
        if before["manifest"]["task"] != "chat":
            raise BadInput(f"suite:{name} is of rows; questions cannot be added to it.", "Choose another name.")
        return before, suites.parse(await self.ws.assets.get_object(who, before["manifest"]["cases"]["digest"]))

    async def _latest(self, who: Principal, kind: str, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self.ws.assets.get(who, Ref(kind, name))
        except NotFound:
            return None
        return found

    async def _releases(self, who: Principal, items: Items) -> list[str]:
        """The releases that answered, of those that are here (traces come from elsewhere too)."""
        found = []
        for ref in sorted({str(item["release"]) for item in items if item["release"]}):
            try:
                found.append(str((await self.ws.assets.get(who, Ref.parse(ref, "release")))["ref"]))
            except (NotFound, BadInput):
                continue
        return found


def _told(left: Mapping[str, int]) -> str:
    return ", ".join(f"{why} ({n})" for why, n in left.items())
