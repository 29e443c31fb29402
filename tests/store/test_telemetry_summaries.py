"""A trace's own row is the same however its spans come, follows deletions, and is made anew for homes that have none."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from everloop.core.types import Span
from everloop.store import telemetry_queries as queries
from everloop.store import telemetry_reports as reports
from everloop.store.telemetry import Telemetry

EXACT = "SELECT * EXCLUDE (cost) FROM traces ORDER BY trace_id"
FLAGS = 'SELECT trace_id, span_id, entry, rolled, endpoint, release, session, "user" FROM spans ORDER BY ALL'


def made(seed: int) -> list[Span]:
    """Spans of three traces: agents over LLM calls that repeat their tokens, an endpoint's call within a client's trace, failures, a lost root."""
    chance, spans = random.Random(seed), []
    for n in range(3):
        trace, ids = f"{chance.getrandbits(128):032x}", [f"{chance.getrandbits(64):016x}" for _ in range(7)]
        parents = [None, *(ids[chance.randrange(i)] for i in range(1, 7))]
        call = chance.randrange(4)
        for i, (id, parent) in enumerate(zip(ids, parents, strict=True)):
            about: dict[str, Any] = {}
            if i == call:
                about |= {"everloop.endpoint": "tutor", "everloop.release": "release:tutor@1", "session.id": f"s{n}", "user.id": "ann"}
                about |= {"everloop.blocked": True} if chance.random() < 0.3 else {}
            if chance.random() < 0.6:
                tokens = chance.randrange(1, 9)
                about |= {"llm.model_name": chance.choice("ab"), "llm.token_count.prompt": tokens, "llm.token_count.completion": tokens % 3}
                about |= {"llm.cost.total": tokens / 8, "gen_ai.response.time_to_first_chunk": tokens / 100}
            start = 1_000_000_000 * (1 + n) + chance.randrange(50)
            status: Any = chance.choice(["ok", "ok", "error"])
            if n < 2 or i:  # the root of the last trace never comes
                spans.append(
                    Span(trace, id, parent, f"n{i}", "CHAIN", start, start + chance.randrange(1, 10**9), status, about, [], f"in{i}", f"out{i}")
                )
    return spans


def rows(folder: Path, writes: list[list[Span]], flush: set[int]) -> tuple[list[Any], list[Any], list[float]]:
    store = Telemetry(folder, fsync=False).open()
    for i, write in enumerate(writes):
        store.add_soon("default", write)
        if i in flush:
            store.flush_sync()
    store.flush_sync()
    found = store.query_sync(
        lambda con: tuple(con.execute(ask).fetchall() for ask in (EXACT, FLAGS, "SELECT coalesce(cost, -1) FROM traces ORDER BY trace_id"))
    )
    store.close()
    return found[0], found[1], [row[0] for row in found[2]]


@pytest.mark.parametrize("seed", range(4))
def test_the_row_is_the_same_in_whatever_order_and_pieces_spans_come(tmp_path: Path, seed: int) -> None:
    chance, spans = random.Random(100 + seed), made(seed)
    whole, flags, costs = rows(tmp_path / "whole", [spans], set())
    assert len(whole) == 3
    for n in range(3):
        mixed = spans + chance.sample(spans, 5)  # some twice
        chance.shuffle(mixed)
        writes = []
        while mixed:
            size = chance.choice((1, 2, 5))
            writes.append(mixed[:size])
            mixed = mixed[size:]
        again = rows(tmp_path / f"mixed{n}", writes, {i for i in range(len(writes)) if chance.random() < 0.4})
        assert again[0] == whole and again[1] == flags and again[2] == pytest.approx(costs)


def test_a_home_without_rows_gets_them_and_figures_add_up(tmp_path: Path) -> None:
    spans = made(7)
    before, _, _ = rows(tmp_path, [spans], set())
    import duckdb

    for undo in ("DROP TABLE traces; DROP TABLE summed", "UPDATE summed SET version = 0", "DELETE FROM traces; UPDATE drained SET byte = byte + 1"):
        con = duckdb.connect(str(tmp_path / "telemetry.duckdb"))
        con.execute(undo)
        con.close()
        assert rows(tmp_path, [], set())[0] == before
    store = Telemetry(tmp_path, fsync=False).open()
    asked = queries.Filter()
    for by in ("endpoint", "user", "name", "session"):
        found = store.query_sync(lambda con, by=by: reports.breakdown(con, "default", by, asked, 10))
        assert sum(one["calls"] for one in found) == 3
    [tutor] = store.query_sync(lambda con: queries.list_traces(con, "default", queries.Filter(endpoint="tutor", session="s0"), 10))["items"]
    assert tutor["trace_id"] == spans[0].trace_id and tutor["inputs"] == "in0" and tutor["name"] == "n0" and tutor["spans"] == 7
    store.close()


def test_a_trace_that_is_deleted_is_nowhere_and_may_come_again(tmp_path: Path) -> None:
    spans = made(3)
    store = Telemetry(tmp_path, fsync=False).open()
    traces = sorted({span.trace_id for span in spans})
    store.add("default", spans, [{"prediction_id": f"{traces[0]}-0", "at": 1.0, "endpoint": "tutor"}])
    store.add("default", scores=[{"id": "1", "subject": traces[0], "name": "thumbs", "value": 1, "at": 1.0}])
    store.add("other", [span for span in spans if span.trace_id == traces[0]])
    store.flush_sync()
    store.add("default", infos=[{"trace_id": one, "delete": True} for one in traces[:2]])
    store.flush_sync()

    def left(table: str) -> list[tuple[str, str]]:
        return sorted(set(store.query_sync(lambda con: con.execute(f"SELECT project, trace_id FROM {table}").fetchall())))

    assert left("traces") == left("spans") == [("default", traces[2]), ("other", traces[0])] and not left("scores") and not left("predictions")
    store.add("default", [span for span in spans if span.trace_id == traces[0]][:2])
    store.flush_sync()
    assert store.query_sync(lambda con: queries.get_trace(con, "default", traces[0]))["spans"][1]["trace_id"] == traces[0]
    store.close()


def test_what_a_client_tells_of_a_trace_is_in_its_row(tmp_path: Path) -> None:
    store = Telemetry(tmp_path, fsync=False).open()
    spans = [Span("t" * 32, f"{i:016x}", None, "n", "CHAIN", 5 + i, 9) for i in range(3)]
    store.add("default", spans[:1], infos=[{"trace_id": "t" * 32, "fill": {"session": "s"}}])
    store.add("default", spans[1:2])
    store.flush_sync()
    store.add("default", infos=[{"trace_id": "t" * 32, "set": {"user": "ann"}}])
    store.flush_sync()
    store.add("default", spans[2:])
    store.flush_sync()
    found = store.query_sync(lambda con: con.execute('SELECT session, "user", spans, start_ns FROM traces').fetchall())
    assert found == [("s", "ann", 3, 5)]
    store.close()
