"""Two versions of a table compared: names that SQL would take for one another, and keys whose type changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.assets import table_diff


def _diff(folder: Path, old: dict[str, list[Any]], new: dict[str, list[Any]], key: list[str]) -> dict[str, Any]:
    kinds = {int: "integer", str: "string"}
    manifests = []
    for name, table in (("old", old), ("new", new)):
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
        schema = [{"name": column, "type": kinds[type(values[0])]} for column, values in table.items()]
        manifests.append({"schema": schema, "rows": len(next(iter(table.values())))})
    files = folder / "old.parquet", folder / "new.parquet"
    return table_diff.rows(*files, *manifests, key=key, asked=True, scratch=folder / "scratch", limit=10)


def test_columns_that_differ_by_case_alone_are_told_apart(tmp_path: Path) -> None:
    old = {"id": [1, 2], "v": [1, 2], "V": [10, 20], "__in_a": [1, 1]}
    new = {**old, "V": [10, 99]}
    found = _diff(tmp_path, old, new, ["id"])
    assert (found["changed"], found["same"], found["columns"]) == (1, 1, {"V": 1})
    assert found["examples"]["changed"] == [{"key": {"id": 2}, "changes": {"V": {"from": 20, "to": 99}}}]
    by_content = _diff(tmp_path, old, new, [])
    assert (by_content["added"], by_content["removed"]) == (1, 1) and by_content["examples"]["added"] == [{"id": 2, "v": 2, "V": 99, "__in_a": 1}]


def test_a_key_whose_type_changed_is_matched_as_text(tmp_path: Path) -> None:
    found = _diff(tmp_path, {"id": [1, 2], "v": [5, 6]}, {"id": ["2", "x"], "v": [7, 8]}, ["id"])
    assert (found["added"], found["removed"], found["changed"], found["same"]) == (1, 1, 1, 0)
    assert found["examples"]["added"] == [{"id": "x", "v": 8}]
