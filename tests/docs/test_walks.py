"""ARCHITECTURE.md's walks of a prediction and a chat are what happens: the functions named are entered, and in that order."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from starlette.testclient import TestClient

from everloop.build import index, release
from everloop.client.base import Client
from everloop.client.http import Http
from everloop.core.settings import Settings
from everloop.engines.convert import to_onnx
from everloop.engines.signature import infer_signature
from everloop.web.app import create_app
from tests.docs.reading import ROOT

PACKAGE = f"{ROOT / 'everloop'}/"


class Listener:
    """Functions of ours in the order in which they are first entered, in threads begun after this was made, while `on`."""

    def __init__(self) -> None:
        self.on = False
        self.entered: dict[str, None] = {}
        threading.setprofile(self._enter)

    def _enter(self, frame, event: str, arg: object) -> None:
        if self.on and event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            name = f"{frame.f_code.co_filename[len(PACKAGE) :]}:{frame.f_code.co_qualname}".replace(".<locals>", "")
            self.entered.setdefault(name)


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[tuple[TestClient, Client, Listener]]:
    """An app in this process, a client of it, and what listens to it."""
    listener = Listener()
    try:
        with TestClient(create_app(Settings(home=tmp_path / "home", workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as http:

            def transport(method, url, body, headers, timeout):
                answer = http.request(method, url, content=body, headers=headers)
                return answer.status_code, answer.headers, answer.content

            yield http, Client(Http("http://127.0.0.1:7600", transport=transport)), listener
    finally:
        threading.setprofile(None)


def walk(title: str) -> list[str]:
    """The functions that a walk of ARCHITECTURE.md names, in order, each once."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    part = text.split(f"## Walk: {title}\n")[1].split("\n## ")[0]
    return [*dict.fromkeys(re.findall(r"`([\w/]+\.py:[\w.]+)`", part))]


def heard(http: TestClient, listener: Listener, path: str, body: dict) -> list[str]:
    """What a second, warm request enters."""
    assert http.post(path, json=body).status_code == 200
    listener.on = True
    answer = http.post(path, json=body)
    listener.on = False
    assert answer.status_code == 200, answer.text
    return [*listener.entered]


def check(named: list[str], entered: list[str], ends: tuple[str, ...] = ()) -> None:
    """Every function named was entered, and in the order in which they are named; `ends` are those that were entered before as well."""
    missing = [name for name in named if name not in entered]
    assert not missing, f"never entered: {missing}"
    order = [entered.index(name) for name in named if name not in ends]
    assert order == sorted(order), [named[i] for i in range(1, len(order)) if order[i] < order[i - 1]]


def test_a_prediction(followed: tuple[TestClient, Client, Listener]) -> None:
    http, client, listener = followed
    x = pd.DataFrame({"a": np.random.default_rng(0).normal(size=200)})
    signature = infer_signature(x, ["no", "yes"])
    onnx, _ = to_onnx(LogisticRegression().fit(x, np.where(x.a > 0, "yes", "no")), signature, x)
    manifest = {"format": "sklearn", "engine": "onnx", "files": client.assets.put_files({"model.onnx": onnx}), "task": "binary"}
    manifest |= {"classes": ["no", "yes"], "positive": "yes", "signature": signature}
    model = client.assets.register("model", "credit", manifest)["ref"]
    client.endpoints.put("credit", "predict")
    client.assets.move_alias(client.assets.release("credit", "predict", {"model": model})["ref"], "champion")
    body = {"inputs": [{"name": "a", "datatype": "FP64", "shape": [1], "data": [0.5]}]}
    check(walk("a prediction"), heard(http, listener, "/v2/models/credit/infer", body))


def test_a_chat(followed: tuple[TestClient, Client, Listener], tmp_path: Path) -> None:
    http, client, listener = followed
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# Holidays\n\nEveryone has 28 days of paid holiday a year.\n")
    (folder / "b.md").write_text("# Taxis\n\nTaxis are paid only after ten in the evening.\n")
    client.data.add_documents("handbook", folder)
    client.prompts.put("handbook", "Answer from {{ context }}")
    rule = {"check": "injection", "action": "block"}
    client.policies.put("handbook", [{**rule, "stage": "input"}, {**rule, "stage": "retrieved"}, {**rule, "stage": "output"}])
    with client.runs.start("t") as run:
        step = SimpleNamespace(name="t", params={"name": "handbook", "documents": "dataset:handbook"}, inputs={}, client=client, run=run, log=print)
        step.inputs["index"] = index.build(step)
        step.inputs["chat"] = release.chat(step)
        assert release.gate(step)["verdict"] == "ungated"
    client.endpoints.put("handbook", "chat")
    body = {"model": "handbook", "messages": [{"role": "user", "content": "How many days of paid holiday?"}]}
    check(walk("a chat"), heard(http, listener, "/v1/chat/completions", body), ends=("serve/record.py:record.serve",))
