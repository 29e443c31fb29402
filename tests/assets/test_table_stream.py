"""Tables that are added in batches: the same as one read whole, in bounded memory."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from everloop.assets import contracts, table_parts, table_roles, table_stats, table_stream, tables
from everloop.core import limits
from everloop.core.errors import BadInput


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, steps and groups so small that a small table has many."""
    monkeypatch.setattr(table_stream, "TABLE_BLOCK_BYTES", 2_000)
    monkeypatch.setattr(table_parts, "TABLE_STEP_ROWS", 256)
    monkeypatch.setattr(table_parts, "TABLE_GROUP_ROWS", 1_000)


def staged(path: Path, **more: Any) -> tuple[table_parts.Stored, dict[str, Any], list[str]]:
    return table_stream.stage(path, path.name, path.with_name("staged.parquet"), path.with_name("unpacked"), **more)


COLUMNS = {
    "numbers": lambda i: str(i),
    "halves late": lambda i: f"{i}.5" if i > 1500 else str(i),
    "words late": lambda i: "unknown" if i == 1900 else str(i),
    "empty at first": lambda i: str(i) if i > 1000 else "",
    "never": lambda i: "",
    "german": lambda i: f"{1 + i % 28:02}.{1 + i % 12:02}.2026",
    "either": lambda i: f"{1 + i % 12:02}/{1 + i % 12:02}/2026",
    "day at last": lambda i: "31/12/2026" if i == 1999 else f"{1 + i % 12:02}/{1 + i % 12:02}/2026",
    "month at last": lambda i: "12/31/2026" if i == 1999 else f"{1 + i % 12:02}/{1 + i % 12:02}/2026",
    "no date at last": lambda i: "soon" if i == 1999 else "24.11.2026",
    "date late": lambda i: "" if i < 1500 else "24.11.2026",
    "iso": lambda i: f"2026-11-{1 + i % 28:02}T08:00:00Z",
    "flags": lambda i: "true" if i % 3 else "false",
    "text": lambda i: f'"a, ""b"" {i}"',
}


@pytest.mark.parametrize("chosen", [list(COLUMNS), ["numbers", "iso", "flags", "text", "german", "either"], ["text", "date late"]])
def test_a_csv_in_batches_is_what_it_is_whole(tmp_path: Path, small_steps: None, chosen: list[str]) -> None:
    path = tmp_path / "t.csv"
    rows = [",".join(COLUMNS[c](i) for c in chosen) for i in range(2000)]
    path.write_text(",".join(chosen) + "\n" + "\n".join(rows) + "\n")
    whole = tables.read(path)
    found, told, notes = staged(path)
    assert found.schema.equals(whole.table.schema) and told == whole.source and sorted(notes) == sorted(whole.notes)
    assert found.slice(0, 5000).equals(whole.table) and len([*found.parts()]) > 1
    assert found.slice(990, 300).equals(whole.table.slice(990, 300))
    table_parts.write(whole.table, tmp_path / "whole.parquet")
    assert (tmp_path / "whole.parquet").read_bytes() == found.file.read_bytes()


def test_decimal_commas_gzip_and_windows_letters_in_batches(tmp_path: Path, small_steps: None) -> None:
    path = tmp_path / "t.csv.gz"
    text = "a;ö\n" + "1,5;Ulm\n" + "".join(f"{i};Köln\n" for i in range(999)) + "".join(f"{i},5;Köln\n" for i in range(1000))
    path.write_bytes(gzip.compress(text.encode("cp1252")))
    found, told, notes = staged(path)
    assert told["encoding"] == "cp1252" and found.column("a")[1999].as_py() == 999.5 and found.column("ö")[1].as_py() == "Köln"
    assert "not UTF-8" in notes[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInput, match="cut short"):
        staged(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n" + "1,2\n" * 2000 + "1,2,3\n", "Line 2002 of t.csv has 3 fields where 2 are expected"),
        ("a,b,a\n" + "1,2,3\n" * 2000, "same name"),
        ("a,b\n", "only a header"),
    ],
)
def test_what_is_wrong_far_behind_is_said(tmp_path: Path, small_steps: None, text: str, says: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        staged(path)


def test_parquet_and_arrow_in_batches(tmp_path: Path, small_steps: None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"n": pa.array(range(3000), pa.int16()), "c": pa.array(["x", None, "y"] * 1000).dictionary_encode()})
    late = table.append_column("d", pa.array([None] * 2999 + ["24.11.2026"]))
    pq.write_table(late, tmp_path / "t.parquet", row_group_size=700)
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), late.schema) as file:
        file.write_table(late)
    with pa.ipc.new_stream(str(tmp_path / "s.arrow"), late.schema) as stream:
        stream.write_table(late, max_chunksize=100)
    for name in ("t.parquet", "t.arrow", "s.arrow"):
        found, _, _ = staged(tmp_path / name)
        assert found.slice(0, 3000).equals(tables.read(tmp_path / name).table) and str(found.schema.field("d").type) == "timestamp[us]"
    pq.write_table(pa.table({"l": [[1]] * 10}), tmp_path / "n.parquet")
    with pytest.raises(BadInput, match="Flatten"):
        staged(tmp_path / "n.parquet")


