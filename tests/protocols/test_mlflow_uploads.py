"""Uploads in parts over MLflow's artifact proxy: what they become, what is refused, what is left of those that nobody completes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.clock import FakeClock
from everloop.core.limits import UPLOAD_PARTS, UPLOADS_SECONDS
from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.web.app import create_app
from everloop.workspace.workspace import Workspace
from tests.conftest import running_server

MPU = "/api/2.0/mlflow-artifacts/mpu"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
NUMBERS = itertools.count()
PARTS = [bytes([i]) * (1_500_000 + i) for i in range(3)]


class Uploader:
    """Uploads one file in parts with a key that is an editor's."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        made = client.post("/api/v1/keys", json={"name": f"up-{next(NUMBERS)}", "role": "editor"}).json()
        self.headers = {"authorization": f"Bearer {made['key']}"}
        answer = client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, headers=self.headers)
        self.run = answer.json()["run"]["info"]["run_id"]
        self.folder = f"0/{self.run}/artifacts/m"

    def ask(self, verb: str, folder: str | None = None, **body: Any) -> Any:
        answer = self.client.post(f"{MPU}/{verb}/{folder or self.folder}", json={"path": "/home/me/big.bin", **body}, headers=self.headers)
        return answer.status_code, answer.json()

    def begin(self, parts: int = 3) -> tuple[str, list[str]]:
        status, made = self.ask("create", num_parts=parts)
        assert status == 200, made
        assert [one["part_number"] for one in made["credentials"]] == list(range(1, parts + 1))
        return made["upload_id"], [one["url"] for one in made["credentials"]]

    def part(self, url: str, data: bytes) -> str:
        """Put a part as a client puts it into a bucket: without a key."""
        answer = self.client.put(url, content=data)
        assert answer.status_code == 200, answer.text
        return str(answer.headers["etag"])

    def told(self, tags: list[str]) -> list[dict[str, Any]]:
        return [{"part_number": n, "etag": tag, "url": ""} for n, tag in enumerate(tags, 1)]

    def read(self) -> Any:
        return self.client.get(f"{FILES}/{self.folder}/big.bin", headers=self.headers)


@pytest.fixture(scope="module")
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, clock: FakeClock) -> Iterator[TestClient]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), workers=0, fsync=False)
    with TestClient(create_app(settings, Workspace(settings, clock))) as client:
        yield client


def left(client: TestClient) -> list[Any]:
    """Rows of uploads and their parts."""
    from everloop.assets.uploads import KIND, PART
    from everloop.store.schema import documents

    ws = client.app.state.workspace  # type: ignore[attr-defined]
    rows: list[Any] = ws.records.read_sync(local_principal(), lambda tx: tx.rows(documents.select().where(documents.c.kind.in_([KIND, PART]))))
    return rows


def test_parts_in_any_order_and_twice_become_one_file(client: TestClient) -> None:
    up = Uploader(client)
    id, urls = up.begin()
    tags = {i: up.part(urls[i], PARTS[i]) for i in (2, 0, 1)}
    assert up.part(urls[0], PARTS[0]) == tags[0]
    assert up.read().status_code == 404
    told = up.told([tags[0], tags[1], tags[2]])
    for _ in range(2):  # a client whose first answer was lost asks again
        assert up.ask("complete", upload_id=id, parts=told) == (200, {})
    assert up.read().content == b"".join(PARTS)
    files = client.get(f"/api/v1/runs/{up.run}/artifacts", headers=up.headers).json()["items"]
    assert [(one["path"], one["size"], one["by"][:7]) for one in files] == [("m/big.bin", sum(map(len, PARTS)), "key:up-")]
    assert not [row for row in left(client) if row["kind"] == "upload-part"]
    assert "complete" in client.put(urls[0], content=b"late").json()["message"]


def test_nothing_becomes_of_an_upload_that_is_not_whole_or_not_its_own(client: TestClient) -> None:
    up = Uploader(client)
    id, urls = up.begin()
    tags = [up.part(urls[i], PARTS[i]) for i in (0, 1)]
    status, why = up.ask("complete", upload_id=id, parts=up.told(tags))
    assert status == 400 and "1 are missing, the first is 3" in why["message"]
    tags.append(up.part(urls[2], PARTS[2]))
    for wrong, words in (
        (up.told(tags[:2]), "must name 1 to 3"),
        (up.told([*tags[:2], hashlib.sha256(b"").hexdigest()]), "Part 3 here has the ETag"),
        ([{"part_number": "x"}], "parts"),
    ):
        status, why = up.ask("complete", upload_id=id, parts=wrong)
        assert status == 400 and words in why["message"], why
    assert "begun for another file" in up.ask("complete", folder=f"{up.folder}/deeper", upload_id=id, parts=up.told(tags))[1]["message"]
    assert up.ask("complete", upload_id="0" * 32, parts=up.told(tags))[0] == 404
    assert up.read().status_code == 404


def test_an_address_is_good_for_its_part_alone_and_for_a_day(client: TestClient, clock: FakeClock) -> None:
    up = Uploader(client)
    id, urls = up.begin()
    bare = TestClient(client.app, base_url="http://example.test")
    for wrong in (
        urls[0].replace("part=1", "part=2"),
        urls[0].replace("project=default", "project=other"),
        urls[0].partition("?")[0],
        urls[0][:-1] + "x",
    ):
        assert bare.put(wrong, content=b"x").status_code == 403, wrong
    assert bare.put(urls[0], content=b"x", headers={"content-md5": "AAAAKrxLKna5cZ2REBfFkg=="}).status_code == 400
    up.part(urls[0], PARTS[0])
    assert [row["name"] for row in left(client) if row["name"].startswith(id)] == [id, f"{id}/00001"]
    clock.time += UPLOADS_SECONDS + 60
    assert bare.put(urls[1], content=b"x").status_code == 403
    assert up.ask("complete", upload_id=id, parts=[])[0] == 404
    assert client.post("/api/v1/objects/gc", json={}).status_code == 200
    assert left(client) == []


