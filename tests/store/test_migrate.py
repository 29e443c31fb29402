"""Homes of older versions open in this one, with all that was in them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic.script import ScriptDirectory

from everloop.assets import run_metrics, runs
from everloop.core.principal import Principal
from everloop.store import migrate
from everloop.store.records import Records
from everloop.store.schema import metadata

OLD_POINTS = """create table metric_points (id integer primary key, project varchar(250) not null, run varchar(64) not null, key varchar(250) not null,
value float, special varchar(4), step bigint not null, at float not null)"""


def test_the_newest_migration_is_the_head() -> None:
    assert ScriptDirectory(str(migrate.FOLDER)).get_current_head() == migrate.HEAD


def test_metric_points_of_the_first_schema_become_blocks(tmp_path: Path, who: Principal) -> None:
    Records.at(tmp_path, fsync=False).open().close()
    with sqlite3.connect(tmp_path / "records.db") as old:
        old.execute("drop table metric_blocks")
        old.execute(OLD_POINTS)
        points = [("a", "loss", float(i), None, i) for i in range(9000)] + [("a", "acc", None, "nan", 0), ("b", "loss", -1e308, "-inf", 3)]
        old.executemany("insert into metric_points (project, run, key, value, special, step, at) values ('default', ?, ?, ?, ?, ?, 5.0)", points)
        old.execute("update alembic_version set version_num = '0001'")
    records = Records.at(tmp_path, fsync=False).open()
    page, more = records.read_sync(who, lambda tx: run_metrics.history(tx, "a", "loss", 8500))
    rest, end = records.read_sync(who, lambda tx: run_metrics.history(tx, "a", "loss", 8500, more))
    assert page + rest == [(float(i), i, 5.0) for i in range(9000)] and end is None
    assert records.read_sync(who, lambda tx: run_metrics.history(tx, "a", "acc"))[0] == [("NaN", 0, 5.0)]
    assert records.read_sync(who, lambda tx: run_metrics.history(tx, "b", "loss"))[0] == [("-Infinity", 3, 5.0)]
    with sqlite3.connect(tmp_path / "records.db") as new:
        tables = {name for (name,) in new.execute("select name from sqlite_master where type = 'table'")}
    assert tables - {"alembic_version", "sqlite_sequence"} == set(metadata.tables)
    records.close()


def test_files_of_runs_that_had_no_writer_have_none(tmp_path: Path, who: Principal) -> None:
    Records.at(tmp_path, fsync=False).open().close()
    with sqlite3.connect(tmp_path / "records.db") as old:
        old.execute('alter table run_artifacts drop column "by"')
        old.execute("insert into run_artifacts (project, run, path, digest, size, at) values ('default', 'a', 'f', 'd', 1, 5.0)")
        old.execute("update alembic_version set version_num = '0005'")
    records = Records.at(tmp_path, fsync=False).open()
    assert records.read_sync(who, lambda tx: runs.artifacts(tx, "a", owned=False)) == [{"path": "f", "digest": "d", "size": 1, "at": 5.0, "by": None}]
    records.write_sync(who, lambda tx: runs.put_artifact(tx, "a", "f", "e", 1, owned=False))
    assert records.read_sync(who, lambda tx: runs.artifacts(tx, "a", owned=False))[0]["by"] == who.name
    records.close()
