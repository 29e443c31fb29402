"""Annotation queues: items that people label by a rubric, in an order, several people an item; functions of a transaction.

A queue's spec is {"source" (dataset:NAME@VERSION or endpoint:NAME), "of" (rows, documents, traces), "rubric", "instructions", "annotators",
"overlap" (labels wanted of each item), "extra" (more where those do not agree), "assignment" (open: who comes takes the next; dealt: each item
belongs to `overlap` of the annotators), "order" (see workspace/label_items)}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from everloop.assets import rubrics
from everloop.core.errors import BadInput, Conflict, Forbidden, NotFound
from everloop.core.limits import LABEL_CHARS, QUEUE_CLAIM_SECONDS, QUEUE_ITEMS
from everloop.core.principal import Principal, Role
from everloop.core.refs import check_name
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import queue_claims, queue_items, queue_labels, queues

ANYBODY = "*"
"""Among a queue's annotators: every member of the project."""
ASSIGNMENTS = ("open", "dealt")
LOOKED_AT = 200


def checked(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A queue's spec, complete but for its source and order; BadInput says what cannot be."""
    annotators = spec.get("annotators") or []
    if not isinstance(annotators, list) or not all(isinstance(a, str) and a for a in annotators):
        raise BadInput("The annotators must be a list of names.", 'For example: ["ann", "key:labeller"], or ["*"] for every member of the project.')
    named = list(dict.fromkeys(a if a == ANYBODY or ":" in a or a == "local" else f"user:{a}" for a in annotators))
    overlap, extra, assignment = spec.get("overlap", 1), spec.get("extra", 0), spec.get("assignment") or "open"
    for name, value, least in (("overlap", overlap, 1), ("extra", extra, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 50:
            raise BadInput(f"{name} is {value!r}; it must be a whole number from {least} to 50.")
    if assignment not in ASSIGNMENTS:
        raise BadInput(f"There is no assignment {assignment!r}.", f"Assignments: {', '.join(ASSIGNMENTS)}.")
    if assignment == "dealt" and (ANYBODY in named or len(named) < overlap):
        raise BadInput(
            f"Items can be dealt to at least {overlap} annotators by name; named are: {', '.join(named) or 'none'}.",
            "Name more annotators, lower the overlap, or use the assignment open.",
        )
    made = {"rubric": rubrics.checked(spec.get("rubric")), "instructions": str(spec.get("instructions") or ""), "annotators": named}
    return {**made, "overlap": overlap, "extra": extra, "assignment": assignment}


def make(tx: Tx, name: str, spec: dict[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A new queue with items [{"item", "shown", "why"}] in their order. Conflict where the name is taken, BadInput without items."""
    check_name(name)
    if find(tx, name) is not None:
        raise Conflict(f"There is a queue {name!r} already.", "Choose another name; a queue's labels stay.")
    if not items:
        raise BadInput(f"{spec['source']} has nothing to label.", "Choose a source with rows, documents or traces, or a wider time range.")
    tx.run(queues.insert().values(project=tx.project, name=name, spec=spec, created_at=tx.now, created_by=tx.who.name, closed_at=None))
    rows, people = [], spec["annotators"] if spec["assignment"] == "dealt" else []
    for place, item in enumerate(items):
        dealt = [people[(place + i) % len(people)] for i in range(spec["overlap"])] if people else []
        row = {"project": tx.project, "queue": name, "place": place, "assigned": dealt, "labelled": 0, "contested": False}
        rows.append({**row, "item": str(item["item"]), "shown": item["shown"], "why": item.get("why")})
    tx.run(queue_items.insert(), rows)
    audit.record(tx, "queue.make", f"queue:{name}", source=spec["source"], items=len(rows), annotators=spec["annotators"], overlap=spec["overlap"])
    return get(tx, name)


def add(tx: Tx, name: str, items: Sequence[Mapping[str, Any]]) -> int:
    """Put traces [{"item", "shown", "why"?}] behind the items of an open queue of traces; how many were not there. BadInput for another queue."""
    queue = need(tx, name)
    if queue["spec"]["of"] != "traces" or queue["closed_at"] is not None:
        why = "is closed" if queue["closed_at"] is not None else f"holds {queue['spec']['of']}"
        raise BadInput(f"The queue {name!r} {why}; traces cannot be added to it.", "Choose another queue, or the name of a new one.")
    of = (queue_items.c.project == tx.project, queue_items.c.queue == name)
    there = {row["item"] for row in tx.rows(sa.select(queue_items.c.item).where(*of))}
    fresh = [item for item in items if item["item"] not in there]
    if len(there) + len(fresh) > QUEUE_ITEMS:
        raise BadInput(f"The queue {name!r} would have {len(there) + len(fresh)} items; at most {QUEUE_ITEMS} are allowed.")
    last = tx.row(sa.select(sa.func.max(queue_items.c.place).label("place")).where(*of))
    start = (last["place"] if last and last["place"] is not None else -1) + 1
    people, overlap = queue["spec"]["annotators"] if queue["spec"]["assignment"] == "dealt" else [], queue["spec"]["overlap"]
    rows = []
    for place, item in enumerate(fresh, start):
        dealt = [people[(place + i) % len(people)] for i in range(overlap)] if people else []
        row = {"project": tx.project, "queue": name, "place": place, "assigned": dealt, "labelled": 0, "contested": False}
        rows.append({**row, "item": str(item["item"]), "shown": item["shown"], "why": item.get("why")})
    if rows:
        tx.run(queue_items.insert(), rows)
        audit.record(tx, "queue.add", f"queue:{name}", items=len(rows))
    return len(rows)


def find(tx: Tx, name: str) -> dict[str, Any] | None:
    """The queue's row, or None."""
    return tx.row(sa.select(queues).where(queues.c.project == tx.project, queues.c.name == name))


def need(tx: Tx, name: str) -> dict[str, Any]:
    """The queue's row; NotFound says which there are."""
    found = find(tx, name)
    if found is None:
        there = [r["name"] for r in tx.rows(sa.select(queues.c.name).where(queues.c.project == tx.project).order_by(queues.c.name).limit(20))]
        raise NotFound(f"There is no queue {name!r}.", f"There are: {', '.join(there)}." if there else "Make one with: everloop labels make")
    return found


def get(tx: Tx, name: str) -> dict[str, Any]:
    """{"name", "spec", "created_at", "created_by", "closed_at", "items", "done", "labels", "skipped", "contested", "people": [{"annotator", "labels",
    "skipped", "last_at"}]}; `done` items have as many labels as the queue wants."""
    return _told(tx, need(tx, name))


def listed(tx: Tx, limit: int, cursor: str | None) -> dict[str, Any]:
    """Queues by name: {"items", "next"}."""
    wanted = sa.select(queues).where(queues.c.project == tx.project, queues.c.name > (cursor or "")).order_by(queues.c.name).limit(limit + 1)
    rows = tx.rows(wanted)
    return {"items": [_told(tx, row) for row in rows[:limit]], "next": rows[limit - 1]["name"] if len(rows) > limit else None}


def may_label(queue: Mapping[str, Any], who: Principal) -> bool:
    """Whether somebody may label in a queue: its annotators, who may be viewers, and whoever may edit the project."""
    named = queue["spec"]["annotators"]
    return who.kind != "worker" and (who.role >= Role.editor or (who.role >= Role.viewer and (who.name in named or ANYBODY in named)))


def need_label(queue: Mapping[str, Any], who: Principal) -> None:
    """Forbidden unless `who` may label in the queue; Conflict where it is closed."""
    if not may_label(queue, who):
        raise Forbidden(
            f"{who.name} is {who.role.name} and no annotator of the queue {queue['name']!r}.",
            "Ask whoever made the queue to name you among its annotators.",
        )
    if queue["closed_at"] is not None:
        raise Conflict(f"The queue {queue['name']!r} is closed.", "Its labels stand; make another queue for more.")


def claim(tx: Tx, name: str) -> tuple[dict[str, Any] | None, bool]:
    """(the next item for the acting principal, or None; whether others look at some). It is theirs for QUEUE_CLAIM_SECONDS, over a restart too, and
    the same one until they label or skip it. Forbidden, Conflict as `need_label`."""
    need_label(need(tx, name), tx.who)
    c = queue_claims.c
    tx.run(queue_claims.delete().where(c.project == tx.project, c.queue == name, c.until <= tx.now))
    others = tx.rows(sa.select(c.item).where(c.project == tx.project, c.queue == name, c.annotator != tx.who.name))
    found = following(tx, name, tx.who.name, Counter(row["item"] for row in others))
    if found is not None:
        key = {"project": tx.project, "queue": name, "annotator": tx.who.name}
        tx.upsert(queue_claims, {**key, "item": found["item"], "until": tx.now + QUEUE_CLAIM_SECONDS})
    return found, bool(others)


def following(tx: Tx, name: str, annotator: str, taken: Mapping[str, int]) -> dict[str, Any] | None:
    """The next item for an annotator, or None: one that they have not labelled or skipped, that is theirs or anybody's, and wants more labels than
    the others who look at it now (`taken`: how many) will give. Items whose labels do not agree come first where the queue's order says so, else by place."""
    spec = need(tx, name)["spec"]
    it, mine = queue_items.c, queue_labels.alias("mine")
    seen = sa.exists().where(mine.c.project == it.project, mine.c.queue == it.queue, mine.c.item == it.item, mine.c.annotator == annotator)
    wants = sa.or_(it.labelled < spec["overlap"], sa.and_(it.contested, it.labelled < spec["overlap"] + spec["extra"]))
    order = [it.contested.desc(), it.place] if spec["order"]["by"] == "disagreement" else [it.place]
    left = sa.select(queue_items).where(it.project == tx.project, it.queue == name, wants, ~seen).order_by(*order)
    offset = 0
    while True:
        page = tx.rows(left.limit(LOOKED_AT).offset(offset))
        for row in page:
            third = row["labelled"] >= spec["overlap"]
            wanted = spec["overlap"] + (spec["extra"] if row["contested"] else 0)
            if row["labelled"] + taken.get(row["item"], 0) < wanted and (not row["assigned"] or annotator in row["assigned"] or third):
                return row
        if len(page) < LOOKED_AT:
            return None
        offset += LOOKED_AT


def item(tx: Tx, name: str, id: str) -> dict[str, Any]:
    """An item's row; NotFound."""
    found = tx.row(sa.select(queue_items).where(queue_items.c.project == tx.project, queue_items.c.queue == name, queue_items.c.item == id))
    if found is None:
        raise NotFound(f"The queue {name!r} has no item {id!r}.", "List them with: everloop labels show " + name)
    return found


def label(tx: Tx, name: str, id: str, values: Any, comment: str = "", skipped: bool = False) -> dict[str, Any]:
    """Keep the acting principal's answers for an item, in place of their earlier ones; `skipped` says that they cannot tell.

    Answers {"item", "annotator", "answers", "comment", "skipped", "at", "first": whether it is their first}. BadInput, NotFound, Forbidden, Conflict.
    """
    queue = need(tx, name)
    need_label(queue, tx.who)
    row = item(tx, name, id)
    if row["assigned"] and tx.who.name not in row["assigned"] and row["labelled"] < queue["spec"]["overlap"]:
        raise Forbidden(f"The item {id!r} is dealt to {', '.join(row['assigned'])}.", "Take the next one: it is yours.")
    if len(comment) > LABEL_CHARS:
        raise BadInput(f"The comment has {len(comment)} characters; at most {LABEL_CHARS} are allowed.")
    given = {} if skipped else rubrics.answers(queue["spec"]["rubric"], values)
    key = {"project": tx.project, "queue": name, "item": id, "annotator": tx.who.name}
    before = tx.row(sa.select(queue_labels).where(*(queue_labels.c[k] == v for k, v in key.items())))
    made = {"answers": given, "comment": comment, "skipped": skipped, "at": tx.now}
    tx.upsert(queue_labels, {**key, **made}, update=list(made))
    c = queue_claims.c
    tx.run(queue_claims.delete().where(c.project == tx.project, c.queue == name, c.annotator == tx.who.name))
    _count(tx, name, id, queue["spec"]["rubric"])
    audit.record(tx, "queue.label", f"queue:{name}", item=id, skipped=skipped, again=before is not None)
    return {"item": id, "annotator": tx.who.name, **made, "first": before is None}


def last_of(tx: Tx, name: str, annotator: str, before: float | None = None) -> dict[str, Any] | None:
    """An annotator's newest label, or the newest one older than `before`."""
    of = [queue_labels.c.project == tx.project, queue_labels.c.queue == name, queue_labels.c.annotator == annotator]
    of += [queue_labels.c.at < before] if before is not None else []
    return tx.row(sa.select(queue_labels).where(*of).order_by(queue_labels.c.at.desc()).limit(1))


def labels(tx: Tx, name: str, *, item: str | None = None, annotator: str | None = None) -> list[dict[str, Any]]:
    """Labels of a queue, by item and time."""
    of = [queue_labels.c.project == tx.project, queue_labels.c.queue == name]
    of += [queue_labels.c.item == item] if item is not None else []
    of += [queue_labels.c.annotator == annotator] if annotator is not None else []
    return tx.rows(sa.select(queue_labels).where(*of).order_by(queue_labels.c.item, queue_labels.c.at))


def items(tx: Tx, name: str, limit: int, after: int = -1) -> list[dict[str, Any]]:
    """Items by place, those behind place `after`."""
    of = (queue_items.c.project == tx.project, queue_items.c.queue == name, queue_items.c.place > after)
    return tx.rows(sa.select(queue_items).where(*of).order_by(queue_items.c.place).limit(limit))


def change(tx: Tx, name: str, *, annotators: list[str] | None = None, closed: bool | None = None) -> dict[str, Any]:
    """Name other annotators (of an open queue), close or open again."""
    queue = need(tx, name)
    spec, values = dict(queue["spec"]), {}
    if annotators is not None:
        if spec["assignment"] == "dealt":
            raise BadInput("The queue's items are dealt already.", "Make a queue with the assignment open to change who labels.")
        spec["annotators"] = checked({**spec, "annotators": annotators})["annotators"]
        values["spec"] = spec
    if closed is not None:
        values["closed_at"] = (queue["closed_at"] or tx.now) if closed else None
    if values:
        tx.run(sa.update(queues).where(queues.c.project == tx.project, queues.c.name == name).values(**values))
        audit.record(tx, "queue.change", f"queue:{name}", annotators=annotators, closed=closed)
    return get(tx, name)


def _count(tx: Tx, name: str, id: str, rubric: Sequence[Mapping[str, Any]]) -> None:
    given = [one["answers"] for one in labels(tx, name, item=id) if not one["skipped"]]
    told = [q["name"] for q in rubric if q["type"] != "text"]
    contested = any(len({str(v[q]) for v in given if q in v}) > 1 for q in told)
    of = (queue_items.c.project == tx.project, queue_items.c.queue == name, queue_items.c.item == id)
    tx.run(sa.update(queue_items).where(*of).values(labelled=len(given), contested=contested))


def _told(tx: Tx, queue: dict[str, Any]) -> dict[str, Any]:
    it, la, name = queue_items.c, queue_labels.c, queue["name"]
    mine = (it.project == tx.project, it.queue == name)
    done = sa.func.sum(sa.case((it.labelled >= queue["spec"]["overlap"], 1), else_=0))
    apart = sa.func.sum(sa.case((it.contested, 1), else_=0))
    counts = tx.row(sa.select(sa.func.count().label("items"), done.label("done"), apart.label("contested")).where(*mine)) or {}
    skips = sa.func.sum(sa.case((la.skipped, 1), else_=0))
    people = tx.rows(
        sa.select(la.annotator, sa.func.count().label("all"), skips.label("skipped"), sa.func.max(la.at).label("last_at"))
        .where(la.project == tx.project, la.queue == name)
        .group_by(la.annotator)
        .order_by(la.annotator)
    )
    told = [{"annotator": p["annotator"], "labels": p["all"] - p["skipped"], "skipped": p["skipped"], "last_at": p["last_at"]} for p in people]
    totals = {"labels": sum(p["labels"] for p in told), "skipped": sum(p["skipped"] for p in told)}
    numbers = {key: int(counts.get(key) or 0) for key in ("items", "done", "contested")}
    return {**{k: queue[k] for k in ("name", "spec", "created_at", "created_by", "closed_at")}, **numbers, **totals, "people": told}
