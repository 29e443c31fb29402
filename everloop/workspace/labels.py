"""Labels: annotation queues, who labels what next, how far they agree, and the dataset version that comes of it (see assets/queues)."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from everloop.assets import queues, rubrics
from everloop.core.clock import iso
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import PAGE_ROWS, PAGE_ROWS_MAX, QUEUE_ITEMS
from everloop.core.principal import Principal, Role
from everloop.evaluate.agreement import agreement
from everloop.workspace import label_items

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

SOURCE = "annotator"
"""Source of a trace's scores that come from labels."""


class Labels:
    """Facade over queues. Making one, and a dataset of it, needs editor; labelling needs to be named among its annotators (a viewer may be)."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def make(
        self,
        who: Principal,
        name: str,
        source: str,
        rubric: Sequence[Mapping[str, Any]],
        *,
        limit: int = 1000,
        columns: Sequence[str] | None = None,
        order: Any = None,
        since: float | None = None,
        until: float | None = None,
        **spec: Any,
    ) -> dict[str, Any]:
        """A queue over rows, documents or traces; spec: instructions, annotators, overlap, extra, assignment (see assets/queues).

        BadInput for what cannot be labelled, asked or ordered so, Conflict for a name that is taken.
        """
        who.need(Role.editor, "make an annotation queue")
        full = queues.checked({**spec, "rubric": rubric})
        sorted_by = label_items.checked_order(order)
        of, exact, items = await label_items.gather(self.ws, who, source, sorted_by, limit, columns, since, until)
        if of == "rows":
            taken = [q["name"] for q in full["rubric"] if q["name"] in items[0]["shown"]] if items else []
            if taken:
                raise BadInput(
                    f"The rubric asks {taken[0]!r}, which is a column that annotators see.", "Call the question otherwise, or leave that column out."
                )
        return await self.ws.records.write(who, lambda tx: queues.make(tx, name, {**full, "source": exact, "of": of, "order": sorted_by}, items))

    async def list(self, who: Principal, limit: int = PAGE_ROWS, cursor: str | None = None) -> dict[str, Any]:
        """Queues by name, with how far each is, and `may_label` for whoever asks."""
        who.need(Role.viewer)
        if not 1 <= limit <= PAGE_ROWS_MAX:
            raise BadInput(f"A page has 1 to {PAGE_ROWS_MAX} rows, not {limit}.")
        found = await self.ws.records.read(who, lambda tx: queues.listed(tx, limit, cursor))
        return {**found, "items": [self._mine(one, who) for one in found["items"]]}

    async def get(self, who: Principal, name: str) -> dict[str, Any]:
        """One queue, with the agreement on each question (see evaluate/agreement) and `may_label`."""
        queue, given = await self.ws.records.read(who.need(Role.viewer), lambda tx: (queues.get(tx, name), queues.labels(tx, name)))
        told = await asyncio.to_thread(_agreements, queue["spec"]["rubric"], given)
        return self._mine({**queue, "agreement": told}, who)

    async def next(self, who: Principal, name: str) -> dict[str, Any]:
        """The next item for whoever asks: {"item": {"item", "shown", "why"} or None, "left": whether others may still have some}.

        It is kept from others for QUEUE_CLAIM_SECONDS, over a restart too, and the same one is given until it is labelled or skipped.
        """
        found, others = await self.ws.records.write(who.need(Role.viewer), lambda tx: queues.claim(tx, name))
        if found is None:
            return {"item": None, "left": others}
        return {"item": {key: found[key] for key in ("item", "shown", "why")}, "left": True}

    async def label(self, who: Principal, name: str, item: str, answers: Any, *, comment: str = "", skip: bool = False) -> dict[str, Any]:
        """Answer the rubric for an item, or skip it; a second time replaces the first. On a trace the answers become scores of it too."""
        kept = await self.ws.records.write(who.need(Role.viewer), lambda tx: queues.label(tx, name, item, answers, comment, skip))
        queue = await self.ws.records.read(who, lambda tx: queues.need(tx, name))
        if queue["spec"]["of"] == "traces" and not skip:
            await self._score(who, queue, item, kept)
        return kept

    async def items(self, who: Principal, name: str, limit: int = PAGE_ROWS, cursor: str | None = None) -> dict[str, Any]:
        """Items by place with their labels: {"items": [{"item", "shown", "why", "assigned", "labelled", "contested", "labels"}], "next"}.

        Whoever is not editor sees only their own labels, so that annotators judge by themselves.
        """
        who.need(Role.viewer)
        if not 1 <= limit <= PAGE_ROWS_MAX:
            raise BadInput(f"A page has 1 to {PAGE_ROWS_MAX} rows, not {limit}.")
        own = None if who.role >= Role.editor else who.name

        def work(tx: Any) -> dict[str, Any]:
            queues.need(tx, name)
            rows = queues.items(tx, name, limit + 1, int(cursor) if cursor and cursor.isdigit() else -1)
            by: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for one in queues.labels(tx, name, annotator=own):
                by[one["item"]].append({key: one[key] for key in ("annotator", "answers", "comment", "skipped", "at")})
            keys = ("item", "shown", "why", "assigned", "labelled", "contested")
            told = [{**{key: row[key] for key in keys}, "labels": by[row["item"]]} for row in rows[:limit]]
            return {"items": told, "next": str(rows[limit - 1]["place"]) if len(rows) > limit else None}

        return await self.ws.records.read(who, work)

    async def mine(self, who: Principal, name: str, item: str | None = None, before: float | None = None) -> dict[str, Any] | None:
        """An item that whoever asks has labelled, with their label: the named one, or their last (older than `before`). None where there is none."""

        def work(tx: Any) -> dict[str, Any] | None:
            queues.need_label(queues.need(tx, name), who)
            label = next(iter(queues.labels(tx, name, item=item, annotator=who.name)), None) if item else queues.last_of(tx, name, who.name, before)
            return None if label is None else {**queues.item(tx, name, label["item"]), "label": label}

        return await self.ws.records.read(who.need(Role.viewer), work)

    async def change(self, who: Principal, name: str, annotators: Sequence[str] | None = None, closed: bool | None = None) -> dict[str, Any]:
        """Name other annotators, close a queue, or open it again."""
        who.need(Role.editor, "change an annotation queue")
        named = None if annotators is None else [*annotators]
        return await self.ws.records.write(who, lambda tx: queues.change(tx, name, annotators=named, closed=closed))

    async def dataset(self, who: Principal, name: str, dataset: str | None = None, *, least: int = 1, target: str | None = None) -> dict[str, Any]:
        """The labels as the next version of a dataset (default: of the queue's name): the asset, and {"labelled", "left_out", "tied"}.

        A row an item with at least `least` labels: what was shown, then of each question the answer (the class that most gave, the mean of scores),
        how many gave one and the share that agrees, who labelled, when, and all labels as JSON. It reads the source (or the releases that answered
        the traces). `target` names the question to predict. BadInput where nothing was labelled so often.
        """
        who.need(Role.editor, "make a dataset of labels")

        def work(tx: Any) -> Any:
            return queues.get(tx, name), queues.items(tx, name, QUEUE_ITEMS), queues.labels(tx, name)

        queue, items, given = await self.ws.records.read(who, work)
        rubric = queue["spec"]["rubric"]
        if target is not None and target not in [q["name"] for q in rubric]:
            raise BadInput(f"The rubric does not ask {target!r}.", f"It asks: {', '.join(q['name'] for q in rubric)}.")
        by: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in given:
            if not one["skipped"]:
                by[one["item"]].append(one)
        kept = [item for item in items if len(by[item["item"]]) >= max(1, least)]
        if not kept:
            raise BadInput(f"No item of the queue {name!r} has {max(1, least)} labels.", f"Label at /ui/queues/{name}, or ask for fewer.")
        body, tied = await asyncio.to_thread(_table, queue, kept, by)
        used = [one for item in kept for one in by[item["item"]]]
        origin = {
            "queue": name,
            "of": queue["spec"]["source"],
            "annotators": sorted({one["annotator"] for one in used}),
            "from": iso(min(one["at"] for one in used)),
            "until": iso(max(one["at"] for one in used)),
            "labels": len(used),
            "agreement": _agreements(rubric, given),
        }
        reads = await self._releases(who, kept) if queue["spec"]["of"] == "traces" else [queue["spec"]["source"]]
        roles = {"target": target} if target else {}
        made = await self.ws.data.add_table(
            who, dataset or name, body, f"{name}.parquet", roles=roles, reads=reads, origin=origin, description=f"labels of the queue {name}"
        )
        if queue["spec"]["of"] != "traces":
            numbers = {"rows": [int(item["item"]) for item in kept]} if queue["spec"]["of"] == "rows" else {"keys": [item["item"] for item in kept]}
            await self.ws.govern.derive(who, made["ref"], {queue["spec"]["source"]: numbers}, why=f"those that were labelled in the queue {name}")
        return {**made, "labelled": len(kept), "left_out": len(items) - len(kept), "tied": tied}

    async def _releases(self, who: Principal, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """The releases that answered these traces, of those that are here (traces come from elsewhere too)."""
        found = []
        for ref in sorted({str(item["shown"]["release"]) for item in items if item["shown"].get("release")}):
            try:
                found.append(str((await self.ws.assets.get(who, ref))["ref"]))
            except (NotFound, BadInput):
                continue
        return found

    def _mine(self, queue: dict[str, Any], who: Principal) -> dict[str, Any]:
        return {**queue, "may_label": queues.may_label(queue, who) and queue["closed_at"] is None}

    async def _score(self, who: Principal, queue: Mapping[str, Any], trace: str, label: Mapping[str, Any]) -> None:
        """An annotator's answers as scores of the trace; the same question by the same annotator in the same queue replaces its score."""
        rows = []
        for name, value in label["answers"].items():
            key = "\0".join((queue["name"], trace, name, who.name))
            score = {"id": hashlib.sha256(key.encode()).hexdigest()[:32], "subject": trace, "name": name, "value": value, "by": who.name}
            rows.append({**score, "source": SOURCE, "why": label["comment"] or None, "at": label["at"]})
        await self.ws.telemetry.add_durable(who.project, scores=rows)
        await self.ws.telemetry.flush()


def _agreements(rubric: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Agreement by question; texts are not compared."""
    by: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in given:
        if not one["skipped"]:
            by[one["item"]].append(one["answers"])
    asked = [question for question in rubric if question["type"] != "text"]
    return {q["name"]: agreement([[a.get(q["name"]) for a in answers] for answers in by.values()], *rubrics.level(q)) for q in asked}


def _table(queue: Mapping[str, Any], items: Sequence[Mapping[str, Any]], by: Mapping[str, list[dict[str, Any]]]) -> tuple[bytes, int]:
    """(a Parquet file with a row an item, how many answers were left open because as many gave one as another)."""
    import orjson
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    tied = 0
    for item in items:
        labels = by[item["item"]]
        row: dict[str, Any] = {{"rows": "row", "documents": "document", "traces": "trace_id"}[queue["spec"]["of"]]: item["item"]}
        row |= {name: _plain(value) for name, value in item["shown"].items()}
        for question in queue["spec"]["rubric"]:
            name = question["name"]
            given = [one["answers"][name] for one in labels if name in one["answers"]]
            value = row[name] = rubrics.resolved(question, given)
            tied += bool(given) and value is None
            row[f"{name}_n"] = len(given)
            if question["type"] == "class":
                row[f"{name}_share"] = max(given.count(g) for g in given) / len(given) if given else None
        told = [{"by": one["annotator"], "at": iso(one["at"]), "answers": one["answers"], "comment": one["comment"]} for one in labels]
        row |= {"annotators": ", ".join(sorted(one["annotator"] for one in labels)), "labelled_at": iso(max(one["at"] for one in labels))}
        rows.append({**row, "labels": orjson.dumps(told).decode()})
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue(), tied


def _plain(value: Any) -> Any:
    """A value that a column can hold: what is nested becomes JSON."""
    import orjson

    return value if value is None or isinstance(value, str | int | float | bool) else orjson.dumps(value).decode()
