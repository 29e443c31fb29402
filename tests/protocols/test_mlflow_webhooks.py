"""Webhooks made by MLflow's own client: what is sent, how it is signed, tried again, and kept over a restart; where it may not go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import running_server

EVENTS = ["registered_model.created", "model_version.created", "model_version_tag.set", "model_version_alias.created", "prompt.created"]


class Listener:
    """A server on loopback that keeps what it is sent; `failures` answers are 503 first."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], str]] = []
        self.failures = 0
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                listener.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                listener.failures, failed = max(0, listener.failures - 1), listener.failures > 0
                self.send_response(503 if failed else 200)
                self.end_headers()
                self.wfile.write(b"thanks")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, count: int) -> list[dict[str, Any]]:
        """The bodies, once there are as many."""
        for _ in range(200):
            if len(self.got) >= count:
                return [json.loads(body) for _, body in self.got]
            time.sleep(0.1)
        raise AssertionError(f"{len(self.got)} of {count} came: {self.got}")


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.shutdown()


@pytest.mark.client
def test_what_changes_is_told_signed_and_again_after_a_restart(listener: Listener, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    with running_server(tmp_path, EVERLOOP_WEBHOOKS_INNER="1") as url:
        client = MlflowClient(url)
        hook = client.create_webhook("ci", listener.url, EVENTS, secret="sesame")
        assert [str(event) for event in client.get_webhook(hook.webhook_id).events] == EVENTS
        assert client.test_webhook(hook.webhook_id).response_body == "thanks"
        assert listener.wait(1)[0]["data"]["name"] == "example_model"
        client.create_registered_model("m", tags={"a": "b"}, description="d")
        version = client.create_model_version("m", "s3://bucket/m", tags={"k": "v"})
        client.set_model_version_tag("m", version.version, "t", "1")
        client.set_registered_model_alias("m", "champion", version.version)
        told = [(one["entity"], one["action"], one["data"]) for one in listener.wait(5)[1:]]
        assert sorted(told, key=str) == sorted(
            [
                ("registered_model", "created", {"name": "m", "tags": {"a": "b"}, "description": "d"}),
                (
                    "model_version",
                    "created",
                    {"name": "m", "version": "1", "source": "s3://bucket/m", "run_id": None, "tags": {"k": "v"}, "description": None},
                ),
                ("model_version_tag", "set", {"name": "m", "version": "1", "key": "t", "value": "1"}),
                ("model_version_alias", "created", {"name": "m", "alias": "champion", "version": "1"}),
            ],
            key=str,
        )
        headers, body = listener.got[-1]
        signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.{body}".encode()
        assert headers["x-mlflow-signature"] == "v1," + base64.b64encode(hmac.new(b"sesame", signed, hashlib.sha256).digest()).decode()
        listener.failures = 1_000
        client.create_registered_model("later")
        listener.wait(6)
    tried = {headers["x-mlflow-delivery-id"] for headers, body in listener.got if '"later"' in body}
    listener.failures = 0
    known = len(listener.got)
    with running_server(tmp_path, EVERLOOP_WEBHOOKS_INNER="1") as url:
        listener.wait(known + 1)
        headers, body = listener.got[-1]
        assert json.loads(body)["data"]["name"] == "later"
        assert tried == {headers["x-mlflow-delivery-id"]}  # the same delivery, so that a receiver can tell
        client = MlflowClient(url)
        client.update_webhook(hook.webhook_id, status="DISABLED")
        client.create_registered_model("unheard")
        client.delete_webhook(hook.webhook_id)
        assert list(client.list_webhooks()) == []
        time.sleep(1)
        assert not any("unheard" in body for _, body in listener.got)


@pytest.mark.client
def test_a_webhook_does_not_reach_inner_addresses(listener: Listener, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with running_server(tmp_path) as url:
        client = MlflowClient(url)
        for bad, words in (
            (listener.url, "Invalid webhook URL scheme: 'http'"),
            ("https://127.0.0.1/x", "non-public IP address"),
            ("https://localhost/x", "non-public IP address"),
            ("https://a..b/x", "has no address"),
            ("https://[::ffff:10.0.0.1]/x", "non-public IP address"),
            ("https://169.254.169.254/latest/meta-data", "non-public IP address"),
            ("ftp://example.com/x", "Invalid webhook URL scheme"),
        ):
            with pytest.raises(MlflowException, match=words):
                client.create_webhook("h", bad, ["prompt.created"])
        with pytest.raises(MlflowException, match="Webhook name"):
            client.create_webhook("-h-", "https://1.1.1.1/x", ["prompt.created"])
        assert client.create_webhook("h", "https://1.1.1.1/x", ["prompt.created"]).status == "ACTIVE"
