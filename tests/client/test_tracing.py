"""`el.trace` against a real server: nested, async and generator spans arrive, errors too, and nothing is lost when the program ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import everloop as el
from everloop.client import Client, connect
from everloop.core.errors import BadInput
from tests.conftest import running_server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield connect(url, start=False)


def spans_of(client: Client, trace_id: str) -> dict[str, dict[str, Any]]:
    assert el.flush() == 0
    return {span["name"]: span for span in client.traces.get(trace_id)["spans"]}


def test_a_block_and_functions_within_it_make_one_trace(client: Client) -> None:
    @el.trace(kind="RETRIEVER", client=client)
    def search(question: str, k: int = 2) -> list[str]:
        return [question] * k

    with el.trace("answer", inputs={"question": "why?"}, session="s-1", user="u-7", client=client) as span:
        found = search("why?", k=3)
        with el.trace("call", kind="LLM", client=client) as llm:
            llm.usage(model="gpt-4o-mini", provider="openai", tokens_in=1000, tokens_out=100)
        span.outputs = {"text": found[0], "set": {1}}
    spans = spans_of(client, span.trace_id)
    assert set(spans) == {"answer", search.__qualname__, "call"}
    inner = spans[search.__qualname__]
    assert inner["parent_id"] == span.span_id and inner["kind"] == "RETRIEVER"
    assert inner["inputs"] == {"question": "why?", "k": 3} and inner["outputs"] == ["why?"] * 3
    (listed,) = [t for t in client.traces.list(session="s-1")["items"] if t["trace_id"] == span.trace_id]
    assert (listed["user"], listed["tokens_in"]) == ("u-7", 1000) and listed["cost"] == pytest.approx(0.00021)
    assert spans["answer"]["outputs"] == {"text": "why?", "set": [1]}


def test_async_functions_and_generators_keep_to_their_own_trace(client: Client) -> None:
    ids: dict[int, tuple[str, str]] = {}

    @el.trace(client=client)
    async def words(n: int) -> AsyncIterator[int]:
        here = el.current_span()
        assert here is not None
        for i in range(n):
            await asyncio.sleep(0)
            yield i
        ids[n] = (here.trace_id, here.parent_id)

    @el.trace(client=client)
    async def answer(n: int) -> list[int]:
        outer = el.current_span()
        assert outer is not None
        got = []
        async for item in words(n):
            assert el.current_span() is outer  # what draws the items is not within the generator's span
            got.append(item)
        assert ids[n] == (outer.trace_id, outer.span_id)
        return got

    async def both() -> None:
        await asyncio.gather(answer(2), answer(3))

    asyncio.run(both())
    assert ids[2][0] != ids[3][0] and el.current_span() is None
    names = spans_of(client, ids[3][0])
    assert [s["outputs"] for s in names.values()] == [[0, 1, 2], [0, 1, 2]]


def test_an_error_is_kept_and_raised(client: Client) -> None:
    with pytest.raises(ZeroDivisionError), el.trace("breaks", client=client) as span:
        print(1 / 0)
    (broken,) = spans_of(client, span.trace_id).values()
    assert broken["status"] == "error" and broken["events"][0]["name"] == "exception"
    with pytest.raises(BadInput, match="traceparent"):
        el.trace("x", parent="nonsense")
    with pytest.raises(BadInput, match="tokens_in"), el.trace("x", client=client) as span:
        span.usage(tokens=3)


def test_another_process_takes_the_trace_up_and_its_exit_sends_all(client: Client, tmp_path: Path) -> None:
    with el.trace("here", client=client) as span:
        program = tmp_path / "there.py"
        program.write_text(
            f"import everloop as el\nclient = el.connect({client.url!r}, start=False)\n"
            f"with el.trace('there', parent={span.traceparent!r}, client=client):\n"
            "    for i in range(1500):\n        el.trace(f'step {i}', client=client)(lambda: i)()\n"
        )
        subprocess.run([sys.executable, str(program)], check=True, timeout=60)
    spans, until = spans_of(client, span.trace_id), time.monotonic() + 10
    while len(spans) < 1502 and time.monotonic() < until:  # what was acknowledged can be seen within a second
        time.sleep(0.2)
        spans = spans_of(client, span.trace_id)
    assert len(spans) == 1502 and spans["there"]["parent_id"] == span.span_id


def seen(client: Client, session: str, count: int) -> list[dict[str, Any]]:
    """A session's traces, once there are so many: what was acknowledged can be seen within a second."""
    until = time.monotonic() + 10
    while len(found := list(client.traces.iterate(session=session))) < count and time.monotonic() < until:
        time.sleep(0.2)
    return found


def test_what_a_killed_program_had_traced_is_sent_by_the_next_one(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLOOP_STATE", str(tmp_path))
    program = tmp_path / "killed.py"
    head = f"import everloop as el, os, signal, sys\nclient = el.connect({client.url!r}, key=sys.argv[1] or None, start=False)\n"
    program.write_text(
        head + "for i in range(700):\n    with el.trace(f'step {i}', session='s-' + sys.argv[2], client=client): pass\n"
        "os.kill(os.getpid(), int(sys.argv[3]))\n"
    )
    for name, how in (("killed", 9), ("told", 15)):
        assert subprocess.run([sys.executable, str(program), "", name, str(how)], timeout=60).returncode == -how
    other = client._http.post("/api/v1/keys", json={"name": "spans", "role": "caller"})["key"]
    assert subprocess.run([sys.executable, str(program), other, "elsewhere", "9"], timeout=60).returncode == -9
    done = client.runs.sync()
    assert done["spans"] <= 1400 and len(done["elsewhere"]) == 1  # another key's go with that key alone
    for name in ("killed", "told"):
        assert len(seen(client, f"s-{name}", 700)) == 700
    assert connect(client.url, key=other, start=False).runs.sync()["spans"] <= 700
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_forked_child_has_a_spool_of_its_own(client: Client, tmp_path: Path) -> None:
    program = tmp_path / "forks.py"
    program.write_text(
        f"import everloop as el, os\nclient = el.connect({client.url!r}, start=False)\n"
        "with el.trace('parent', session='s-fork', client=client): pass\n"
        "if os.fork() == 0:\n"
        "    with el.trace('child', session='s-fork', client=client): pass\n    assert el.flush() == 0\n    os._exit(0)\n"
        "os.wait()\n"
    )
    subprocess.run([sys.executable, str(program)], check=True, timeout=60)
    assert sorted(trace["name"] for trace in seen(client, "s-fork", 2)) == ["child", "parent"]


def test_a_disk_that_takes_nothing_never_stops_the_program(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVERLOOP_STATE", str(tmp_path / "file"))
    other = connect(client.url, start=False)
    for _ in range(3):
        with el.trace("x", client=other):
            pass
    assert capsys.readouterr().err.count("spans are not kept") == 1
