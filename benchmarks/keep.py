"""What redaction, retention, the archive and erasure cost: microseconds a kB of text, traces a second, and what waits meanwhile.

    python benchmarks/keep.py --traces 20000 --spans 5

In one process, on a new home with fsync. Half of the traces are 100 days old; each has a chat's texts of about 1 kB, which repeat, so sizes say little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from everloop.core.clock import new_span_id, new_trace_id
from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.core.types import Span
from everloop.serve.redact import Redactor, redacting
from everloop.workspace.assets import make_check
from everloop.workspace.workspace import Workspace

PROSE = "The customer asked about the loan of last year, and we said that the rate was fixed at 3.5 percent until 2031. "
PRIVATE = "Write to ann.smith@example.com or call +44 20 7946 0958. "
RULES = [{"check": check, "stage": "input", "action": "redact"} for check in ("pii", "secrets")]
DAY_NS = 86_400 * 10**9


def redaction() -> dict[str, float]:
    """Microseconds a kB (1,000 characters) of three kinds of text, and of a span of 1 kB in three places."""
    redactor = Redactor("policy:p@1", redacting({"rules": RULES}, make_check), str)
    texts = {
        "no_digits": "We said that the rate was fixed for good. " * 24,
        "prose": PROSE * 9,
        "private": (PROSE + PRIVATE) * 6,
        "1_MB": PROSE * 9_000,
    }
    found = {}
    for name, text in texts.items():
        times = max(1, 100_000 // len(text))
        redactor.text(text)
        start = time.perf_counter()
        for _ in range(times):
            redactor.text(text)
        found[f"us_per_kB_{name}"] = round((time.perf_counter() - start) / times * 1e9 / len(text), 1)
    return found


def trace(i: int, spans: int, days: float) -> list[Span]:
    """A chat of a user: a root and its calls."""
    start, id = int(time.time() * 1e9 - days * DAY_NS) + i * 1000, new_trace_id()
    about = {"user.id": f"user-{i % 100}", "session.id": f"session-{i % 1000}", "everloop.endpoint": "tutor", "llm.model_name": "gpt-4o-mini"}
    text = f"question {i}: {PROSE * 4} {id * 8}"
    root = Span(id, new_span_id(), None, "ask", "CHAIN", start, start + 10**9, "ok", about, [], text, PROSE * 4)
    rest = [Span(id, new_span_id(), root.span_id, f"call {n}", "LLM", start + n, start + 10**8, "ok", dict(about), [], text) for n in range(1, spans)]
    return [root, *rest]


async def keep(traces: int, spans: int, home: Path) -> dict[str, Any]:
    """Fill a home, archive half of it while writing goes on, list, read and search it, erase a user."""
    ws = await Workspace(Settings(home=home, workers=0)).start()
    who = local_principal()
    for i in range(0, traces, 100):
        batch = [one for n in range(i, min(i + 100, traces)) for one in trace(n, spans, 100 if n % 2 else 1)]
        await ws.telemetry.add_durable(who.project, batch)
    await ws.telemetry.flush(600)
    await ws.retention.put(who, "old", {"older": "90d"})
    waits: list[float] = []

    async def write() -> None:
        while True:
            start = time.perf_counter()
            await ws.telemetry.add_durable(who.project, trace(0, spans, 0))
            waits.append(time.perf_counter() - start)
            await asyncio.sleep(0.01)

    writer = asyncio.create_task(write())
    start = time.perf_counter()
    [done] = (await ws.retention.run(who))["rules"]
    seconds = time.perf_counter() - start
    writer.cancel()
    found: dict[str, Any] = {
        "traces": traces,
        "spans_a_trace": spans,
        "archived": done["traces"],
        "archive_traces_per_s": round(done["traces"] / seconds),
    }
    found |= {"archived_bytes_per_span": round(done["archived_bytes"] / max(1, done["rows"]))}
    found |= {"write_p50_ms": round(sorted(waits)[len(waits) // 2] * 1000, 1), "write_max_ms": round(max(waits) * 1000, 1)}
    await ws.telemetry.flush(600)
    old = {"until": time.time() - 90 * 86_400}
    found["list_archived_ms"], page = await timed(ws.traces.list(who, limit=50, **old))
    found["get_archived_ms"], _ = await timed(ws.traces.get(who, page["items"][0]["trace_id"]))
    found["search_archived_ms"], _ = await timed(ws.traces.list(who, limit=50, text='"question 77"', **old))
    found["list_hot_ms"], _ = await timed(ws.traces.list(who, limit=50))
    found["erase_ms"], receipt = await timed(ws.erasure.erase(who, user="user-7", why="benchmark"))
    found["erased"] = receipt["traces"]
    await ws.stop()
    return found


async def timed(work: Any) -> tuple[float, Any]:
    """Milliseconds that it took, and its answer."""
    start = time.perf_counter()
    answer = await work
    return round((time.perf_counter() - start) * 1000, 1), answer


def main() -> None:
    """Print the figures as JSON."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--traces", type=int, default=20_000)
    given.add_argument("--spans", type=int, default=5)
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as home:
        print(json.dumps({**redaction(), **asyncio.run(keep(options.traces, options.spans, Path(home)))}, indent=1))


if __name__ == "__main__":
    main()
