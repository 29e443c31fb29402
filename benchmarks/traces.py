"""P7: questions to a store of many traces: the newest 100, one by id, by filter, by words, figures by hour and by model, sessions.

    python -m benchmarks.traces [--spans 1000000] [--rounds 20] [--home DIR]

Spans are those of benchmarks/ingest.py (8 to a trace, 1.7 kB each as protobuf, decoded by the server's own reader) over 24 hours, written to a fresh store in
this process; a home that is given and has traces is asked as it is. Each question runs `rounds` times, another trace or word each time: median and 95th
percentile in ms, without HTTP. The sizes on disk are printed a span, by file.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ingest import POST, WORDS, bodies
from everloop.protocols.otlp_spans import from_protobuf
from everloop.store import telemetry_queries as queries
from everloop.store import telemetry_reports as reports
from everloop.store.telemetry import Telemetry

HOURS, BODIES = 24, 40


def fill(store: Telemetry, spans: int) -> None:
    """Write `spans` spans, spread over HOURS until now; ids are new each time a body is used again."""
    chance, now, made = random.Random(7), time.time_ns(), bodies(BODIES * POST, 1)
    posts = max(1, spans // POST)
    began = time.perf_counter()
    for n in range(posts):
        export = from_protobuf(made[n % BODIES], now)
        start = now - HOURS * 3600 * 10**9 * (posts - n) // posts
        moved, traces = start - export.spans[0].start_ns, {}
        for span in export.spans:
            span.trace_id = traces.setdefault(span.trace_id, f"{chance.getrandbits(128):032x}")
            span.start_ns, span.end_ns = span.start_ns + moved, span.end_ns + moved + chance.randrange(10**9)
        store.add_soon("default", export.spans)
        if n % 200 == 199:
            store.flush_sync(600)
    store.flush_sync(600)
    print(f"{posts * POST} spans in {time.perf_counter() - began:.0f} s", flush=True)


def questions(store: Telemetry) -> dict[str, Callable[[random.Random], Any]]:
    """What is asked, by name."""
    ids = store.query_sync(lambda con: [row[0] for row in con.execute("SELECT trace_id FROM traces USING SAMPLE 500").fetchall()])
    last = store.query_sync(lambda con: queries.extent(con, "default"))
    assert last is not None

    def listed(limit: int = 100, cursor: str | None = None, **wanted: Any) -> Any:
        return store.query_sync(lambda con: queries.list_traces(con, "default", queries.Filter(**wanted), limit, cursor))

    def found(words: str) -> Any:
        return listed(traces=store.search("default", words))

    def middle() -> str:
        return f"{int((last[0] + last[1]) / 2 * 1e9)}.f"

    return {
        "list, newest 100": lambda _: listed(),
        "list, a page in the middle": lambda _: listed(cursor=middle()),
        "list, one user's": lambda chance: listed(user=f"user-{chance.randrange(2000)}"),
        "list, errors of an hour": lambda _: listed(status="error", since=last[1] - 3600),
        "one trace by id": lambda chance: store.query_sync(lambda con: queries.get_trace(con, "default", chance.choice(ids))),
        "text, two words, first 100": lambda chance: found(" ".join(chance.sample(WORDS, 2))),
        "text, a phrase, first 100": lambda chance: found('"' + " ".join(chance.sample(WORDS, 2)) + '"'),
        "count and p50, p95 by hour": lambda _: store.query_sync(lambda con: queries.stats(con, "default", last[0], last[1] + 1, 3600)),
        "figures by model": lambda _: store.query_sync(lambda con: reports.breakdown(con, "default", "model", queries.Filter(), 100)),
        "figures by user": lambda _: store.query_sync(lambda con: reports.breakdown(con, "default", "user", queries.Filter(), 100)),
        "sessions, newest 100": lambda _: store.query_sync(lambda con: reports.sessions(con, "default", queries.Filter(), 100)),
    }


def main() -> None:
    """Fill a store, ask, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--home", type=Path, help="keep the store here; one that has traces is not filled again")
    options = parser.parse_args()
    home = options.home or Path(tempfile.mkdtemp(prefix="everloop-traces-"))
    store = Telemetry(home).open()
    try:
        store.flush_sync(600)
        if store.query_sync(lambda con: queries.extent(con, "default")) is None:
            fill(store, options.spans)
        [spans, traces] = store.query_sync(lambda con: con.execute("SELECT (SELECT count(*) FROM spans), (SELECT count(*) FROM traces)").fetchone())
        print(f"{spans} spans, {traces} traces")
        for name, ask in questions(store).items():
            chance, took = random.Random(1), []
            ask(random.Random(0))
            for _ in range(options.rounds):
                began = time.perf_counter()
                ask(chance)
                took.append(1000 * (time.perf_counter() - began))
            print(f"{name}: median {statistics.median(took):.1f} ms, p95 {sorted(took)[int(0.95 * (len(took) - 1))]:.1f} ms", flush=True)
    finally:
        store.close()
    for file in sorted(home.glob("telemetry*")):
        print(f"{file.name}: {file.stat().st_size / spans:.0f} bytes a span")
    if options.home is None:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
