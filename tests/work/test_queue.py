"""The queue on both backends: order, leases, retries, what a lost worker says too late."""

from __future__ import annotations

from typing import Any

import pytest

from everloop.assets import runs
from everloop.core.errors import BadInput, Conflict
from everloop.core.limits import LEASE_SECONDS, TASK_ATTEMPTS
from everloop.core.principal import Principal
from everloop.store.records import Records
from everloop.work import queue
from everloop.work.schedule import next_at


def spec(*steps: tuple[str, list[str]], **more: Any) -> dict[str, Any]:
    return {"steps": [{"name": n, "call": f"everloop.build.x:{n}", "after": a, **more} for n, a in steps]}


def begin(records: Records, who: Principal, what: dict[str, Any]) -> str:
    def work(tx: Any) -> str:
        run = runs.create(tx, "", "pipeline", pipeline="p")["id"]
        queue.enqueue(tx, run, what, {})
        return str(run)

    return records.write_sync(who, work)


@pytest.mark.parametrize(
    "bad",
    [
        spec(("a", ["b"])),
        spec(("a", ["b"]), ("b", ["a"])),
        spec(("a", []), ("a", [])),
        {"steps": []},
        {"steps": [{"name": "a", "call": "os:system"}]},
    ],
)
def test_graphs_that_cannot_be_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        queue.check(bad)


def test_results_reach_dependants_and_the_run_finishes(records: Records, who: Principal) -> None:
    run = begin(records, who, spec(("a", []), ("b", ["a"])))
    a = records.write_sync(who, lambda tx: queue.lease(tx, "w1"))
    assert a["step"] == "a" and records.write_sync(who, lambda tx: queue.lease(tx, "w2")) is None
    records.write_sync(who, lambda tx: queue.complete(tx, a["id"], "w1", {"n": 1}))
    b = records.write_sync(who, lambda tx: queue.lease(tx, "w2"))
    assert b["step"] == "b" and b["inputs"] == {"a": {"n": 1}}
    records.write_sync(who, lambda tx: queue.complete(tx, b["id"], "w2", None))
    assert records.read_sync(who, lambda tx: runs.get(tx, run))["status"] == "finished"


def test_a_lost_lease_is_taken_over_and_its_late_result_refused(records: Records, who: Principal) -> None:
    run = begin(records, who, spec(("a", []), ("b", ["a"])))
    for attempt in range(TASK_ATTEMPTS):
        task = records.write_sync(who, lambda tx, w=f"w{attempt}": queue.lease(tx, w))
        records.clock.time += LEASE_SECONDS + 1  # type: ignore[attr-defined]
    assert task["attempts"] == TASK_ATTEMPTS
    with pytest.raises(Conflict):
        records.write_sync(who, lambda tx: queue.complete(tx, task["id"], "w0", 1))
    assert records.write_sync(who, lambda tx: queue.lease(tx, "w9")) is None
    states = {t["step"]: t["state"] for t in records.read_sync(who, lambda tx: queue.state(tx, run))}
    assert states == {"a": "failed", "b": "skipped"}
    assert records.read_sync(who, lambda tx: runs.get(tx, run))["status"] == "failed"


def test_a_cached_step_is_not_repeated(records: Records, who: Principal) -> None:
    begin(records, who, spec(("a", []), cache=True))
    task = records.write_sync(who, lambda tx: queue.lease(tx, "w"))
    records.write_sync(who, lambda tx: queue.complete(tx, task["id"], "w", 7))
    second = begin(records, who, spec(("a", []), cache=True))
    assert records.write_sync(who, lambda tx: queue.lease(tx, "w")) is None
    assert records.read_sync(who, lambda tx: queue.state(tx, second))[0]["result"] == 7


def test_other_projects_see_nothing_and_cancel_ends_all(records: Records, who: Principal, other: Principal) -> None:
    run = begin(records, who, spec(("a", []), ("b", ["a"])))
    assert records.write_sync(other, lambda tx: queue.lease(tx, "w")) is None
    assert records.write_sync(who, lambda tx: queue.cancel(tx, run)) == 2
    assert records.write_sync(who, lambda tx: queue.lease(tx, "w")) is None


def test_schedules_are_utc() -> None:
    assert next_at("every 7d", 100.0) == 100.0 + 7 * 86_400
    assert next_at("@weekly", 0.0) == 3 * 86_400  # 1970-01-04 was a Sunday
    with pytest.raises(BadInput):
        next_at("sometimes", 0.0)
