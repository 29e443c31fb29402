"""P9: CPU that one chat costs in the gateway, whole and streamed in 33 chunks, against a provider that answers at once.

`python -m benchmarks.gateway [--n 2000] [--streams 500] [--litellm PYTHON]` measures in turn, under the same load (16 connections) from the same
generator: a bare proxy (aiohttp, checks a key, passes bytes on), everloop (key, trace to the durable log, cost, policy with PII and injection on
what is asked; then also PII on what is answered, held back by a window), and LiteLLM where a Python that has it is given. CPU is the server
process's user and system time over the run, from /proc, divided by the requests; the answers are checked first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONNECTIONS = 16
WORDS = ["The ", "pump ", "moves ", "water ", "up. "] * 6 + ["It ", "is "]
TEXT = "".join(WORDS)
QUESTION = "How does the pump in the north hall move the water from the tank to the field beside it? " * 3
TICK = os.sysconf("SC_CLK_TCK")


async def provider(port: int) -> None:
    """An OpenAI-compatible server that answers at once: 32 chunks of text and one with the reason."""
    usage = {"prompt_tokens": 60, "completion_tokens": 32, "total_tokens": 92}
    message = {"role": "assistant", "content": TEXT}
    whole = json.dumps({"id": "x", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}).encode()
    events = [{"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"content": w}, "finish_reason": None}]} for w in WORDS]
    events.append({"id": "x", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events.append({"id": "x", "model": "m", "choices": [], "usage": usage})
    pieces = [b"data: " + json.dumps(e).encode() + b"\n\n" for e in events] + [b"data: [DONE]\n\n"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"content-length:" not in head:  # a probe
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    continue
                body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                if b'"stream":true' in body.replace(b" ", b""):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                    for piece in pieces:
                        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                        await asyncio.sleep(0)
                    writer.write(b"0\r\n\r\n")
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(whole), whole))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port) as server:
        await server.serve_forever()


def bare(upstream: str) -> Any:
    """The floor: an ASGI app that checks a key and passes bytes both ways."""
    import aiohttp

    held: dict[str, aiohttp.ClientSession] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/health":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        session = held.setdefault("s", aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        assert dict(scope["headers"]).get(b"authorization", b"").startswith(b"Bearer ")
        body = (await receive())["body"]
        async with session.post(f"{upstream}/chat/completions", data=body, headers={"content-type": "application/json"}) as reply:
            kind = reply.headers["content-type"].encode()
            await send({"type": "http.response.start", "status": reply.status, "headers": [(b"content-type", kind)]})
            async for piece in reply.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    return app


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that nothing listens on."""
    for first in range(20_000, 60_000, 7):
        held = [socket.socket() for _ in range(count)]
        try:
            for i, one in enumerate(held):
                one.bind(("127.0.0.1", first + i))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise SystemExit("no free ports")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def load(url: str, key: str, model: str, n: int, stream: bool) -> dict[str, Any]:
    """n chats over CONNECTIONS connections: requests a second, median and 99th percentile in ms, chunks a stream."""
    import aiohttp

    body = json.dumps({"model": model, "messages": [{"role": "user", "content": QUESTION}], "stream": stream}).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    times: list[float] = []
    chunks: list[int] = []
    left = iter(range(n))

    async def one(session: aiohttp.ClientSession) -> None:
        for _ in left:
            started = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", data=body, headers=headers) as reply:
                data = await reply.read()
                assert reply.status == 200, data
            times.append(time.perf_counter() - started)
            if stream:
                events = [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]
                said = [c["delta"].get("content") for e in events for c in e["choices"]]
                assert "".join(s or "" for s in said) == TEXT, said
                chunks.append(len(events))
            else:
                assert json.loads(data)["choices"][0]["message"]["content"] == TEXT

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(one(session) for _ in range(CONNECTIONS)))
        took = time.perf_counter() - started
    times.sort()
    found: dict[str, Any] = {"rps": round(n / took), "p50_ms": round(times[n // 2] * 1e3, 2), "p99_ms": round(times[int(n * 0.99)] * 1e3, 2)}
    return {**found, "chunks": statistics.mean(chunks)} if stream else found


def measure(label: str, pid: int, url: str, key: str, model: str, n: int, streams: int, rounds: int = 3) -> None:
    """Print one line whole and one streamed: median, lowest and highest CPU of the rounds."""
    for stream, count in ((False, n), (True, streams)):
        asyncio.run(load(url, key, model, max(50, count // 10), stream))
        costs, seen = [], {}
        for _ in range(rounds):
            before = cpu(pid)
            seen = asyncio.run(load(url, key, model, count, stream))
            costs.append((cpu(pid) - before) * 1e3 / count)
        costs.sort()
        row = {"what": label, "stream": stream, "cpu_ms": round(costs[len(costs) // 2], 3), "spread": [round(costs[0], 3), round(costs[-1], 3)]}
        print(json.dumps({**row, "n": count, "rounds": rounds, **seen}), flush=True)


def up(command: list[str], url: str, ready: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers."""
    import urllib.request

    server = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(900):
        try:
            urllib.request.urlopen(url + ready, timeout=1)
            return server
        except OSError:
            time.sleep(0.2)
    server.kill()
    raise SystemExit(f"{command[:4]} did not answer at {url}{ready}")


def everloop(url: str, upstream: str) -> str:
    """Endpoints plain (no policy), asked (PII and injection on what is asked) and window (PII on the answer too); answers a caller's key."""
    import everloop as el

    client = el.connect(url, start=False)
    asked = [{"check": "pii", "stage": "input", "action": "redact"}, {"check": "injection", "stage": "input", "action": "block"}]
    client.policies.put("asked", asked)
    client.policies.put("window", [*asked, {"check": "pii", "stage": "output", "action": "redact"}], stream="window")
    client.prompts.put("plain", [{"role": "system", "content": "Be brief."}])
    engine = {"name": "openai", "model": "m", "base_url": upstream, "prices": {"input": 1.0, "output": 2.0}}
    for name, policy in (("plain", None), ("asked", "policy:asked"), ("window", "policy:window")):
        made = client.assets.release(name, "chat", {"prompt": "prompt:plain"}, {"engine": engine}, policy=policy)
        client.assets.move_alias(made["ref"], "champion")
        client.endpoints.put(name, "chat", release=name)
    return str(client._http.post("/api/v1/keys", json={"name": "load", "role": "caller"})["key"])


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--litellm", default="", help="a Python that has litellm[proxy]")
    parser.add_argument("--only", default="", help="bare, everloop or litellm")
    parser.add_argument("--port", type=int, default=0, help="first of four ports; any free ones if 0")
    parser.add_argument("--serve", choices=("provider", "bare"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.port = args.port or free_ports(4)
    upstream = f"http://127.0.0.1:{args.port}/v1"
    if args.serve == "provider":
        asyncio.run(provider(args.port))
        return
    if args.serve == "bare":
        import uvicorn

        uvicorn.run(bare(upstream), port=args.port + 1, log_level="error", access_log=False, loop="uvloop")
        return
    me = [sys.executable, "-m", "benchmarks.gateway", "--port", str(args.port), "--serve"]
    running = [subprocess.Popen([*me, "provider"])]
    try:
        for name, run in (("bare", run_bare), ("everloop", run_everloop), ("litellm", run_litellm)):
            if args.only in ("", name) and (name != "litellm" or args.litellm):
                run(args, me, upstream, running.append)
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(20)


def run_bare(args: Any, me: list[str], upstream: str, started: Callable[[Any], None]) -> None:
    """The floor."""
    url = f"http://127.0.0.1:{args.port + 1}"
    server = up([*me, "bare"], url, "/health")
    started(server)
    measure("bare proxy", server.pid, url, "k", "m", args.n, args.streams)


def run_everloop(args: Any, me: list[str], upstream: str, started: Callable[[Any], None]) -> None:
    """everloop without a policy, with one on what is asked, and with one on the answer too."""
    url, home = f"http://127.0.0.1:{args.port + 2}", tempfile.mkdtemp(prefix="everloop-gateway-")
    server = up([sys.executable, "-m", "everloop", "up", "--port", str(args.port + 2), "--home", home], url, "/health", {"EVERLOOP_WORKERS": "0"})
    started(server)
    key = everloop(url, upstream)
    for name, label in (("plain", "no policy"), ("asked", "PII + injection asked"), ("window", "and PII answered, window")):
        measure(f"everloop, {label}", server.pid, url, key, name, args.n, args.streams)


def run_litellm(args: Any, me: list[str], upstream: str, started: Callable[[Any], None]) -> None:
    """LiteLLM's proxy with a master key, no database."""
    url, folder = f"http://127.0.0.1:{args.port + 3}", Path(tempfile.mkdtemp(prefix="litellm-"))
    params = {"model": "openai/m", "api_base": upstream, "api_key": "x"}
    config = {"model_list": [{"model_name": "m", "litellm_params": params}], "general_settings": {"master_key": "sk-1"}}
    (folder / "config.yaml").write_text(json.dumps(config))
    script = str(Path(args.litellm).with_name("litellm"))
    command = [script, "--config", str(folder / "config.yaml"), "--port", str(args.port + 3)]
    server = up(command, url, "/health/liveliness", {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""})
    started(server)
    measure("LiteLLM, master key", server.pid, url, "sk-1", "m", max(100, args.n // 10), max(50, args.streams // 10))


if __name__ == "__main__":
    main()