def test_an_upload_given_up_is_gone_and_its_parts_are_no_files(client: TestClient) -> None:
    up = Uploader(client)
    id, urls = up.begin()
    tags = [up.part(url, data) for url, data in zip(urls, PARTS, strict=True)]
    for _ in range(2):
        assert up.ask("abort", upload_id=id) == (200, {})
    assert not [row for row in left(client) if row["name"].startswith(id)]
    assert client.put(urls[0], content=b"x").status_code == 404
    assert up.ask("complete", upload_id=id, parts=up.told(tags))[0] == 404


def test_what_cannot_be_begun(client: TestClient) -> None:
    up = Uploader(client)
    for body, words in (({"num_parts": UPLOAD_PARTS + 1}, "at most"), ({"num_parts": "two"}, "num_parts"), ({"num_parts": 1, "path": ""}, "path")):
        status, why = up.ask("create", **body)
        assert status == 400 and words in why["message"], why
    assert up.ask("create", folder="everloop/model/m/1", num_parts=1)[0] == 400
    assert up.ask("create", folder=f"0/{up.run}/artifacts/%2e%2e/x", num_parts=1)[0] == 400
    assert up.ask("create", folder=f"0/{'0' * 32}/artifacts", num_parts=1)[0] == 404
    viewer = {"authorization": f"Bearer {client.post('/api/v1/keys', json={'name': 'v', 'role': 'viewer'}).json()['key']}"}
    assert client.post(f"{MPU}/create/{up.folder}", json={"path": "f", "num_parts": 1}, headers=viewer).status_code == 403


def test_an_upload_goes_on_over_a_restart(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, workers=0, fsync=False)
    with TestClient(create_app(settings)) as client:
        up = Uploader(client)
        id, urls = up.begin()
        tags = [up.part(urls[0], PARTS[0])]
    with TestClient(create_app(settings)) as client:
        up.client = client
        tags += [up.part(urls[i], PARTS[i]) for i in (1, 2)]
        assert up.ask("complete", upload_id=id, parts=up.told(tags)) == (200, {})
        assert up.read().content == b"".join(PARTS)


def test_a_file_is_read_by_ranges_with_a_key_for_reading_alone(client: TestClient) -> None:
    up = Uploader(client)
    assert client.put(f"{FILES}/{up.folder}/big.bin", content=PARTS[1], headers=up.headers).status_code == 200
    told = client.get(f"/api/2.0/mlflow-artifacts/presigned/{up.folder}/big.bin", headers=up.headers).json()
    assert told["file_size"] == len(PARTS[1])
    answer = client.get(told["url"], headers={**told["headers"], "range": "bytes=10-19"})
    assert (answer.status_code, answer.content) == (206, PARTS[1][10:20])
    assert client.put(f"{FILES}/{up.folder}/x.bin", content=b"x", headers=told["headers"]).status_code == 403
    for path, status in ((f"{up.folder}/none", 404), (f"{up.folder}/%2e%2e/x", 400)):
        assert client.get(f"/api/2.0/mlflow-artifacts/presigned/{path}", headers=up.headers).status_code == status


def test_files_are_text_where_people_read_them(client: TestClient) -> None:
    up = Uploader(client)
    for name, kind in (("MLmodel", "text/plain"), ("conda.yaml", "text/plain"), ("a.png", "image/png"), ("a.pkl", "application/octet-stream")):
        assert client.put(f"{FILES}/{up.folder}/{name}", content=b"x", headers=up.headers).status_code == 200
        answer = client.get(f"{FILES}/{up.folder}/{name}", headers=up.headers)
        assert answer.headers["content-type"].partition(";")[0] == kind and answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.client
@pytest.mark.check
def test_mlflows_own_client_sends_and_reads_a_large_file_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    import mlflow
    from mlflow.store.artifact import http_artifact_repo

    for name, value in (("MINIMUM_FILE_SIZE", "1000000"), ("CHUNK_SIZE", str(5 * 1024 * 1024))):
        monkeypatch.setenv(f"MLFLOW_MULTIPART_UPLOAD_{name}", value)
    sent: list[int] = []
    send = http_artifact_repo.HttpArtifactRepository._upload_part

    def counted(credential: Any, *args: Any, **more: Any) -> Any:
        sent.append(credential.part_number)
        return send(credential, *args, **more)

    monkeypatch.setattr(http_artifact_repo.HttpArtifactRepository, "_upload_part", staticmethod(counted))
    file = tmp_path / "weights.bin"
    file.write_bytes(random.Random(0).randbytes(12_000_000))
    with running_server(tmp_path / "home") as url:
        mlflow.set_tracking_uri(url)
        with mlflow.start_run(experiment_id="0") as run:  # another test of this process may have chosen an experiment of its server
            mlflow.log_artifact(str(file), "m")
        assert sorted(sent) == [1, 2, 3]
        monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "true")
        monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE", "5000000")
        found = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/m/weights.bin", dst_path=str(tmp_path / "back"))
        assert Path(found).read_bytes() == file.read_bytes()
