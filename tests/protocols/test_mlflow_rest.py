"""MLflow's REST API asked with plain requests: what its own server answers to good and bad ones, status, code and words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app

API = "/api/2.0/mlflow/"


class Mlflow:
    """Requests to MLflow's routes of one app."""

    def __init__(self, http: TestClient) -> None:
        self.http = http

    def ask(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """(status, JSON answer)."""
        where = path if path.startswith("/") else API + path
        given: dict[str, Any] = {"content": body} if isinstance(body, str | bytes) else {"json": body} if body is not None else {}
        answer = self.http.request(method, where, params=params or None, **given)
        return answer.status_code, answer.json()

    def ok(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """The answer of a request that must succeed."""
        status, answer = self.ask(method, path, body, **params)
        assert status == 200, answer
        return answer

    def run(self, experiment: str = "0") -> str:
        """A new run's id."""
        return str(self.ok("POST", "runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"])

    def shown(self, run: str) -> Any:
        """A run as runs/get answers it."""
        return self.ok("GET", "runs/get", run_id=run)["run"]


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    home: Path = tmp_path_factory.mktemp("home")
    with TestClient(create_app(Settings(home=home, workers=0, fsync=False))) as http:
        yield Mlflow(http)


@pytest.fixture(scope="module")
def run(mlflow: Mlflow) -> str:
    return mlflow.run()


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("experiments/create", {"name": 123}, "Invalid value 123 for parameter 'name' supplied"),
    ("experiments/create", {}, "Missing value for required parameter 'name'."),
    ("experiments/create", {"name": "n" * 501}, "'name' exceeds the maximum length of 500 characters"),
    ("experiments/create", {"name": "x", "artifact_location": 9.0}, "Invalid value 9.0 for parameter 'artifact_location' supplied"),
    ("experiments/create", {"name": "x", "artifact_location": "runs:/a"}, "Artifact location cannot be a runs:/ URI"),
    ("experiments/create", {"name": "x", "artifact_location": "mlflow-artifacts:/a/%2e%2e/b"}, "Invalid path"),
    ("experiments/create", {"name": "x", "tags": "5"}, "Invalid value \"5\" for parameter 'tags' supplied"),
    ("experiments/set-experiment-tag", {"experiment_id": "0", "key": "b", "value": "v" * 20_001}, "'value' exceeds the maximum length of 20000"),
    ("runs/create", {"experiment_id": 5}, "Invalid value 5 for parameter 'experiment_id' supplied"),
    ("runs/create", {"run_name": 3}, "Invalid value 3 for parameter 'run_name' supplied"),
    ("runs/create", {"experiment_id": "abc"}, "Invalid experiment ID 'abc'. Experiment ID must be a valid integer."),
    ("runs/create", {"run_name": "a", "tags": [{"key": "mlflow.runName", "value": "b"}]}, "specified, but with different values"),
    ("runs/log-metric", {"run_id": 31, "key": "m", "value": 1, "timestamp": 1}, "Invalid value 31 for parameter 'run_id' supplied"),
    ("runs/log-metric", {"key": "m", "value": 1, "timestamp": "x", "step": 1}, "Invalid value \"x\" for parameter 'timestamp' supplied"),
    ("runs/log-metric", {"key": "m", "value": 1, "timestamp": 1, "step": "x"}, "Invalid value \"x\" for parameter 'step' supplied"),
    ("runs/log-metric", {"key": "m", "value": 1, "timestamp": -5}, "Timestamp must be a nonnegative long"),
    ("runs/log-metric", {"key": "m", "value": 1, "timestamp": 1, "step": 2**70}, "Step must be a valid long (64-bit integer)"),
    ("runs/log-metric", {"key": "m", "timestamp": 1}, "Missing value for required parameter 'value'."),
    ("runs/log-metric", {"key": "k" * 10_000, "value": 1, "timestamp": 1}, "'Metric name' exceeds the maximum length of 250 characters"),
    ("runs/log-metric", {"key": "../k", "value": 1, "timestamp": 1}, "This name would resolve to '../k'"),
    ("runs/log-metric", {"key": "k?", "value": 1, "timestamp": 1}, "Names may only contain alphanumerics"),
    ("runs/log-parameter", {"key": 31, "value": "4"}, "Invalid value 31 for parameter 'key' supplied"),
    ("runs/set-tag", {"key": "p", "value": 41}, "Invalid value 41 for parameter 'value' supplied"),
    ("runs/set-tag", {"value": "v"}, "Missing value for required parameter 'key'"),
    ("runs/log-batch", {"metrics": "foo"}, "Invalid value \"foo\" for parameter 'metrics' supplied"),
    ("runs/log-batch", {"metrics": [{"key": "a", "value": 2}]}, "Missing value for required parameter 'metrics[0].timestamp'"),
    ("runs/log-batch", {"params": [{"key": "a", "value": "1"}, {"value": "3"}]}, "Missing value for required parameter 'params[1].key'"),
    ("runs/log-batch", {"metrics": [{"key": "m", "value": 1, "timestamp": 1}] * 1001}, "can contain at most 1000 metrics. Got 1001 metrics."),
    ("runs/log-batch", {"params": [{"key": f"p{i}", "value": "1"} for i in range(101)]}, "can contain at most 100 params"),
    ("runs/log-batch", {"params": [{"key": "d", "value": "1"}, {"key": "d", "value": "2"}]}, "Duplicate parameter keys have been submitted: ['d']"),
    ("runs/update", {"status": "SLEEPING"}, "Invalid value \"SLEEPING\" for parameter 'status' supplied"),
    ("runs/search", {"experiment_ids": ["0"], "max_results": 123456789}, "Invalid value 123456789 for parameter 'max_results' supplied"),
    ("runs/log-inputs", {"datasets": [{"dataset": {"name": "n", "digest": "d" * 37, "source": "s", "source_type": "t"}}]}, "'digest' exceeds"),
    ("runs/log-model", {"model_json": "{bad"}, "is not a valid JSON"),
    ("experiments/search-datasets", {"experiment_ids": []}, "must specify at least one experiment_id."),
]


@pytest.mark.parametrize(("path", "body", "words"), BAD)
def test_bad_requests_are_refused_in_mlflows_words(mlflow: Mlflow, run: str, path: str, body: dict[str, Any], words: str) -> None:
    given = {"run_id": run, **body} if path.startswith("runs/") and path != "runs/create" else body
    status, answer = mlflow.ask("POST", path, given)
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer
    assert words in answer["message"]


def test_a_batch_with_one_bad_metric_leaves_nothing(mlflow: Mlflow) -> None:
    run = mlflow.run()
    body = {"run_id": run, "params": [{"key": "a", "value": "1"}], "metrics": [{"key": "ok", "value": 1, "timestamp": 1}, {"key": "no?"}]}
    assert mlflow.ask("POST", "runs/log-batch", body)[0] == 400
    assert not mlflow.shown(run)["data"]["params"]
    assert not mlflow.shown(run)["data"]["metrics"]


def test_what_is_not_json_or_not_for_this_route(mlflow: Mlflow) -> None:
    assert mlflow.ask("POST", "experiments/create", "{bad")[0] == 400
    answer = mlflow.http.post(API + "experiments/create", content='{"name": "x"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert "Content-Type must be one of ['application/json']" in answer.json()["message"]
    assert mlflow.ask("GET", "experiments/create") == (
        405,
        {"error_code": "BAD_REQUEST", "message": mlflow.ask("GET", "experiments/create")[1]["message"]},
    )
    assert mlflow.ask("GET", "experiments/nothing")[1]["error_code"] == "ENDPOINT_NOT_FOUND"
    assert mlflow.ok("POST", "experiments/create", {"name": "unknown fields are ignored", "colour": 7})["experiment_id"]


def test_an_experiments_life(mlflow: Mlflow) -> None:
    id = mlflow.ok("POST", "experiments/create", {"name": "life", "artifact_location": "s3://bucket/life"})["experiment_id"]
    run = mlflow.ok("POST", "runs/create", {"experiment_id": id, "user_id": "unknown"})["run"]["info"]
    assert run["artifact_uri"] == f"s3://bucket/life/{run['run_id']}/artifacts"
    assert run["user_id"] == "unknown"
    assert [tag["key"] for tag in mlflow.shown(run["run_id"])["data"]["tags"]] == ["mlflow.runName"]  # what we keep besides is not shown
    taken = mlflow.ask("POST", "experiments/create", {"name": "life"})
    assert (taken[0], taken[1]["error_code"]) == (400, "RESOURCE_ALREADY_EXISTS")
    mlflow.ok("POST", "experiments/delete", {"experiment_id": id})
    again = mlflow.ask("POST", "experiments/delete", {"experiment_id": id})
    assert (again[0], again[1]["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    refused = mlflow.ask("POST", "runs/create", {"experiment_id": id})
    assert f"The experiment {id} must be in the 'active' state" in refused[1]["message"]
    mlflow.ok("POST", "experiments/restore", {"experiment_id": id})
    assert mlflow.ok("GET", "experiments/get", experiment_id=id)["experiment"]["lifecycle_stage"] == "active"


def test_values_that_are_no_numbers_and_long_texts(mlflow: Mlflow) -> None:
    run = mlflow.run()
    for key, value in (("nan", "NaN"), ("inf", "Infinity"), ("minus", "-Infinity"), ("text", "0.25")):
        mlflow.ok("POST", "runs/log-metric", {"run_id": run, "key": key, "value": value, "timestamp": "7", "step": "2"})
    mlflow.ok("POST", "runs/log-metric", f'{{"run_uuid": "{run}", "key": "bare", "value": NaN, "timestamp": 7}}')
    metrics = {one["key"]: one["value"] for one in mlflow.shown(run)["data"]["metrics"]}
    assert metrics == {"nan": "NaN", "inf": "Infinity", "minus": "-Infinity", "text": 0.25, "bare": "NaN"}
    mlflow.ok("POST", "runs/log-parameter", {"run_id": run, "key": "long", "value": "v" * 9_000})
    mlflow.ok("POST", "runs/set-tag", {"run_id": run, "key": "long", "value": "v" * 9_000})
    data = mlflow.shown(run)["data"]
    assert len(data["params"][0]["value"]) == 6_000
    assert {"key": "long", "value": "v" * 8_000} in data["tags"]


def test_series_by_pages_whole_and_thinned(mlflow: Mlflow) -> None:
    one, two = sorted(mlflow.run() for _ in range(2))
    for id, n in ((one, 10), (two, 20)):
        mlflow.ok("POST", "runs/log-batch", {"run_id": id, "metrics": [{"key": "m", "value": 1.0, "timestamp": 1, "step": i} for i in range(n)]})
    token, found = None, []
    while token is not None or not found:
        page = mlflow.ok("GET", "metrics/get-history", run_id=one, metric_key="m", max_results=4, **({"page_token": token} if token else {}))
        found += [point["step"] for point in page["metrics"]]
        token = page.get("next_page_token")
    assert found == list(range(10))
    assert mlflow.ask("GET", "metrics/get-history", run_id=one, metric_key="m", page_token="nonsense")[0] == 400
    bulk = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
    assert [p["run_id"] for p in mlflow.ok("GET", bulk, run_id=[two, one], metric_key="m", max_results=12)["metrics"]] == [one] * 10 + [two] * 2
    assert "must specify a metric_key" in mlflow.ask("GET", bulk, run_id=one)[1]["message"]
    thinned = mlflow.ok("GET", bulk + "-interval", run_ids=[one, two], metric_key="m", max_results=5)["metrics"]
    assert [(p["run_id"], p["step"]) for p in thinned] == [(one, s) for s in (0, 2, 4, 6, 9)] + [(two, s) for s in (0, 4, 8, 12, 19)]
    inside = mlflow.ok("GET", bulk + "-interval", run_ids=one, metric_key="m", start_step=3, end_step=5)["metrics"]
    assert [p["step"] for p in inside] == [3, 4, 5]
    assert "both must be specified" in mlflow.ask("GET", bulk + "-interval", run_ids=one, metric_key="m", start_step=3)[1]["message"]


def test_what_runs_read_is_found_by_experiment(mlflow: Mlflow) -> None:
    experiment = mlflow.ok("POST", "experiments/create", {"name": "read"})["experiment_id"]
    run = mlflow.run(experiment)
    dataset = {"name": "d", "digest": "g", "source_type": "local", "source": "s"}
    tags = [{"key": "mlflow.data.context", "value": "training"}]
    mlflow.ok("POST", "runs/log-inputs", {"run_id": run, "datasets": [{"dataset": dataset, "tags": tags}]})
    mlflow.ok("POST", "runs/outputs", {"run_id": run, "models": [{"model_id": "m-1", "step": 2}]})
    assert mlflow.shown(run)["inputs"]["dataset_inputs"] == [{"dataset": dataset, "tags": tags}]
    assert mlflow.shown(run)["outputs"]["model_outputs"] == [{"model_id": "m-1", "step": 2}]
    found = mlflow.ok("POST", "experiments/search-datasets", {"experiment_ids": [experiment]})["dataset_summaries"]
    assert found == [{"experiment_id": experiment, "name": "d", "digest": "g", "context": "training"}]


def test_searches_as_mlflow_means_them(mlflow: Mlflow) -> None:
    experiment = mlflow.ok("POST", "experiments/create", {"name": "search"})["experiment_id"]
    ids = []
    for i in range(4):
        made = {"experiment_id": experiment, "start_time": 1000 + i, "user_id": "bob" if i % 2 else "al", "run_name": f"run {i}"}
        ids.append(mlflow.ok("POST", "runs/create", made)["run"]["info"]["run_id"])
    for i, value in enumerate((0.1, "NaN", 0.3)):
        metric = {"key": "auc", "value": value, "timestamp": 1}
        mlflow.ok("POST", "runs/log-batch", {"run_id": ids[i], "metrics": [metric], "params": [{"key": "my key", "value": "x%y"}]})

    def found(filter: str, *order: str) -> list[int]:
        body = {"experiment_ids": [experiment], "filter": filter, "order_by": order or ["attributes.start_time"]}
        return [ids.index(run["info"]["run_id"]) for run in mlflow.ok("POST", "runs/search", body).get("runs", [])]

    assert found("start_time > 1001") == [2, 3]
    assert found("attributes.start_time = 1001") == [1]
    assert found("user_id = 'bob'") == [1, 3]
    assert found("metrics.auc != 0.1") == [1, 2]  # nan is not 0.1
    assert found("metrics.auc > .05 and params.`my key` LIKE 'x%'") == [0, 2]
    assert found("params.`my key` IS NULL") == [3]
    assert found(f"attributes.run_id IN ('{ids[3]}',)") == [3]
    assert found("", "metrics.auc DESC") == [2, 0, 1, 3]
    assert found("", "user_id", "start_time DESC") == [2, 0, 3, 1]
    status, answer = mlflow.ask("POST", "runs/search", {"experiment_ids": ["abc"]})
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


PROXY = "/api/2.0/mlflow-artifacts/artifacts"


def put(mlflow: Mlflow, where: str, data: bytes, **headers: str) -> Any:
    return mlflow.http.put(f"{PROXY}/{where}", content=data, headers=headers)


def test_no_path_leaves_its_folder_in_any_spelling(mlflow: Mlflow, run: str) -> None:
    invalid = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid path"}
    for path in (
        "../x",
        "/etc/passwd",
        "a/../../x",
        "%2e%2e/x",
        "a%252f..%252f..%252fx",
        "..%5cx",
        "a\\..\\x",
        "file:///etc/passwd",
        "a//b",
        "x%00y",
    ):
        for where in ("/api/2.0/mlflow/artifacts/list", "/get-artifact"):
            answer = mlflow.http.get(where, params={"run_id": run, "path": path})
            assert (answer.status_code, answer.json()) == (400, invalid), (where, path)
        assert mlflow.http.get(PROXY, params={"path": path}).status_code == 400, path
        assert mlflow.http.get("/model-versions/get-artifact", params={"name": "m", "version": 1, "path": path}).json() == invalid
    for path in ("..%252f..%252fx", "%252e%252e/x", "a/..%2f..%2fx", "b%5c..%5cx"):
        assert put(mlflow, f"0/{run}/artifacts/{path}", b"bad").status_code in (400, 404), path
    assert mlflow.ok("GET", "artifacts/list", run_id=run)["files"] == []


def test_an_upload_that_is_not_what_it_promised_is_not_kept(mlflow: Mlflow, run: str) -> None:
    right = {"content-md5": "XUFAKrxLKna5cZ2REBfFkg==", "content-digest": "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"}
    for name, wrong in (("content-md5", "AAAAKrxLKna5cZ2REBfFkg=="), ("content-digest", "sha-256=:AAAAul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:")):
        answer = put(mlflow, f"0/{run}/artifacts/hello.txt", b"hello", **{name: wrong})
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert "was promised" in answer.json()["message"]
    assert mlflow.ok("GET", "artifacts/list", run_id=run)["files"] == []
    assert put(mlflow, f"0/{run}/artifacts/größe/hello.txt", b"hello", **right).status_code == 200
    got = mlflow.http.get("/get-artifact", params={"run_uuid": run, "path": "größe/hello.txt"})
    assert (got.content, got.headers["content-disposition"]) == (b"hello", 'attachment; filename="hello.txt"')
    missing = mlflow.http.get(f"{PROXY}/0/{run}/artifacts/none")
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert mlflow.http.delete(f"{PROXY}/0/{run}/artifacts/größe").status_code == 200
    assert mlflow.ok("GET", "artifacts/list", run_id=run)["files"] == []


def test_files_of_an_experiment_with_its_own_place_are_its_runs(mlflow: Mlflow) -> None:
    made = {"name": "placed", "artifact_location": "mlflow-artifacts:/teams/risk"}
    run = mlflow.run(mlflow.ok("POST", "experiments/create", made)["experiment_id"])
    uri = mlflow.shown(run)["info"]["artifact_uri"]
    assert uri == f"mlflow-artifacts:/teams/risk/{run}/artifacts"
    assert put(mlflow, uri.removeprefix("mlflow-artifacts:/") + "/a.bin", bytes(3_000_000)).status_code == 200
    listed = mlflow.ok("GET", "artifacts/list", run_id=run)
    assert listed == {"root_uri": uri, "files": [{"path": "a.bin", "is_dir": False, "file_size": 3_000_000}]}
    assert mlflow.http.get(f"/get-artifact?run_id={run}&path=a.bin").content == bytes(3_000_000)


def test_a_dot_is_the_folder_itself(mlflow: Mlflow) -> None:
    run = mlflow.run()
    assert put(mlflow, f"0/{run}/artifacts/d/a.txt", b"hello").status_code == 200
    listed = [{"path": "d", "is_dir": True}]
    found = mlflow.http.get(f"{API}artifacts/list", params={"run_id": run, "path": "."}).json()["files"]
    assert found == listed == mlflow.ok("GET", "artifacts/list", run_id=run)["files"]
    assert mlflow.http.get(PROXY, params={"path": f"0/{run}/artifacts/."}).json()["files"] == listed  # as download_artifacts(".") asks
    assert mlflow.http.get(PROXY, params={"path": f"0/{run}/artifacts/./d"}).json()["files"][0]["path"] == "a.txt"
    assert mlflow.http.get("/get-artifact", params={"run_id": run, "path": "./d/./a.txt"}).text == "hello"
    assert mlflow.http.get("/get-artifact", params={"run_id": run, "path": "."}).status_code in (400, 404)


def test_small_uploads_and_prompt_runs(mlflow: Mlflow, run: str) -> None:
    where = "/ajax-api/2.0/mlflow/upload-artifact"
    for params, words in (({}, "run_uuid"), ({"run_uuid": run}, "path"), ({"run_uuid": run, "path": "t.txt"}, "data")):
        assert mlflow.http.post(where, params=params).json()["message"].startswith(f"Request must specify {words}.")
    assert mlflow.http.post(where, params={"run_uuid": run, "path": "t.txt"}, content=b"hello").status_code == 200
    assert mlflow.http.get("/get-artifact", params={"run_uuid": run, "path": "t.txt"}).text == "hello"
    lab = "/ajax-api/2.0/mlflow/runs/create-promptlab-run"
    assert mlflow.ask("POST", lab, {"experiment_id": "0"})[1]["message"] == "CreatePromptlabRun request must specify prompt_template."
    body = {"experiment_id": "0", "prompt_template": "Hi {{ a }}", "prompt_parameters": [{"key": "a", "value": "b"}], "model_route": "r"}
    made = mlflow.ok("POST", lab, {**body, "model_input": "Hi b", "model_output": "Hello", "mlflow_version": "3.17.2", "start_time": 456})["run"]
    assert (made["info"]["status"], made["info"]["start_time"]) == ("FINISHED", 456)
    assert {"key": "model_route", "value": "r"} in made["data"]["params"]


def test_versions_are_searched_sorted_and_paged_in_the_database(mlflow: Mlflow) -> None:
    for name in ("sa", "sb"):
        mlflow.ok("POST", "registered-models/create", {"name": name})
        for i in range(3):
            tags = [{"key": 'odd "key"', "value": f"V{i}"}, {"key": "team", "value": "risk"}] if i else []
            mlflow.ok("POST", "model-versions/create", {"name": name, "source": f"s3://bucket/{name}/{i}", "tags": tags})

    def found(filter: str, **more: Any) -> list[str]:
        versions = mlflow.ok("GET", "model-versions/search", filter=filter, **more).get("model_versions", [])
        return [f"{one['name']}{one['version']}" for one in versions]

    by = {"order_by": "version_number DESC"}
    assert found("name IN ('sa', 'sb')", **by) == ["sa3", "sb3", "sa2", "sb2", "sa1", "sb1"]
    assert found("name LIKE 's_' AND tags.team = 'risk'", **by) == ["sa3", "sb3", "sa2", "sb2"]
    assert found("name = 'sa' AND tags.`odd \"key\"` != 'V1'") == ["sa3"]
    assert found("tags.`odd \"key\"` ILIKE 'v2'", **by) == ["sa3", "sb3"] and found("tags.none != 'x'") == []
    assert found("source_path LIKE 's3://bucket/sb/%' AND version_number >= 2", **by) == ["sb3", "sb2"]
    pages, token = [], ""
    while not pages or token:
        more = {"page_token": token} if token else {}
        page = mlflow.ok("GET", "model-versions/search", filter="name IN ('sa', 'sb')", order_by="name", max_results=4, **more)
        pages.append([f"{one['name']}{one['version']}" for one in page["model_versions"]])
        token = page.get("next_page_token", "")
    assert pages == [["sa3", "sa2", "sa1", "sb3"], ["sb2", "sb1"]]
