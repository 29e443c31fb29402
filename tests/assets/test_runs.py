"""Runs on every records backend: params set once, metric series, search in MLflow's language, files, experiments."""

from __future__ import annotations

import math
from typing import Any

import pytest

from everloop.assets import experiments, run_filter, run_metrics, run_search, runs
from everloop.core.errors import BadInput, Conflict, NotFound
from everloop.core.principal import Principal
from everloop.store.records import Records


def made(records: Records, who: Principal, name: str, metrics: dict[str, Any] | None = None, **more: Any) -> str:
    def work(tx: Any) -> str:
        id = runs.create(tx, name, "training", **more)["id"]
        runs.log(tx, id, points=run_metrics.points_of(metrics or {}, tx.now))
        return id

    return records.write_sync(who, work)


def found(records: Records, who: Principal, filter: str = "", **more: Any) -> list[str]:
    return [run["name"] for run in records.read_sync(who, lambda tx: run_search.search(tx, filter, **more))[0]]


def test_a_run_keeps_what_was_logged_and_belongs_to_its_project(records: Records, who: Principal, other: Principal) -> None:
    id = made(records, who, "first", {"auc": 0.8}, params={"depth": 3}, tags={"team": "risk"}, experiment="credit")
    run = records.read_sync(who, lambda tx: runs.get(tx, id))
    assert (run["experiment"], run["params"], run["metrics"], run["tags"]) == ("credit", {"depth": "3"}, {"auc": 0.8}, {"team": "risk"})
    with pytest.raises(NotFound):
        records.read_sync(other, lambda tx: runs.get(tx, id))
    with pytest.raises(NotFound):
        records.write_sync(other, lambda tx: runs.log(tx, id, tags={"a": "b"}))
    records.write_sync(who, lambda tx: runs.update(tx, id, status="failed", error="boom"))
    run = records.read_sync(who, lambda tx: runs.get(tx, id))
    assert run["status"] == "failed" and run["error"] == "boom" and run["ended_at"] > run["started_at"]


def test_params_are_set_once_and_a_refused_batch_leaves_nothing(records: Records, who: Principal) -> None:
    id = made(records, who, "r", params={"lr": "0.1"})
    records.write_sync(who, lambda tx: runs.log(tx, id, params={"lr": 0.1, "depth": 2}))
    with pytest.raises(Conflict, match="already logged"):
        records.write_sync(who, lambda tx: runs.log(tx, id, params={"new": 1, "lr": 0.2}, tags={"t": 1}))
    run = records.read_sync(who, lambda tx: runs.get(tx, id))
    assert run["params"] == {"lr": "0.1", "depth": "2"} and run["tags"] == {}


def test_a_param_that_is_a_table_or_list_is_kept_as_json(records: Records, who: Principal) -> None:
    id = made(records, who, "r", params={"threshold": {"false_positive": 1}, "layers": [8, 4]})
    kept = records.read_sync(who, lambda tx: runs.get(tx, id))["params"]
    assert kept == {"threshold": '{"false_positive":1}', "layers": "[8,4]"}


def test_series_keep_every_point_and_the_latest_by_step(records: Records, who: Principal) -> None:
    id = made(records, who, "r")
    points = [run_metrics.Point("loss", value, step, 100.0 + step) for step, value in ((3, 0.1), (1, math.nan), (2, math.inf), (0, -math.inf))]
    for chunk in (points, points[:1]):  # a client's retry
        records.write_sync(who, lambda tx, chunk=chunk: runs.log(tx, id, points=chunk))
    records.write_sync(who, lambda tx: runs.log(tx, id, points=[run_metrics.Point("loss", 9.0, 2, 500.0)]))
    assert records.read_sync(who, lambda tx: runs.get(tx, id))["metrics"] == {"loss": 0.1}
    everything, more = records.read_sync(who, lambda tx: run_metrics.history(tx, id, "loss"))
    assert everything == [("-Infinity", 0, 100.0), ("NaN", 1, 101.0), ("Infinity", 2, 102.0), (0.1, 3, 103.0), (9.0, 2, 500.0)] and more is None
    page, more = records.read_sync(who, lambda tx: run_metrics.history(tx, id, "loss", 2))
    rest, end = records.read_sync(who, lambda tx: run_metrics.history(tx, id, "loss", 10, more))
    assert page + rest == everything and end is None