def test_statistics_tasks_and_contracts_of_parts_are_those_of_the_whole(tmp_path: Path, small_steps: None) -> None:
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(3)
    n = 5000
    table = pa.table(
        {
            "x": pa.array(rng.normal(1e6, 2, n), mask=rng.random(n) < 0.1),
            "k": rng.integers(0, 7, n),
            "c": pa.array([f"w{i % 90}" for i in range(n)]),
            "u": pa.array([str(i if i != 4000 else 3) for i in range(n)]),
            "t": pa.array(np.arange(n) * 1_000_000, pa.timestamp("us")),
        }
    )
    table_parts.write(table, tmp_path / "t.parquet")
    stored = table_parts.Stored(tmp_path / "t.parquet")
    whole, found = table_stats.statistics(table), table_stats.statistics(stored, tmp_path)
    for name in table.column_names:
        for key in whole[name]:
            if key in ("mean", "std") and whole[name][key] is not None:
                assert found[name][key] == pytest.approx(whole[name][key], rel=1e-12)
            elif "estimated" not in found[name]:
                assert found[name][key] == whole[name][key]
    assert table_stats.schema(stored) == table_stats.schema(table)
    for target in ("k", "c", "x"):
        assert table_roles.infer_task(stored, target) == table_roles.infer_task(table, target)
    assert table_roles.apply(stored, {"time": "t"})[1]["time"] == "t"
    contract = {
        "columns": {
            "x": {"min": 1e6, "missing": 0.01},
            "c": {"pattern": "w[0-8]?[0-9]", "categories": [f"w{i}" for i in range(89)]},
            "u": {"unique": True},
        },
        "unique": [["k", "u"]],
    }
    put: dict[str, bytes] = {}

    def kept(name: str) -> Any:
        def keep(file: Any) -> tuple[str, int]:
            put[name] = file.read()
            return name, len(put[name])

        return keep

    contract["on_violation"] = "record"
    one = contracts.need_contract(table, contract, "t", kept("whole"))
    two = contracts.need_contract(stored, contract, "t", kept("parts"), tmp_path)
    assert one is not None and two is not None
    assert one["counts"] == two["counts"] and one["violations"] == two["violations"] and one["counts"]["u: unique"] == 2
    assert sorted(put["whole"].splitlines()) == sorted(put["parts"].splitlines()) and len(put["parts"].splitlines()) == two["total"]


def test_many_different_values_are_estimated_and_said_to_be(tmp_path: Path, small_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    monkeypatch.setattr(table_stats, "TABLE_DISTINCT", 1000)
    words = [f"w{i}" if i % 2 else "common" for i in range(20_000)]
    table_parts.write(pa.table({"c": words, "x": [i / 3 for i in range(20_000)]}), tmp_path / "t.parquet")
    found = table_stats.statistics(table_parts.Stored(tmp_path / "t.parquet"), tmp_path)
    assert found["c"]["estimated"] == ["distinct", "top"] and found["c"]["top"][0] == ["common", 10_000]
    assert 9_000 < found["c"]["distinct"] < 11_000 and 18_000 < found["x"]["distinct"] < 22_000 and found["x"]["estimated"] == ["distinct"]


def test_dates_in_a_time_column_are_needed_all_along(tmp_path: Path, small_steps: None) -> None:
    path = tmp_path / "t.csv"
    path.write_text("t,y\n" + "".join(f"{'2026-11-24 08:00' if i != 1500 else 'soon'},{i % 2}\n" for i in range(2000)))
    found, _, _ = staged(path, time="t")
    with pytest.raises(BadInput, match=r"row 1501: 'soon'.*1,999 other values.*1 rows are wrong"):
        table_roles.apply(found, {"time": "t"})
    path.write_text("hour,y\n" + "".join(f"{i % 24},{i % 2}\n" for i in range(2000)))
    assert "runs in cycles (it falls back from 23 to 0, 83 times)" in table_roles.apply(staged(path)[0], {"time": "hour"})[2][0]


ADD = """
import re, sys
from pathlib import Path
from everloop.core.settings import Settings
from everloop.workspace.workspace import Workspace
from everloop.workspace.data import Data
home, source = Path(sys.argv[1]), Path(sys.argv[2])
ws = Workspace(Settings(home=home, workers=0))
made = Data(ws)._prepare("default", source, source.name, {"target": "k"}, {"columns": {"id": {"unique": True}, "x0": {"required": True}}}, {}, None)
print(made["rows"], int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)
"""


@pytest.mark.check
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_large_table_is_added_in_bounded_memory(tmp_path: Path, form: str) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    n, at = 200_000, 0
    path = tmp_path / f"big.{form}"
    writer: Any = None
    while not path.exists() or path.stat().st_size < 600_000_000:
        columns = {"id": np.arange(at, at + n), **{f"x{i}": rng.normal(size=n) for i in range(4)}, "k": rng.integers(0, 9, n)}
        table = pa.table({**columns, "s": pa.array([f"customer {i:012}" for i in range(at, at + n)])})
        writer = writer or (pc.CSVWriter(str(path), table.schema) if form == "csv" else pq.ParquetWriter(str(path), table.schema))
        writer.write_table(table)
        at += n
    writer.close()
    done = subprocess.run([sys.executable, "-c", ADD, str(tmp_path / "home"), str(path)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    rows, peak = map(int, done.stdout.split())
    assert rows == at and peak < 800, f"{peak} MB at its peak"
    assert path.stat().st_size > limits.TABLE_MEMORY_BYTES
