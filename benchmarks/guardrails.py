"""P16: CPU of the guardrails PII, secrets and injection on texts of 1 KB, and how much text a `window` holds back before the first leaves.

`python -m benchmarks.guardrails [--texts FOLDER]`: each text is judged by all three in turn; texts are 1,024 characters of the project's own pages
and code (or of the files of a folder), and one made of dates, prices and phone numbers, the dearest kind. CPU is the thread's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

from everloop.checks import checks
from everloop.core.types import Answer, Call, Chat, Chunk, TraceContext, Utterance

CHECKS = ("pii", "secrets", "injection")
NUMBERS = "On 2024-05-06 at 10:30 order 4711 of 1,250.00 EUR left; call 030 1234567 or +49 (30) 765-4321, ref 12-3456-78. "


def texts(folder: Path) -> list[str]:
    """1 KB of each page and file below a folder that is as long."""
    found = [p.read_text(encoding="utf-8", errors="ignore") for p in sorted(folder.rglob("*")) if p.suffix in (".md", ".py", ".txt")]
    return [text[:1024] for text in found if len(text) >= 1024][:500]


def cost(judged: list[str], rounds: int = 5) -> dict[str, Any]:
    """Milliseconds of CPU a text for all three checks: median and 99th percentile over texts; each check's mean."""
    made = {name: checks.get(name)() for name in CHECKS}
    for text in judged:
        for check in made.values():
            check(Utterance(text))
    each: dict[str, list[float]] = {name: [] for name in CHECKS}
    for text in judged:
        for name, check in made.items():
            started = time.thread_time()
            for _ in range(rounds):
                check(Utterance(text))
            each[name].append((time.thread_time() - started) / rounds * 1e3)
    total = sorted(map(sum, zip(*each.values(), strict=True)))
    row = {"n": len(judged), "median_ms": round(statistics.median(total), 3), "p99_ms": round(total[int(len(total) * 0.99)], 3)}
    return {**row, **{name: round(statistics.mean(values), 3) for name, values in each.items()}}


def held_back(piece: int = 4) -> dict[str, int]:
    """Characters that an LLM has said when the first text leaves a window, and when a buffer lets it go, of an answer of 2,000."""
    from everloop.core.principal import local_principal
    from everloop.serve.guard import guard

    answer = ("The pump in the north hall moves water from the tank to the field. " * 40)[:2000]

    async def first(mode: str) -> int:
        said = 0

        async def inner(call: Call) -> Answer:
            async def chunks() -> Any:
                nonlocal said
                for at in range(0, len(answer), piece):
                    said += piece
                    yield Chunk(answer[at : at + piece])
                yield Chunk("", "stop")

            return Answer(chunks())

        rules = [{"check": name, "stage": "output", "action": "block"} for name in CHECKS]
        serve = guard(inner, {"rules": rules, "stream": mode}, lambda name, params: checks.get(name)(**params))
        call = Call("b", Chat([{"role": "user", "content": "x"}], stream=True), local_principal(), TraceContext("a" * 32, "b" * 16))
        outputs: Any = (await serve(call)).outputs
        await anext(outputs)
        await outputs.aclose()
        return said

    return {"window": asyncio.run(first("window")), "after": asyncio.run(first("after"))}


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--texts", type=Path, default=Path(__file__).parents[1])
    args = parser.parse_args()
    print(json.dumps({"what": "plain texts", **cost(texts(args.texts))}))
    print(json.dumps({"what": "dates, prices, phones", **cost([(NUMBERS * 12)[:1024]], 200)}))
    print(json.dumps({"what": "characters said before the first text leaves", **held_back()}))


if __name__ == "__main__":
    main()
