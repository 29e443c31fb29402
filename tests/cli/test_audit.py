"""The audit record and pipelines by command, as a person reads them."""

from __future__ import annotations

import json

import pandas as pd
import sqlalchemy as sa

from everloop.client.base import Client
from tests.cli.helpers import Run, run  # noqa: F401 - a fixture
from tests.web.test_data import client  # noqa: F401 - a fixture

SPEC = {"steps": [{"name": "split", "call": "everloop.build.tabular:split", "after": []}], "params": {"dataset": "dataset:d"}, "schedule": "@weekly"}


def test_the_record_is_filtered_and_verified(client: Client, run: Run, tmp_path) -> None:  # noqa: F811
    client.data.add("d", pd.DataFrame({"x": [1.0, 2.0]}))
    client.assets.move_alias("dataset:d@1", "good", why="looked at")
    client.pipelines.put("p", SPEC)
    assert "alias.move" in run("audit")[1] and "pipeline.put" in run("audit")[1]
    told = run("audit", "--action", "alias", "--subject", "dataset:d", "--who", "local", "--since", "1h")[1]
    assert "alias.move" in told and "pipeline.put" not in told and "looked at" in told
    rows = json.loads(run("audit", "--subject", "pipeline:p", "--json")[1])
    assert [row["action"] for row in rows] == ["pipeline.put"]
    for filters in (("--who", "ann"), ("--action", "ali"), ("--subject", "dataset:dd"), ("--since", "2099-01-01")):
        assert run("audit", *filters)[1] == "Nothing on record fits.\n", filters
    code, _, err = run("audit", "--since", "yesterday")
    assert code == 2 and "'yesterday' is not a time" in err
    code, out, _ = run("audit", "--verify")
    assert code == 0 and "The record is whole" in out
    with sa.create_engine(f"sqlite:///{tmp_path / 'home' / 'records.db'}").begin() as database:
        database.execute(sa.text("UPDATE audit SET subject = 'dataset:e@1' WHERE action = 'alias.move'"))
    code, out, _ = run("audit", "--verify")
    assert code == 1 and f"broken at row {json.loads(run('audit', '--action', 'alias', '--json')[1])[0]['seq']}" in out


def test_pipelines_are_shown_to_people_and_to_machines(client: Client, run: Run) -> None:  # noqa: F811
    client.pipelines.put("p", SPEC)
    out = run("pipelines", "show", "p")[1]
    assert "everloop.build.tabular:split" in out and "params of all steps: dataset=dataset:d" in out and "schedule p: @weekly, next " in out
    assert "It never ran. Start it: everloop pipelines run p" in out
    id = client.pipelines.run("p", {"name": "credit"})["id"]
    out = run("pipelines", "show", "p")[1]
    assert id in out and "manual" in out and "running" in out
    out = run("pipelines", "show", id[:10])[1]
    assert f"run {id} of p: running" in out and "params: name=credit" in out and "ready" in out
    assert json.loads(run("pipelines", "show", id, "--json")[1])["run"]["id"] == id
    assert [one["id"] for one in json.loads(run("pipelines", "show", "p", "--json")[1])["runs"]] == [id]
