"""The contract of records, on every backend."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from everloop.core.principal import Principal
from everloop.store import audit, schema
from everloop.store.records import Records, Tx


def put(name: str):
    def work(tx: Tx) -> None:
        tx.upsert(schema.projects, {"name": name, "created_at": tx.now, "created_by": tx.who.name, "settings": {}})

    return work


def names(tx: Tx) -> list[str]:
    return [row["name"] for row in tx.rows(sa.select(schema.projects.c.name).order_by(schema.projects.c.name))]


def test_a_write_is_seen_by_the_next_read(records: Records, who: Principal) -> None:
    records.write_sync(who, put("a"))
    assert records.read_sync(who, names) == ["a"]


def test_waiting_writes_share_commits_and_one_failure_is_its_own(records: Records, who: Principal) -> None:
    async def one(i: int) -> bool:
        def work(tx: Tx) -> None:
            put(f"p{i:03}")(tx)
            if i % 10 == 3:
                raise ValueError(i)

        try:
            await records.write(who, work)
            return True
        except ValueError:
            return False

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*[one(i) for i in range(200)])

    before = records.commits
    assert sum(asyncio.run(all_of_them())) == 180
    assert records.commits - before < 100
    assert len(records.read_sync(who, names)) == 180


def test_gathered_writes_are_one_call_and_each_ends_as_it_should(records: Records, who: Principal, other: Principal) -> None:
    calls: list[tuple[str, list[str]]] = []

    def together(tx: Tx, items: list[str]) -> list[str | Exception]:
        calls.append((tx.project, items))
        for item in items:
            if item == "broken":
                raise KeyError(item)
            if item != "refused":
                put(item)(tx)
        return [ValueError(item) if item == "refused" else item.upper() for item in items]

    async def all_of_them(items: list[str]) -> list[object]:
        asked = [records.gather(who, together, item) for item in items] + [records.gather(other, together, "z")]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(all_of_them([f"g{i}" for i in range(50)] + ["refused"]))
    assert found[:50] == [f"G{i}" for i in range(50)] and isinstance(found[50], ValueError) and found[51] == "Z"
    assert len(calls) < 25 and {project for project, _ in calls} == {"default", "other"}
    found = asyncio.run(all_of_them(["h1", "broken", "h2"]))
    assert found[0] == "H1" and isinstance(found[1], KeyError) and found[2] == "H2"
    assert records.read_sync(who, names) == sorted([f"g{i}" for i in range(50)] + ["h1", "h2", "z"])


def test_upsert_updates_or_leaves_alone(records: Records, who: Principal) -> None:
    row = {"project": "default", "user": "ann", "role": "viewer"}
    records.write_sync(who, lambda tx: tx.upsert(schema.members, row))
    records.write_sync(who, lambda tx: tx.upsert(schema.members, {**row, "role": "admin"}))
    records.write_sync(who, lambda tx: tx.upsert(schema.members, {**row, "role": "editor"}, update=[]))
    assert records.read_sync(who, lambda tx: tx.value(sa.select(schema.members.c.role))) == "admin"


def test_audit_is_a_chain_per_project_and_tampering_shows(records: Records, who: Principal, other: Principal) -> None:
    for i in range(5):
        records.write_sync(who, lambda tx, i=i: audit.record(tx, "test.do", f"thing:{i}", i=i, ratio=0.1 * i))
    records.write_sync(other, lambda tx: audit.record(tx, "test.do", "thing:x"))
    assert records.read_sync(who, audit.verify)["ok"]
    assert records.read_sync(other, audit.verify)["rows"] == 1
    records.write_sync(who, lambda tx: tx.run(schema.audit.update().where(schema.audit.c.subject == "thing:2").values(by="someone else")))
    verdict = records.read_sync(who, audit.verify)
    assert not verdict["ok"] and verdict["rows"] == 2
    assert records.read_sync(other, audit.verify)["ok"]


def test_a_closed_store_says_so(records: Records, who: Principal) -> None:
    from everloop.core.errors import Busy

    records.close()
    with pytest.raises(Busy):
        records.write_sync(who, put("late"))


@pytest.mark.parametrize("value", [5, 0, 2.5, "5", "text", True, None, [1], {"a": 1}])
def test_any_json_value_comes_back_as_it_was(records: Records, who: Principal, value: object) -> None:
    """SQLite stores a bare number in a JSON column as a number, which is no JSON text."""
    row = {
        "id": "t1",
        "project": "default",
        "run": "r",
        "step": "s",
        "state": "ready",
        "call": "m:f",
        "params": {},
        "result": value,
        "after": [],
        "error": "",
    }
    records.write_sync(who, lambda tx: tx.run(schema.tasks.insert().values(**row, attempts=0, key="", created_at=0.0, by="t")))
    assert records.read_sync(who, lambda tx: tx.value(sa.select(schema.tasks.c.result))) == value
