"""Where engines may connect to: inner addresses only where allowed, metadata never, whatever the name resolves to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from everloop.core.errors import BadInput, UpstreamFailed
from everloop.core.settings import Settings
from everloop.engines import http, reach

PUBLIC = Settings(home=Path("unused"), host="0.0.0.0", engine_hosts="vllm.internal, 10.1.0.0/16, 192.168.1.5")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    reach.configure(Settings(home=Path("unused")))


@pytest.mark.parametrize(
    ("address", "here", "public", "named"),  # allowed on a laptop, on a public server, and there for a host that is named
    [
        ("8.8.8.8", True, True, True),
        ("127.0.0.1", True, False, True),
        ("::1", True, False, True),
        ("::ffff:127.0.0.1", True, False, True),
        ("10.1.2.3", False, True, True),
        ("10.2.2.3", False, False, True),
        ("172.16.0.1", False, False, True),
        ("fd12::1", False, False, True),
        ("100.64.0.1", False, False, True),
        ("169.254.169.254", False, False, False),
        ("::ffff:169.254.169.254", False, False, False),
        ("64:ff9b::a9fe:a9fe", False, False, False),
        ("2002:a9fe:a9fe::1", False, False, False),
        ("fe80::1%eth0", False, False, False),
        ("fd00:ec2::254", False, False, False),
        ("0.0.0.0", False, False, False),
        ("64:ff9b::a01:203", False, True, True),
    ],
)
def test_addresses(address: str, here: bool, public: bool, named: bool) -> None:
    there = reach.Reach.of(PUBLIC)
    assert (reach.Reach().allows(address, False), there.allows(address, False), there.allows(address, True)) == (here, public, named)


def test_hosts_are_named_by_settings_and_by_the_servers_own_environment() -> None:
    there = reach.Reach.of(PUBLIC)
    assert there.names("vllm.internal") and there.names("VLLM.internal") and there.names("192.168.1.5") and not there.names("other.internal")
    assert there.names("llm.corp", {"OPENAI_BASE_URL": "http://llm.corp:8000/v1"}) and not there.names("llm.corp", {})
    with pytest.raises(BadInput, match="EVERLOOP_ENGINE_HOSTS has '10.0.0.0/99'"):
        reach.Reach.of(Settings(home=Path("unused"), engine_hosts="10.0.0.0/99"))


async def _asked(host: str) -> tuple[str, int]:
    """(what came of a request to a server on this machine by that name, how many requests the server got)."""
    got: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        got.append(request.path)
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_post("/v1", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        response = await http.post(f"http://{host}:{port}/v1", {}, b"{}")
        return str(await http.read_json(response)), len(got)
    except UpstreamFailed as error:
        return str(error), len(got)
    finally:
        await http.close()
        await runner.cleanup()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "rebound.example"])
def test_a_public_server_is_not_led_into_its_own_network(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that an attacker's DNS answers with an inner address is refused at the connection, and not tried again."""

    async def resolve(self: Any, name: str, port: int = 0, family: Any = socket.AF_INET) -> list[dict[str, Any]]:
        return [{"hostname": name, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr(aiohttp.resolver.DefaultResolver, "resolve", resolve)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    reach.configure(Settings(home=Path("unused"), host="0.0.0.0"))
    said, count = asyncio.run(_asked(host))
    assert count == 0 and "this server may not call that address (127.0.0.1)" in said and f"EVERLOOP_ENGINE_HOSTS={host}" in said
    reach.configure(Settings(home=Path("unused"), host="0.0.0.0", engine_hosts=host))
    assert asyncio.run(_asked(host)) == ("{'ok': True}", 1)
    reach.configure(Settings(home=Path("unused")))
    assert asyncio.run(_asked(host))[1] == 1
