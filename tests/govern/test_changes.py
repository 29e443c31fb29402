"""What a decision's page tells of a candidate beside the champion: who started it, which data, code and settings differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.assets import catalog, lineage, runs
from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.govern.changes import changes
from everloop.web.app import create_app


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as http:
        yield http


def trained(tx: Any, data: list[str], code: str, depth: int, trigger: str) -> str:
    """A model that a pipeline's step made, and a release of it."""
    whole = runs.create(tx, "", "pipeline", pipeline="credit", tags={"trigger": trigger})
    step = runs.create(tx, "train", "step", parent=whole["id"], params={"depth": str(depth), "seed": "1"}, code={"asset": code})
    model = catalog.register(tx, "model", "credit", {"format": "plain", "depth": depth}, run=step["id"], reads=data)
    release = catalog.register(
        tx, "release", "credit", {"name": "credit", "kind": "predict", "pins": {"model": model["ref"]}, "params": {}}, run=step["id"]
    )
    return str(release["ref"])


def test_data_code_settings_and_who_started_it(client: TestClient) -> None:
    def work(tx: Any) -> dict[str, Any]:
        for i in range(1, 5):
            version = catalog.register(tx, "dataset", "loans", {"format": "files", "n": i, "files": []})
            if i > 1:
                lineage.link(tx, f"dataset:loans@{i - 1}", version["ref"], "derived")
        for n in (1, 2):
            catalog.register(tx, "code", "credit", {"files": [], "entry": "steps", "n": n})
        old = trained(tx, ["dataset:loans@1"], "code:credit@1", 3, "manual")
        new = trained(tx, ["dataset:loans@4"], "code:credit@2", 4, "monitor:credit")
        return changes(tx, new, old)

    ws = client.app.state.workspace  # type: ignore[attr-defined]
    assert client.portal is not None
    found = client.portal.call(ws.records.write, local_principal(), work)
    assert (found["started"]["trigger"], found["started"]["pipeline"]) == ("monitor:credit", "credit")
    assert found["pins"] == [{"pin": "model", "from": "model:credit@1", "to": "model:credit@2"}]
    (part,) = found["parts"]
    assert part["data"] == [{"name": "dataset:loans", "from": "dataset:loans@1", "to": "dataset:loans@4"}]
    assert part["code"] == {"from": "code:credit@1", "to": "code:credit@2"}
    assert [(one["key"], one["from"], one["to"]) for one in part["params"]] == [("depth", "3", "4")]
    alone = client.portal.call(ws.records.read, local_principal(), lambda tx: changes(tx, "release:credit@1", None))
    assert alone["parts"] == [] and alone["started"]["trigger"] == "manual"