def test_search_speaks_mlflows_language_in_sql(records: Records, who: Principal, other: Principal) -> None:
    made(records, who, "a", {"auc": 0.9, "val loss": 0.3}, params={"model": "Forest"}, tags={"team": "risk"})
    made(records, who, "b", {"auc": 0.7}, params={"model": "linear"}, tags={"team": "fraud"}, experiment="second")
    made(records, who, "c", {"auc": math.nan, "x.y": 1}, params={"model": "linear_l1"})
    gone = made(records, who, "d", {"auc": math.inf})
    records.write_sync(who, lambda tx: runs.delete(tx, gone))
    made(records, other, "foreign", {"auc": 0.9})
    ask = {
        "metrics.auc > 0.5 and params.model = 'linear'": ["b"],
        "metrics.auc > 0.8 AND metric.`val loss` <= 3e-1": ["a"],
        "metrics.x.y = 1": ["c"],
        "params.model LIKE 'f%'": [],
        "params.model ILIKE 'f%'": ["a"],
        "params.model LIKE 'linear_l_'": ["c"],
        "tags.\"team\" != 'risk'": ["b"],
        "tags.team IS NULL": ["c"],
        "params.model IS NOT NULL and attributes.run_name IN ('a', 'c')": ["c", "a"],
        "run_name NOT IN ('a')": ["c", "b"],
        "status = 'RUNNING' and start_time > 1000": ["c", "b", "a"],
        "": ["c", "b", "a"],
    }
    assert {text: found(records, who, text) for text in ask} == ask
    assert found(records, who, order_by=["metrics.auc DESC"]) == ["a", "b", "c"]
    assert found(records, who, order_by=["metrics.auc ASC"], view="all") == ["b", "a", "d", "c"]
    assert found(records, who, order_by=["tags.team"]) == ["b", "a", "c"]
    assert found(records, who, experiment="second") == ["b"] and found(records, who, experiment="none such") == []
    first, more = records.read_sync(who, lambda tx: run_search.search(tx, limit=2))
    rest, end = records.read_sync(who, lambda tx: run_search.search(tx, limit=2, offset=2))
    assert ([r["name"] for r in first], more, [r["name"] for r in rest], end) == (["c", "b"], True, ["a"], False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("metrics.auc > 'a'", "not a number"),
        ("params.a = 1", "not in quotes"),
        ("metrics.auc LIKE 'a'", "LIKE cannot"),
        ("metrics.a > 1 OR metrics.b > 1", "AND must follow"),
        ("nothing.a = 'x'", "no entity 'nothing'"),
        ("colour = 'x'", "no attribute 'colour'"),
        ("params.a = 'x", "cannot be read"),
        ("params.a", "operator must follow"),
        ("run_id IN ('a'", "list after IN"),
        ("params.a = ", "found the end"),
    ],
)
def test_a_filter_that_does_not_parse_says_where(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        run_filter.parse(text, run_filter.RUNS)


def test_experiments_have_a_default_and_can_be_deleted_and_restored(records: Records, who: Principal) -> None:
    one = records.write_sync(who, lambda tx: experiments.create(tx, "credit", {"k": "v"}))
    assert one["id"] == "1"
    with pytest.raises(Conflict):
        records.write_sync(who, lambda tx: experiments.create(tx, "credit"))
    with pytest.raises(BadInput):
        records.write_sync(who, lambda tx: experiments.delete(tx, "0"))
    search = lambda **more: [e["name"] for e in records.read_sync(who, lambda tx: experiments.search(tx, **more))]
    assert search(order_by=["name ASC"]) == ["Default", "credit"] and search(filter="tags.k = 'v'") == ["credit"]
    records.write_sync(who, lambda tx: experiments.delete(tx, "1"))
    assert search() == ["Default"] and search(view="deleted") == ["credit"]
    with pytest.raises(Conflict):
        records.write_sync(who, lambda tx: experiments.ensure(tx, "credit"))
    records.write_sync(who, lambda tx: experiments.restore(tx, "1"))
    records.write_sync(who, lambda tx: experiments.tag(tx, "1", {"k": None, "n": "1"}))
    assert records.read_sync(who, lambda tx: experiments.get(tx, "1"))["tags"] == {"n": "1"}


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/../b", "", "C:/x", "a\\b", "a/./b", "a\x00b"])
def test_a_path_cannot_leave_the_run(path: str) -> None:
    with pytest.raises(BadInput):
        runs.check_path(path)


def test_files_of_a_run_are_listed_by_folder(records: Records, who: Principal) -> None:
    id = made(records, who, "r")
    for path in ("model/MLmodel", "model/data/x.bin", "model.txt", "notes.md"):
        records.write_sync(who, lambda tx, path=path: runs.put_artifact(tx, id, path, "d" * 64, 3))
    names = lambda under="": [f["path"] for f in records.read_sync(who, lambda tx: runs.artifacts(tx, id, under))]
    assert names() == ["model.txt", "model/MLmodel", "model/data/x.bin", "notes.md"]
    assert names("model") == ["model/MLmodel", "model/data/x.bin"]
    records.write_sync(who, lambda tx: runs.delete_artifacts(tx, id, "model"))
    assert names() == ["model.txt", "notes.md"]
