"""Tables: files as people have them, what is said about them, roles, tasks and contracts."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from everloop.assets import contracts, table_parts, table_roles, table_stats, tables
from everloop.core.errors import BadInput, TooLarge


def csv_of(text: str, encoding: str = "utf-8"):
    return tables.read(text.encode(encoding), "t.csv")


def roles_of(text: str, **roles):
    return table_roles.apply(csv_of(text).table, roles)


def kinds(loaded) -> dict[str, str]:
    return {c["name"]: c["type"] for c in table_stats.schema(loaded.table)}


def test_a_csv_as_a_german_bank_writes_it_is_understood() -> None:
    loaded = csv_of("Datum;Betrag;Ort\n24.11.2026;1,50;Köln\n01.12.2026;;Ulm\n", "cp1252")
    assert loaded.source == {"format": "csv", "encoding": "cp1252", "delimiter": ";", "header": True}
    assert kinds(loaded) == {"Datum": "datetime", "Betrag": "number", "Ort": "string"}
    assert loaded.table.column("Betrag").to_pylist() == [1.5, None]
    assert str(loaded.table.column("Datum")[0]) == "2026-11-24 00:00:00"
    assert any("cp1252" in note for note in loaded.notes)


def test_encodings_delimiters_and_gzip() -> None:
    assert csv_of("\ufeffa\tb\n1\tx\n").table.column_names == ["a", "b"]
    assert csv_of("a|b\n1|é\n", "utf-16").table.to_pylist() == [{"a": 1, "b": "é"}]
    assert tables.read(gzip.compress(b"a,b\n1,2\n"), "t.csv.gz").table.to_pylist() == [{"a": 1, "b": 2}]
    with pytest.raises(BadInput, match="cut short"):
        tables.read(gzip.compress(b"a,b\n1,2\n" * 1000)[:-20], "t.csv.gz")


def test_without_a_header_columns_are_numbered_and_that_is_said() -> None:
    loaded = csv_of("1,2.5\n2,3.5\n")
    assert loaded.table.column_names == ["column_1", "column_2"] and loaded.table.num_rows == 2
    assert "no header" in loaded.notes[0]


def test_the_cell_that_keeps_a_column_from_being_numbers_is_named() -> None:
    loaded = csv_of("a,b\n" + "".join(f"{i},x\n" for i in range(50)) + "unknown,x\n")
    assert kinds(loaded)["a"] == "string"
    assert "row 51: 'unknown'" in loaded.notes[0]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"  \n \n", "is empty"),
        (b"a,b\n", "only a header"),
        (b"a,b,a\n1,2,3\n", r"same name: 'a' \(2 times\)"),
        (b"a,b\n1,2\n1,2,3\n", r"3 fields where 2 are expected: '1,2,3'"),
        (b"a,,c\n1,2,3\n", "Column 2 of t.csv has no name"),
        (b"PAR1\x00\x00\x00", "begins like Parquet"),
        (b"PK\x03\x04 and more", "spreadsheet"),
        (b"a,b\n1,\x00\n", "zero bytes"),
    ],
)
def test_broken_files_are_said_in_a_sentence(data: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        tables.read(data, "t.csv")


def test_too_large_and_too_wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CSV_BYTES", 10)
    with pytest.raises(TooLarge, match="11 bytes"):
        tables.read(b"a,b\n1,2\n3,4"[:11], "t.csv")
    monkeypatch.undo()
    wide = ",".join(f"c{i}" for i in range(3000))
    with pytest.raises(TooLarge, match="3000 columns"):
        tables.read(f"{wide}\n{wide}\n".encode(), "t.csv")


def test_parquet_round_trip_is_stable_and_types_are_ours() -> None:
    import datetime as dt

    import pyarrow as pa

    table = pa.table(
        {
            "d": pa.array([dt.date(2026, 1, 1), None]),
            "i": pa.array([1, 2], pa.int8()),
            "c": pa.array(["x", "y"]).dictionary_encode(),
            "z": pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), None]),
            "n": pa.nulls(2),
        }
    )
    loaded = tables.from_arrow(table)
    assert kinds(loaded) == {"d": "datetime", "i": "integer", "c": "string", "z": "datetime", "n": "number"}
    one, two = io.BytesIO(), io.BytesIO()
    table_parts.write(loaded.table, one)
    table_parts.write(tables.read(one.getvalue(), "x.parquet").table, two)
    assert one.getvalue() == two.getvalue()
    with pytest.raises(BadInput, match="Flatten"):
        tables.from_arrow(pa.table({"l": [[1], [2]]}))


def test_statistics_count_what_is_there() -> None:
    stats = table_stats.statistics(csv_of("x,c,w\n1.5,a,2026-01-01\n,b,2026-01-03\n3.5,a,2026-01-02\n").table)
    assert (stats["x"]["missing"], stats["x"]["min"], stats["x"]["max"], stats["x"]["mean"]) == (1, 1.5, 3.5, 2.5)
    assert sum(stats["x"]["histogram"]["counts"]) == 2 and len(stats["x"]["histogram"]["edges"]) == 21
    assert stats["c"]["top"] == [["a", 2], ["b", 1]]
    assert stats["w"]["max"].startswith("2026-01-03T00:00:00")


def test_a_missing_target_lists_columns_nearest_first() -> None:
    with pytest.raises(BadInput) as error:
        roles_of("credit_risk,age\n1,2\n0,3\n", target="Credit-Risk")
    assert "Did you mean 'credit_risk'" in error.value.hint and "age" in error.value.hint


@pytest.mark.parametrize(
    ("text", "roles", "says"),
    [
        ("y,x\n1,2\n1,3\n", {"target": "y"}, "one class only: '1' in all 2 rows"),
        ("y,x\n,2\n,3\n", {"target": "y"}, "no value in any row"),
        ("y,x\n1,2\n0,3\n", {"target": "y", "positive": "yes"}, "'yes' does not occur"),
        ("y,t\n1,2026-01-01\n0,2026-02-30x\n0,2026-02-01\n", {"target": "y", "time": "t"}, r"row 2: '2026-02-30x'"),
        ("y,t\n1,2026-01-01\n0,\n", {"target": "y", "time": "t"}, "no value in 1 rows, first in row 2"),
        ("y,t\n1,2026-01-01\n0,2026-01-02\n", {"target": "t"}, "holds dates"),
        ("y,t\n1,2\n0,3\n", {"target": "y", "colour": "t"}, "no role colour"),
        ("y,t\n1,2\n0,3\n", {"target": "y", "time": "y"}, "cannot be the target and the time"),
        ("y,x\n" + "".join(f"id{i},2\n" for i in range(40)), {"target": "y"}, "an id or free text"),
    ],
)
def test_roles_that_cannot_be_are_said(text: str, roles: dict, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        roles_of(text, **roles)


def test_tasks_are_told_from_the_target() -> None:
    def task(values) -> dict:
        return table_roles.infer_task(csv_of("y,x\n" + "".join(f"{v},1\n" for v in values)).table, "y")

    assert task(["good", "bad", "good"])["positive"] == "bad"
    assert task(["a"] * 3 + ["b"])["positive"] == "b"
    assert task([1.0, 0.0, 1.0])["classes"] == ["0", "1"]
    assert task(list(range(1, 4)) * 10)["task"] == "multiclass"
    assert task([i / 7 for i in range(50)])["task"] == "regression"
    assert "regression" in task(range(100))["why"]


def test_a_time_of_day_is_no_time_line() -> None:
    rows = "".join(f"{i % 12},{i % 2}\n" for i in range(120))
    _, roles, notes = roles_of("hour,y\n" + rows, target="y", time="hour")
    assert roles["time"] is None and "runs in cycles" in notes[0]
    _, roles, notes = roles_of("year,y\n" + "".join(f"{2000 + i // 10},{i % 2}\n" for i in range(120)), target="y", time="year")
    assert roles["time"] == "year" and not notes


def test_a_contract_lists_violations_by_row() -> None:
    table = csv_of("age,kind,id\n17,a,1\n30,z,2\n,a,2\n").table
    contract = {"columns": {"age": {"type": "number", "min": 18, "required": True}, "kind": {"categories": ["a", "b"]}, "id": {"unique": True}}}
    report = contracts.check_contract(table, contract)
    assert report["counts"] == {"age: required": 1, "age: min": 1, "kind: categories": 1, "id: unique": 2} and report["total"] == 5
    assert [(v["row"], v["column"]) for v in report["violations"]] == [(1, "age"), (2, "id"), (2, "kind"), (3, "age"), (3, "id")]
    with pytest.raises(BadInput, match="5 places: row 1: 'age' is under 18") as error:
        contracts.need_contract(table, contract, "t.csv")
    assert len(error.value.details["violations"]) == 5
    assert not contracts.check_contract(table, {"columns": {"income": {"required": True}}})["ok"]
    with pytest.raises(BadInput, match="unknown rules: maximum"):
        contracts.check_contract(table, {"columns": {"age": {"maximum": 3}}})


def test_the_real_files_need_nothing_but_the_target(shared_data: Path) -> None:
    for file, target in (("credit/german_credit.csv", "credit_risk"), ("credit/adult_test.csv", "class"), ("drift/elec2_first_half.csv", "class")):
        loaded = tables.read(shared_data / file)
        _, roles, _ = table_roles.apply(loaded.table, {"target": target})
        assert roles["positive"] in ("1", ">50K.")
    adult = tables.read(shared_data / "credit/adult_test.csv").table
    assert adult.column("workclass").null_count > 500
    _, roles, notes = table_roles.apply(loaded.table, {"target": "class", "time": "period"})
    assert roles["time"] is None and "time of day" in notes[0]
