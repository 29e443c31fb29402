"""What a table of runs asks, on every records backend: groups, keys, a few values of many runs, the tree below a run; each in its own project."""

from __future__ import annotations

import math

import pytest

from everloop.assets import run_filter, run_table
from everloop.assets.experiments import DEFAULT_NAME
from everloop.core.errors import BadInput, NotFound
from everloop.core.principal import Principal
from everloop.store.records import Records
from tests.assets.test_runs import made


def test_groups_have_figures_of_finite_values_and_those_without_are_a_group(records: Records, who: Principal, other: Principal) -> None:
    for i, model in enumerate(("a", "a", "b")):
        made(records, who, f"r{i}", {"auc": i / 10}, params={"model": model}, experiment="sweep")
    made(records, who, "bad", {"auc": math.nan}, params={"model": "b"}, experiment="sweep")
    made(records, who, "none")
    made(records, other, "elsewhere", {"auc": 9.0}, params={"model": "a"})
    found = records.read_sync(who, lambda tx: run_table.groups(tx, "params.model", ["auc"]))["items"]
    assert [(g["value"], g["runs"]) for g in found if g["value"]] == [("a", 2), ("b", 2)]
    figures = {g["value"]: g["metrics"]["auc"] for g in found}
    assert figures["a"] == {"mean": pytest.approx(0.05), "min": 0.0, "max": 0.1, "n": 2} and figures["b"]["n"] == 1 and figures[None]["mean"] is None
    named = records.read_sync(who, lambda tx: run_table.groups(tx, "experiment"))["items"]
    assert {g["value"]: g["runs"] for g in named} == {"sweep": 4, DEFAULT_NAME: 1}
    with pytest.raises(BadInput, match="cannot be grouped by 'metrics.auc'"):
        records.read_sync(who, lambda tx: run_table.groups(tx, "metrics.auc"))


def test_values_of_many_runs_come_in_the_order_of_their_columns(records: Records, who: Principal) -> None:
    first = made(records, who, "first", {"auc": 0.5, "inf": math.inf}, params={"lr": "0.1"}, tags={"t": "x"}, started_at=1.0)
    made(records, who, "second", {"auc": 0.6}, started_at=2.0)
    columns = [("tags", "t"), ("metrics", "auc"), ("params", "lr"), ("metrics", "inf")]
    rows = records.read_sync(who, lambda tx: run_table.values(tx, columns, 10))
    assert [(row["name"], row["values"]) for row in rows] == [("second", [None, 0.6, None, None]), ("first", ["x", 0.5, "0.1", None])]
    only = records.read_sync(who, lambda tx: run_table.values(tx, columns, 10, ids=[first]))
    assert [row["id"] for row in only] == [first]
    keys = records.read_sync(who, lambda tx: run_table.keys(tx, "params.lr = '0.1'"))
    assert [one["key"] for one in keys["metrics"]] == ["auc", "inf"] and keys["tags"] == [{"key": "t", "runs": 1}]


def test_the_tree_lists_each_run_after_its_parent_and_ends(records: Records, who: Principal) -> None:
    top = made(records, who, "top", started_at=1.0)
    a = made(records, who, "a", parent=top, started_at=2.0)
    made(records, who, "b", parent=top, started_at=3.0)
    made(records, who, "a1", parent=a, started_at=4.0)
    tree = records.read_sync(who, lambda tx: run_table.tree(tx, top, 50))
    assert [(one["name"], one["depth"]) for one in tree] == [("a", 1), ("a1", 2), ("b", 1)]
    assert len(records.read_sync(who, lambda tx: run_table.tree(tx, top, 2))) == 2


def test_many_keep_the_order_asked_and_name_who_is_missing(records: Records, who: Principal, other: Principal) -> None:
    one, two = made(records, who, "one", {"m": 1.0}), made(records, who, "two")
    assert [run["id"] for run in records.read_sync(who, lambda tx: run_table.many(tx, [two, one]))] == [two, one]
    heads = records.read_sync(who, lambda tx: run_table.heads(tx, [two, one], "m"))
    assert [(head["name"], head["value"]) for head in heads] == [("two", None), ("one", 1.0)]
    for ask in (lambda tx: run_table.many(tx, [one]), lambda tx: run_table.heads(tx, [one], "m")):
        with pytest.raises(NotFound):
            records.read_sync(other, ask)


@pytest.mark.parametrize("key", ["auc", "val loss", "a.b", "a`b", 'a"b', "1st", "träum"])
def test_a_key_is_named_so_that_the_filter_language_reads_it_back(key: str) -> None:
    written = run_table.named("metrics", key)
    clause = run_filter.parse(f"{written} > 0", run_filter.RUNS)[0]
    assert (clause.entity, clause.key) == ("metric", key)
    assert run_table.named("params", 'a`b"c') == "", "no quotes are left for it"
