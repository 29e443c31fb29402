"""Loads from a folder and a SQL query: each a version with its source; nothing new stays; what cannot be read is named and nothing is kept."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from everloop.build import credit, ingest, ingest_sql, tabular
from everloop.core.errors import BadInput, NotFound
from tests.conftest import running_server
from tests.web.test_data import client  # noqa: F401 - a fixture

HEAD = "id,when,income,bad\n"


def load(client: Any, **params: Any) -> dict[str, Any]:  # noqa: F811
    run = client.runs.start("load")
    try:
        return ingest.load(SimpleNamespace(params={"dataset": "loans", **params}, inputs={}, client=client, run=run, log=print))
    finally:
        run.finish()


def test_new_files_of_a_folder_are_added_and_nothing_new_stays(client, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(BadInput, match="nothing to load into dataset:loans"):
        load(client, folder=str(folder))
    (folder / "w01.csv").write_text(HEAD + "a,2026-01-01,10,0\nb,2026-01-02,20,1\n")
    (folder / "notes.md").write_text("not a table")
    roles = {"target": "bad", "time": "when", "id": "id"}
    first = load(client, folder=str(folder), **roles)
    assert (first["dataset"], first["new"], first["rows"], first["files"]) == ("dataset:loans@1", True, 2, ["w01.csv"])
    again = load(client, folder=str(folder))
    assert (again["dataset"], again["new"], again["rows_new"]) == ("dataset:loans@1", False, 0) and "all loaded before" in again["why"]
    pd.DataFrame({"id": ["b", "c"], "when": ["2026-01-02", "2026-01-08"], "income": [21.5, 30.0], "bad": [0, 1]}).to_parquet(folder / "w02.parquet")
    second = load(client, folder=str(folder))
    manifest = client.data.get(second["dataset"])["manifest"]
    assert (second["rows_new"], second["rows"]) == (2, 3) and set(manifest["source"]["files"]) == {"w01.csv", "w02.parquet"}
    assert manifest["roles"]["target"] == "bad" and client.data.frame("loans").set_index("id").bad.to_dict() == {"a": 0, "b": 0, "c": 1}
    assert any("dataset:loans@1" in str(n) for n in client.why("dataset:loans@2")["nodes"])
    kept = load(client, folder=str(folder), mode="all", keep_days=6.5)
    assert kept["rows"] == 2 and kept["dataset"] == "dataset:loans@3"
    (folder / "w01.csv").write_text(HEAD + "a,2026-01-01,99,0\n")
    with pytest.raises(BadInput, match="w01.csv in .* was loaded before with other content"):
        load(client, folder=str(folder))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "c,2026-01-08,1,0\nd,2026-01-09,1\n", r"w02.csv has 3 fields where 4 are expected"),
        (HEAD + "c,2026-01-08,1,0\nd,soon,1,0\n", r"w02.csv: .*'when' does not parse as a date in row 2: 'soon'"),
        ("id,when,income\nc,2026-01-08,1\n", "w02.csv: .*'bad' is not in the table"),
        (HEAD.replace("income", "wage") + "c,2026-01-08,1,0\n", "w02.csv has other columns than dataset:loans@1: it lacks income; has wage besides"),
        ("", "w02.csv is empty"),
    ],
)
def test_a_broken_file_is_named_and_nothing_is_kept(client, tmp_path: Path, text: str, says: str) -> None:  # noqa: F811
    (tmp_path / "w01.csv").write_text(HEAD + "a,2026-01-01,10,0\nb,2026-01-02,20,1\n")
    load(client, folder=str(tmp_path), glob="*.csv", target="bad", time="when")
    (tmp_path / "w02.csv").write_text(text)
    with pytest.raises(BadInput, match=says):
        load(client, folder=str(tmp_path), glob="*.csv")
    assert client.data.get("loans")["version"] == 1
    (tmp_path / "w02.csv").unlink()
    assert not load(client, folder=str(tmp_path), glob="*.csv")["new"]


def database(path: Path, frame: pd.DataFrame) -> None:
    with sqlite3.connect(path) as db:
        frame.assign(applied_at=frame["applied_at"].astype(str)).to_sql("loans", db, if_exists="append", index=False)


def test_a_query_loads_its_span_by_reference(client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    weeks = credit.weeks(n=3, per_week=20)
    database(tmp_path / "bank.db", pd.concat(weeks))
    monkeypatch.setenv("BANK_URL", f"sqlite:///{tmp_path}/bank.db")
    query = "select * from loans where applied_at >= :since and applied_at < :until"
    span = {"url": "env:BANK_URL", "query": query, "target": "defaulted", "time": "applied_at", "id": "application_id"}
    first = load(client, **span, until="2026-01-12T00:00:00Z")
    second = load(client, **span, until="2026-01-19T00:00:00Z")
    assert (first["rows"], second["rows_new"], second["rows"]) == (20, 20, 40)
    source = client.data.get("loans")["manifest"]["source"]
    assert source["url"] == "env:BANK_URL" and source["since"].startswith("2026-01-12") and source["until"].startswith("2026-01-19")
    assert not load(client, **span, until="2026-01-19T00:00:01Z")["new"]
    for url, asked, says in (
        ("env:BANK_URL", "select * from no_such", "The query on sqlite:.*bank.db failed: no such table"),
        ("env:NOT_THERE", query, "NOT_THERE is not set"),
        ("postgresql://me:secret@host/db", query, "must not stand in clear"),
        (f"sqlite:///{tmp_path}/none.db", query, "There is no SQLite file"),
        ("env:BANK_URL", "delete from loans", "answers no rows"),
    ):
        with pytest.raises(BadInput, match=says) as refused:
            load(client, **{**span, "url": url, "query": asked})
        assert "secret" not in str(refused.value)
    assert client.data.get("loans")["version"] == 2
    with sqlite3.connect(tmp_path / "bank.db") as db:
        assert db.execute("select count(*) from loans").fetchone() == (60,)
    spec = ingest.load_and(tabular.PIPELINE, url="postgresql://me:secret@host/db")
    with pytest.raises(BadInput, match="password in clear") as refused:
        client.pipelines.put("load", spec)
    assert "secret" not in str(refused.value)
    with pytest.raises(NotFound):
        client.pipelines.get("load")


def test_postgresql_gives_its_types_and_never_shows_its_password(postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("create table ingest_loans (id text, at timestamptz, amount numeric(10,2), ok boolean)"))
        connection.execute(
            sa.text("insert into ingest_loans values ('a', '2026-01-05T10:00Z', 12.50, true), ('b', '2026-01-12T10:00Z', null, false)")
        )
    engine.dispose()
    (tmp_path / "url").write_text(postgres_url.replace("test@", "test:hush@") + "\n")
    query = "select * from ingest_loans where at >= :since and at < :until"
    since, until = (pd.Timestamp(d, tz="UTC").timestamp() for d in ("2026-01-05", "2026-01-12"))
    table, shown = ingest_sql.fetch(f"file:{tmp_path}/url", query, {"since": since, "until": until}, "datetime")
    assert table.to_pylist() == [{"id": "a", "at": pd.Timestamp("2026-01-05T10:00").to_pydatetime(), "amount": 12.5, "ok": True}]
    with pytest.raises(BadInput) as refused:
        ingest_sql.fetch(f"file:{tmp_path}/url", "select nothing from ingest_loans", {}, "datetime")
    assert "hush" not in shown + str(refused.value) and 'column "nothing" does not exist' in str(refused.value)


def test_a_schedule_loads_in_a_worker(tmp_path: Path) -> None:
    import everloop as el

    folder = tmp_path / "weekly"
    folder.mkdir()
    weeks = credit.weeks(n=2, per_week=30)
    database(tmp_path / "bank.db", weeks[0])
    with running_server(tmp_path / "home", workers=1, BANK_URL=f"sqlite:///{tmp_path}/bank.db") as url:
        found = el.connect(url, start=False)
        roles = {"target": "defaulted", "time": "applied_at", "id": "application_id"}
        found.pipelines.put("files", {**ingest.PIPELINE, "params": {"dataset": "files", "folder": str(folder), **roles}})
        found.pipelines.put(
            "bank", {**ingest.PIPELINE, "params": {"dataset": "bank", "url": "env:BANK_URL", "query": "select * from loans", **roles}}
        )
        for name in ("files", "bank"):
            found.pipelines.schedule(f"weekly-{name}", name, "@weekly")
        weeks[0].to_csv(folder / "w00.csv", index=False)
        for name in ("files", "bank"):
            run = found.pipelines.run_schedule(f"weekly-{name}")["id"]
            assert found.pipelines.wait(run, 60)["tasks"][0]["result"]["rows"] == 30
        weeks[1].to_csv(folder / "w01.csv", index=False)
        run = found.pipelines.run_schedule("weekly-files", at="2026-01-19T00:00:00Z")["id"]
        assert found.pipelines.wait(run, 60)["tasks"][0]["result"]["dataset"] == "dataset:files@2"
        assert found.why("dataset:files@2")["nodes"]
        (folder / "w02.csv").write_text("application_id,applied_at\nA1,soon\n")
        with pytest.raises(BadInput, match=r"The step 'load' refused: w02.csv"):
            found.pipelines.wait(found.pipelines.run_schedule("weekly-files")["id"], 60)
        assert found.data.get("files")["version"] == 2
