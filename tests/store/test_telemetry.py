"""The contract of telemetry: durable before acknowledged, there once, seen soon, kept apart by project."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everloop.core.clock import FakeClock, new_span_id, new_trace_id
from everloop.core.errors import Conflict
from everloop.core.types import Span
from everloop.store import telemetry_queries as queries
from everloop.store.telemetry import Telemetry


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[Telemetry]:
    store = Telemetry(tmp_path, FakeClock(), fsync=False).open()
    yield store
    store.close()


def span(trace: str, parent: str | None = None, start: float = 1000.0, ms: float = 5.0, **more: object) -> Span:
    fields = {"name": "call", "kind": "CHAIN", "status": "ok", "inputs": None, "outputs": None, "attributes": {}, **more}
    return Span(trace, new_span_id(), parent, start_ns=int(start * 1e9), end_ns=int(start * 1e9 + ms * 1e6), **fields)  # type: ignore[arg-type]


def listed(telemetry: Telemetry, limit: int = 100, cursor: str | None = None, project: str = "default", **wanted: object) -> dict:
    telemetry.flush_sync()
    return telemetry.query_sync(lambda con: queries.list_traces(con, project, queries.Filter(**wanted), limit, cursor))  # type: ignore[arg-type]


def chat(trace: str, start: float = 1000.0, question: str = "what is a refund?", **root: object) -> list[Span]:
    top = span(
        trace,
        start=start,
        ms=20,
        inputs=question,
        outputs="a refund is money given back",
        attributes={"everloop.endpoint": "tutor", "everloop.release": "release:tutor@1", "session.id": "s1", "user.id": "ann", **root},
    )
    llm = span(
        trace,
        top.span_id,
        start=start,
        kind="LLM",
        attributes={"gen_ai.request.model": "m", "gen_ai.usage.prompt_tokens": 10, "llm.token_count.completion": 5, "llm.cost.total": 0.25},
    )
    return [top, llm]


def test_a_trace_comes_back_whole(telemetry: Telemetry) -> None:
    trace = new_trace_id()
    telemetry.add_soon(
        "default", chat(trace), [{"prediction_id": f"{trace}-0", "at": 1000.0, "endpoint": "tutor", "features": {"a": 1}, "outputs": {"p": 0.5}}]
    )
    [item] = listed(telemetry)["items"]
    assert item["trace_id"] == trace and item["endpoint"] == "tutor" and item["tokens_in"] == 10 and item["tokens_out"] == 5 and item["cost"] == 0.25
    assert item["ms"] == pytest.approx(20) and item["at"] == 1000.0 and item["inputs"] == "what is a refund?" and item["user"] == "ann"
    whole = telemetry.query_sync(lambda con: queries.get_trace(con, "default", trace))
    assert [s["kind"] for s in whole["spans"]] in (["CHAIN", "LLM"], ["LLM", "CHAIN"])
    child = next(s for s in whole["spans"] if s["kind"] == "LLM")
    assert child["endpoint"] == "tutor" and child["user"] == "ann" and child["model"] == "m"
    assert whole["predictions"][0]["features"] == {"a": 1}


def test_writes_sent_twice_are_there_once(telemetry: Telemetry) -> None:
    spans = chat(new_trace_id())
    for _ in range(3):
        [f.result(10) for f in telemetry.add("default", spans + spans)]
        telemetry.flush_sync()
    assert telemetry.query_sync(lambda con: con.execute("SELECT count(*) FROM spans").fetchone()) == (2,)


def test_projects_do_not_see_each_other(telemetry: Telemetry) -> None:
    trace = new_trace_id()
    telemetry.add_soon("default", chat(trace, question="zebra"), [{"prediction_id": f"{trace}-0", "at": 1.0, "endpoint": "tutor"}])
    telemetry.add("default", scores=[{"id": "1", "subject": trace, "name": "thumb", "value": 1, "at": 1.0}])
    telemetry.flush_sync()
    assert telemetry.search("default", "zebra") == [trace] and telemetry.search("other", "zebra") == []
    assert listed(telemetry, project="other") == {"items": [], "next": None}
    for ask in (
        lambda con: queries.get_trace(con, "other", trace),
        lambda con: queries.scores(con, "other", trace),
        lambda con: queries.predictions(con, "other", "tutor", 0, 9, None, 9),
        lambda con: queries.stats(con, "other", 0, 1e9, 60),
    ):
        assert not telemetry.query_sync(ask)


def test_paging_and_filters(telemetry: Telemetry) -> None:
    traces = [new_trace_id() for _ in range(25)]
    for i, trace in enumerate(traces):
        telemetry.add_soon("default", chat(trace, start=1000.0 + i // 2, question=f"apple number{i}"))
    seen, cursor = [], None
    while True:
        page = listed(telemetry, limit=10, cursor=cursor)
        seen += [item["trace_id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert sorted(seen) == sorted(traces) and len(seen) == 25
    assert len(listed(telemetry, since=1005.0, until=1007.0)["items"]) == 4
    assert len(listed(telemetry, user="ann", session="s1", endpoint="tutor", release="release:tutor@1", status="ok")["items"]) == 25
    assert not listed(telemetry, user="bob")["items"] and not listed(telemetry, status="error")["items"]
    assert telemetry.search("default", "APPLE number7") == [traces[7]]
    assert telemetry.search("default", '"apple number1"') == [traces[1]] and len(telemetry.search("default", "apple number1")) == 11
    assert telemetry.search("default", "banana") == [] and telemetry.search("default", '"; -- *') == []


def test_a_child_that_comes_before_its_root_does_not_double_the_trace(telemetry: Telemetry) -> None:
    trace = new_trace_id()
    root = span(trace, start=1000, ms=100)
    telemetry.add_soon("default", [span(trace, root.span_id, start=1050)])
    assert len(listed(telemetry)["items"]) == 1
    telemetry.add_soon("default", [root])
    for limit in (1, 10):
        page = listed(telemetry, limit=limit)
        assert [(i["at"], i["spans"]) for i in page["items"]] == [(1000.0, 2)] and page["next"] is None


def test_labels_join_their_prediction_the_last_wins_and_all_are_kept(telemetry: Telemetry) -> None:
    trace = new_trace_id()
    telemetry.add("default", scores=[{"id": "1", "subject": f"{trace}-0", "name": "label", "value": "good", "at": 5.0}])
    telemetry.add_soon(
        "default",
        [],
        [
            {
                "prediction_id": f"{trace}-{i}",
                "at": 1.0 + i,
                "endpoint": "credit",
                "release": "release:credit@1",
                "features": {"x": i},
                "outputs": {"prediction": "bad"},
            }
            for i in range(3)
        ],
    )
    telemetry.add(
        "default",
        scores=[
            {"id": "2", "subject": f"{trace}-0", "name": "label", "value": "bad", "at": 6.0},
            {"id": "3", "subject": f"{trace}-1", "name": "label", "value": 1, "at": 6.0},
            {"id": "4", "subject": f"{trace}-1", "name": "other", "value": 2, "at": 7.0},
        ],
    )
    telemetry.flush_sync()
    rows = telemetry.query_sync(lambda con: queries.predictions(con, "default", "credit", 0, 100, None, 100))
    assert [row["label"] for row in rows] == ["bad", 1, None]
    assert [row["features"]["x"] for row in rows] == [0, 1, 2]
    assert [s["value"] for s in telemetry.query_sync(lambda con: queries.scores(con, "default", f"{trace}-0"))] == ["good", "bad"]
    assert telemetry.query_sync(lambda con: queries.predictions(con, "default", "credit", 0, 100, "release:credit@2", 100)) == []


def test_stats_by_bucket_and_usage_is_not_counted_twice(telemetry: Telemetry) -> None:
    usage = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5}
    for i in range(4):
        trace = new_trace_id()
        agent = span(trace, start=1000 + 30 * i, ms=10 * (i + 1), status="error" if i == 3 else "ok", attributes=usage)  # repeats its child's usage
        telemetry.add_soon("default", [agent, span(trace, agent.span_id, start=1000 + 30 * i, attributes=usage)])
    telemetry.flush_sync()
    first, second = telemetry.query_sync(lambda con: queries.stats(con, "default", 1000, 1120, 60))
    assert (first["count"], first["errors"], first["tokens"], first["p50_ms"]) == (2, 0, 30, pytest.approx(15))
    assert (second["at"], second["count"], second["errors"]) == (1060, 2, 1)
    assert telemetry.query_sync(lambda con: queries.histogram(con, "default", queries.Filter(), [15, 25])) == [1, 1, 2]


def test_odd_values_are_kept_as_far_as_json_can(telemetry: Telemetry) -> None:
    import numpy as np

    trace = new_trace_id()
    telemetry.add_soon(
        "default",
        [
            span(
                trace,
                attributes={
                    "big": 2**70,
                    "nan": float("nan"),
                    "array": np.arange(3),
                    "set": {1},
                    "broken": "a\ud800",
                    "llm.token_count.prompt": 10**12,
                },
                inputs={1: "é"},
            )
        ],
    )
    telemetry.flush_sync()
    [kept] = telemetry.query_sync(lambda con: queries.get_trace(con, "default", trace))["spans"]
    assert kept["attributes"]["big"] == str(2**70) and kept["attributes"]["array"] == [0, 1, 2] and kept["attributes"]["nan"] is None
    assert kept["inputs"] == {"1": "é"} and kept["tokens_in"] is None and telemetry.rejected == 0


def test_it_survives_closing_and_a_lost_text_index(tmp_path: Path) -> None:
    trace = new_trace_id()
    for round in range(3):
        store = Telemetry(tmp_path, fsync=False).open()
        store.flush_sync()
        if round:
            assert store.search("default", "refund") == [trace]
            assert len(listed(store)["items"]) == 1
        store.add("default", chat(trace) if not round else [])
        store.close()
        if round == 1:
            for file in tmp_path.glob("telemetry-text.db*"):
                file.unlink()


def test_one_home_has_one_owner(telemetry: Telemetry, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="another server"):
        Telemetry(tmp_path).open()


def test_many_threads_write_and_all_is_there(telemetry: Telemetry) -> None:
    def work() -> None:
        for _ in range(50):
            telemetry.add_soon("default", [span(new_trace_id())])

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    telemetry.flush_sync()
    assert telemetry.query_sync(lambda con: con.execute("SELECT count(DISTINCT trace_id) FROM spans").fetchone()) == (400,)


def test_a_record_that_no_column_takes_is_put_aside_and_the_others_are_kept(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path, fsync=False).open()
    odd = Span("a" * 32, "b" * 16, None, "odd", "SPAN", 1, 2, attributes={})
    object.__setattr__(odd, "kind", {"not": "a text"})
    good = Span("c" * 32, "d" * 16, None, "good", "SPAN", 1, 2)
    telemetry.add_soon("default", [odd])
    telemetry.add_soon("default", [good])
    telemetry.flush_sync(20)
    assert telemetry.query_sync(lambda con: con.execute("SELECT name FROM spans").fetchall()) == [("good",)]
    assert telemetry.rejected == 1 and len(list((tmp_path / "log" / "rejected").iterdir())) == 1
    telemetry.close()


def test_changes_of_a_trace_are_folded_in_their_order(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path, fsync=False).open()

    def told(**change: object) -> None:
        telemetry.add("p", infos=[{"trace_id": "t", **change}])

    told(fill={"state": "IN_PROGRESS", "experiment": "1"}, span=[1000, 2000], tags={"a": "1", "b": "2"})
    told(span=[500, 1500], root_state="OK", fill_tags={"a": "other", "c": "3"}, runs=["r"])
    telemetry.flush_sync(20)
    told(set={"at_ms": 700, "ms": 9, "final": True}, tags={"b": None}, runs=["r", "s"], metadata={"n": 5})
    told(span=[1, 9000])
    telemetry.flush_sync(20)
    row = telemetry.query_sync(lambda con: con.execute("SELECT state, at_ms, ms, tags, metadata, runs FROM infos").fetchall())
    assert row == [("OK", 700, 9, {"a": "1", "c": "3"}, {"n": "5"}, ["r", "s"])]
    told(delete=True)
    telemetry.flush_sync(20)
    assert telemetry.query_sync(lambda con: con.execute("SELECT count(*) FROM infos").fetchall()) == [(0,)]
    telemetry.close()


def test_points_and_records_that_name_a_user_go_with_them(telemetry: Telemetry) -> None:
    from everloop.store.telemetry_erase import forget_subjects

    def fill(con: Any) -> dict[str, int]:
        con.execute("CREATE TABLE signals (project VARCHAR, attributes VARCHAR)")
        about = ['{"user.id":"ann"}', '{"enduser.id":"ann"}', '{"user.id":"bea"}', '{"session.id":"s1"}', "{}", None]
        con.executemany("INSERT INTO signals VALUES ('default', ?)", [[one] for one in about])
        con.execute("INSERT INTO signals VALUES ('other', ?)", [about[0]])
        return forget_subjects(con, "default", ["s1"], ["ann"])

    assert telemetry.change(fill).result(10) == {"signals": 3}
    assert telemetry.query_sync(lambda con: con.execute("SELECT count(*) FROM signals").fetchone()) == (4,)
