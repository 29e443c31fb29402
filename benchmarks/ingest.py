"""P5: OpenTelemetry spans a second, sent in posts of 512 spans (about 1.7 kB each, 8 to a trace), until all of them can be queried.

    python -m benchmarks.ingest [--spans 102400] [--at-once 4] [--chunk 20480]

The posts are made before the clock runs and sent by `at-once` connections; a post is answered only after an fsync. A chunk ends when the server's own count
has all traces sent so far. For each chunk: spans a second until acknowledged and until queryable, and the server's CPU a span. A chunk that slows down as
the store grows would show in the list.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.start import everloop, healthy, memory, tree
from benchmarks.tracking import cpu_seconds

POST, TRACE = 512, 8
WORDS = [
    "refund",
    "policy",
    "customer",
    "order",
    "shipping",
    "delay",
    "invoice",
    "account",
    "premium",
    "upgrade",
    "cancel",
    "vector",
    "index",
    "retrieval",
    "passage",
    "contract",
    "clause",
]


def bodies(spans: int, seed: int) -> list[bytes]:
    """ExportTraceServiceRequests of POST spans each: traces of an agent that retrieves, asks an LLM and calls a tool, in OpenInference's names."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    chance, found = random.Random(seed), []
    now = time.time_ns() - 3600 * 10**9
    for n in range(spans // POST):
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        for k in range(POST // TRACE):
            _trace(scope, chance, now + (n * POST + k) * 10**6)
        found.append(request.SerializeToString())
    return found


def _text(chance: random.Random, length: int) -> str:
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length:
        words.append(chance.choice(WORDS))
    return " ".join(words)[:length]


def _trace(scope: Any, chance: random.Random, at: int) -> None:
    trace, ids = chance.randbytes(16), [chance.randbytes(8) for _ in range(TRACE)]
    question, answer = _text(chance, 160), _text(chance, 380)
    about = {"session.id": f"session-{chance.randrange(10**5)}", "user.id": f"user-{chance.randrange(2000)}", "metadata": '{"tenant": "t7"}'}
    llm = {
        "llm.model_name": "gpt-4o-mini",
        "llm.provider": "openai",
        "llm.token_count.prompt": chance.randrange(300, 1500),
        "llm.token_count.completion": chance.randrange(40, 400),
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": _text(chance, 300),
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": question,
        "input.value": json.dumps({"messages": [{"role": "user", "content": question}]}),
        "input.mime_type": "application/json",
        "output.value": answer,
    }
    documents = {f"retrieval.documents.{i}.document.content": _text(chance, 240) for i in range(4)}
    kinds = [
        ("AGENT", {"input.value": question, "output.value": answer + _text(chance, 700)}),
        ("CHAIN", {"input.value": question + _text(chance, 500), "output.value": _text(chance, 500)}),
        ("EMBEDDING", {"embedding.model_name": "text-embedding-3-small", "input.value": question + _text(chance, 900)}),
        ("RETRIEVER", {"input.value": question, **documents}),
        ("RERANKER", {"reranker.query": question, "input.value": _text(chance, 1000)}),
        ("LLM", llm),
        (
            "TOOL",
            {"tool.name": "get_order", "input.value": '{"order": 7}', "input.mime_type": "application/json", "output.value": _text(chance, 1100)},
        ),
        ("LLM", llm),
    ]
    for i, (kind, attributes) in enumerate(kinds):
        span = scope.spans.add(trace_id=trace, span_id=ids[i], parent_span_id=ids[0] if i else b"", name=kind.lower(), start_time_unix_nano=at + i)
        span.end_time_unix_nano = at + i + 10**8
        for name, value in {"openinference.span.kind": kind, **about, **attributes}.items():
            pair = span.attributes.add(key=name)
            if isinstance(value, int):
                pair.value.int_value = value
            else:
                pair.value.string_value = value


async def count(http: Any, url: str) -> int:
    """How many traces can be queried."""
    async with http.get(f"{url}/api/v1/stats", params={"since": 0, "until": time.time() + 60, "bucket_s": 10**10}) as answer:
        items = (await answer.json())["items"]
        return sum(one["count"] for one in items)


async def measure(url: str, spans: int, chunk: int, at_once: int, pid: int) -> list[dict[str, float]]:
    """Send chunks until `spans` are there; one row of figures each."""
    import aiohttp

    rows: list[dict[str, float]] = []
    for n in range(max(1, spans // chunk)):
        posts, waits = bodies(chunk, n), []
        async with aiohttp.ClientSession() as http:  # of its own: the server closes what was idle while the posts were made
            sent, cpu, began = (n + 1) * len(posts) * POST, cpu_seconds(pid), time.perf_counter()

            async def work(posts: list[bytes] = posts, waits: list[float] = waits) -> None:
                while posts:
                    body, start = posts.pop(), time.perf_counter()
                    async with http.post(f"{url}/v1/traces", data=body, headers={"content-type": "application/x-protobuf"}) as answer:
                        assert answer.status == 200, await answer.text()
                    waits.append(time.perf_counter() - start)

            await asyncio.gather(*(work() for _ in range(at_once)))
            acknowledged = time.perf_counter() - began
            while await count(http, url) * TRACE < sent:
                await asyncio.sleep(0.1)
            visible = time.perf_counter() - began
            size = len(waits) * POST
            figures = {"acknowledged": size / acknowledged, "queryable": size / visible, "p95_ms": 1000 * statistics.quantiles(waits, n=20)[-1]}
            rows.append({"spans": sent, **figures, "cpu_us": 1e6 * (cpu_seconds(pid) - cpu) / size})
            print({name: round(value) for name, value in rows[-1].items()}, flush=True)
    return rows


def main() -> None:
    """Start a server on a fresh home, measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=102_400)
    parser.add_argument("--chunk", type=int, default=20_480)
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="everloop-ingest-"))
    command, port = everloop(home)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while not healthy(f"http://127.0.0.1:{port}"):
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
        rows = asyncio.run(measure(f"http://127.0.0.1:{port}", options.spans, options.chunk, options.at_once, process.pid))
        rss, _ = memory(tree(process.pid))
        kept = sum(file.stat().st_size for file in home.glob("telemetry*"))
        print(f"median spans/s queryable {statistics.median(row['queryable'] for row in rows):.0f}, acknowledged", end=" ")
        print(
            f"{statistics.median(row['acknowledged'] for row in rows):.0f}; CPU {statistics.median(row['cpu_us'] for row in rows):.0f} us a span;",
            end=" ",
        )
        print(f"{kept / rows[-1]['spans']:.0f} bytes a span on disk; memory {rss:.0f} MB")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
