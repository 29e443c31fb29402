"""MLflow's registry and logged models by the unmodified client: stages, sources, aliases, searches, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from everloop.client import Client, connect
from tests.conftest import running_server

pytestmark = pytest.mark.client
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture
def api(url: str) -> Any:
    import mlflow

    mlflow.set_tracking_uri(url)
    return mlflow.MlflowClient(url)


def refused(call: Any, *args: Any, **more: Any) -> tuple[str, str]:
    """(code, message) of what MLflow's client raises."""
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException) as told:
        call(*args, **more)
    return told.value.error_code, str(told.value)


def versions(api: Any, name: str, count: int) -> None:
    api.create_registered_model(name)
    for _ in range(count):
        api.create_model_version(name, "s3://bucket/model", "a-run-of-another-server")


@pytest.mark.filterwarnings("ignore")
def test_stages_are_mlflows(api: Any) -> None:
    versions(api, "staged", 4)
    for number, stage in (("1", "Staging"), ("2", "Production"), ("3", "Production")):
        api.transition_model_version_stage("staged", number, stage)
    assert {v.current_stage: v.version for v in api.get_latest_versions("staged")} == {"Staging": "1", "Production": "3", "None": "4"}
    api.transition_model_version_stage("staged", "4", "production", archive_existing_versions=True)
    assert [api.get_model_version("staged", n).current_stage for n in "1234"] == ["Staging", "Archived", "Archived", "Production"]
    assert refused(api.transition_model_version_stage, "staged", "1", "Heaven")[0] == "INVALID_PARAMETER_VALUE"
    assert "not an Active stage" in refused(api.transition_model_version_stage, "staged", "1", "Archived", archive_existing_versions=True)[1]


def test_a_source_is_where_it_says(api: Any) -> None:
    api.create_registered_model("sourced")
    run = api.create_run("0")
    other = api.create_run("0")
    api.create_model_version("sourced", f"runs:/{run.info.run_id}/model", run.info.run_id)
    for source in ("/etc/passwd", "file:///etc", "model", "s3://bucket/../other", "https://host/x", "models:/m-none", f"runs:/{other.info.run_id}/m"):
        code, message = refused(api.create_model_version, "sourced", source, run.info.run_id)
        assert code == "INVALID_PARAMETER_VALUE" and "Invalid model version source" in message, source
    copied = api.copy_model_version("models:/sourced/1", "copied")
    assert (copied.version, copied.run_id, copied.source) == ("1", run.info.run_id, "models:/sourced/1")


def test_versions_are_found_ordered_and_paged(api: Any) -> None:
    versions(api, "found", 3)
    versions(api, "found-too", 2)
    api.set_model_version_tag("found", "2", "note", "good")
    names = lambda found: [(one.name, one.version) for one in found]
    assert names(api.search_model_versions("name LIKE 'found%'", order_by=["name DESC", "version_number"]))[0] == ("found-too", "1")
    assert names(api.search_model_versions("tags.note = 'good' AND version_number >= 2")) == [("found", "2")]
    assert names(api.search_model_versions("name IN ('found') AND run_id = 'a-run-of-another-server'"))[0] == ("found", "3")
    first = api.search_model_versions("name = 'found'", max_results=2)
    rest = api.search_model_versions("name = 'found'", max_results=2, page_token=first.token)
    assert names([*first, *rest]) == [("found", "3"), ("found", "2"), ("found", "1")] and not rest.token
    for wrong in ("current_stage = 'Production'", "name > 'a'", "name = 'a' OR name = 'b'"):
        assert refused(api.search_model_versions, wrong)[0] == "INVALID_PARAMETER_VALUE"
    assert "duplicate fields" in refused(api.search_model_versions, "", order_by=["name", "name DESC"])[1]


def test_names_aliases_and_numbers(api: Any) -> None:
    versions(api, "old", 2)
    api.set_registered_model_alias("old", "best", "2")
    for alias in ("latest", "v3", "a b"):
        assert refused(api.set_registered_model_alias, "old", alias, "1")[0] == "INVALID_PARAMETER_VALUE"
    api.rename_registered_model("old", "new")
    assert api.get_model_version_by_alias("new", "best").version == api.get_model_version_by_alias("new", "latest").version == "2"
    assert refused(api.get_registered_model, "old")[0] == "RESOURCE_DOES_NOT_EXIST"
    api.delete_model_version("new", "2")
    assert api.get_registered_model("new").aliases == {} and refused(api.get_model_version, "new", "2")[0] == "RESOURCE_DOES_NOT_EXIST"
    assert api.create_model_version("new", "s3://bucket/model").version == "3"
    assert (
        refused(api.create_registered_model, "new")[0] == "RESOURCE_ALREADY_EXISTS" and "'/' or ':'" in refused(api.create_registered_model, "a/b")[1]
    )


def test_logged_models_by_their_metrics_on_a_data_set(api: Any, url: str) -> None:
    import mlflow

    experiment = api.create_experiment("logged")
    run = api.create_run(experiment)
    models = [mlflow.create_external_model(name, source_run_id=run.info.run_id, params={"n": name}, experiment_id=experiment) for name in "abc"]
    for model, value, digest in ((models[0], 0.9, "one"), (models[1], 0.5, "one"), (models[1], 0.99, "two")):
        at = int(value * 100)
        api.log_metric(run.info.run_id, "acc", value, timestamp=at, model_id=model.model_id, dataset_name="rows", dataset_digest=digest)
    ask = lambda **more: [one.name for one in api.search_logged_models([experiment], **more)]
    assert sorted(ask(filter_string="metrics.acc > 0.6")) == ["a", "b"]
    assert ask(filter_string="metrics.acc > 0.6", datasets=[{"dataset_name": "rows", "dataset_digest": "one"}]) == ["a"]
    assert sorted(ask(datasets=[{"dataset_name": "rows"}])) == ["a", "b"]
    assert ask(order_by=[{"field_name": "metrics.acc", "ascending": False}]) == ["b", "a", "c"]
    best = {"field_name": "metrics.acc", "ascending": False, "dataset_name": "rows", "dataset_digest": "one"}
    assert ask(order_by=[best]) == ["a", "b", "c"] and ask(filter_string="params.n IN ('c')") == ["c"]
    assert refused(api.search_logged_models, [experiment], order_by=[{"field_name": "params.n"}])[0] == "INVALID_PARAMETER_VALUE"


def test_what_is_deleted_here_is_gone_there_and_comes_back(api: Any, url: str) -> None:
    client: Client = connect(url, start=False)
    versions(api, "kept", 2)
    client.assets.delete("model:kept@2")
    assert [one.version for one in api.search_model_versions("name = 'kept'")] == ["1"]
    client.assets.restore("model:kept@2")
    assert [one.version for one in api.search_model_versions("name = 'kept'")] == ["2", "1"]
    found = client.assets.compare("model:kept@1", "2")
    assert found["from"]["ref"] == "model:kept@1" and not found["same"]
