"""Two versions of a table compared: names that SQL would take for one another, and keys whose type changed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everloop.assets import table_diff, table_parts
from everloop.core.errors import BadInput


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


def _naive(old: dict[int, tuple[Any, ...]], new: dict[int, tuple[Any, ...]]) -> dict[str, int]:
    both = old.keys() & new.keys()
    changed = sum(old[k] != new[k] for k in both)
    return {"added": len(new.keys() - old.keys()), "removed": len(old.keys() - new.keys()), "changed": changed, "same": len(both) - changed}


def _stored(path: Path, rows: dict[int, tuple[Any, ...]], order: list[int]) -> dict[str, Any]:
    columns = {
        "id": pa.array(order, pa.int64()),
        "n": pa.array([rows[k][0] for k in order], pa.int64()),
        "s": pa.array([rows[k][1] for k in order], pa.string()),
    }
    table_parts.write(pa.table(columns), path)
    schema = [{"name": "id", "type": "integer"}, {"name": "n", "type": "integer"}, {"name": "s", "type": "string"}]
    return {"schema": schema, "rows": len(order)}


@pytest.mark.parametrize("seed", range(12))
def test_any_two_versions_differ_as_a_naive_comparison_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(table_parts, "TABLE_STEP_ROWS", 256)
    monkeypatch.setattr(table_parts, "TABLE_GROUP_ROWS", 512)
    monkeypatch.setattr(table_diff, "DIFF_PART_BYTES", 10_000 if seed % 2 else table_diff.DIFF_PART_BYTES)  # many parts, or one
    rng = random.Random(seed)
    n = rng.choice([0, 1, 700, 3000])
    old = {k: (rng.choice([None, *range(5)]), rng.choice([None, "a", "b", ""])) for k in range(n)}
    new = dict(old)
    for k in rng.sample(range(n), rng.choice([0, n // 100, n // 2]) if n else 0):
        if rng.random() < 0.5:
            del new[k]
        else:
            new[k] = (rng.choice([None, *range(5)]), "c")
    new |= {n + i: (i, "new") for i in range(rng.choice([0, 1, 600]))}
    order = list(new)
    if rng.random() < 0.4:
        rng.shuffle(order)
    manifests = _stored(tmp_path / "old.parquet", old, list(old)), _stored(tmp_path / "new.parquet", new, order)
    files = tmp_path / "old.parquet", tmp_path / "new.parquet"
    found = table_diff.rows(*files, *manifests, key=["id"], asked=True, scratch=tmp_path / "scratch", limit=3)
    assert {k: found[k] for k in ("added", "removed", "changed", "same")} == _naive(old, new)
    by_content = table_diff.rows(*files, *manifests, key=[], asked=False, scratch=tmp_path / "scratch", limit=3)
    one, two = Counter((k, *v) for k, v in old.items()), Counter((k, *v) for k, v in new.items())
    wanted = {"added": (two - one).total(), "removed": (one - two).total(), "same": (one & two).total()}
    assert {k: by_content[k] for k in ("added", "removed", "same")} == wanted


def test_groups_that_are_the_same_bytes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_parts, "TABLE_STEP_ROWS", 256)
    monkeypatch.setattr(table_parts, "TABLE_GROUP_ROWS", 512)
    old = {k: (k % 7, f"w{k % 50}") for k in range(5120)}
    new = old | {2000: (99, "w"), 9999: (1, "new")}
    manifests = _stored(tmp_path / "old.parquet", old, list(old)), _stored(tmp_path / "new.parquet", new, list(new))
    files = tmp_path / "old.parquet", tmp_path / "new.parquet"
    found = table_diff.rows(*files, *manifests, key=["id"], asked=True, scratch=tmp_path / "scratch", limit=3)
    assert found["skipped"] == 9 * 512 and (found["added"], found["changed"], found["same"]) == (1, 1, 5119)
    assert found["examples"]["changed"] == [{"key": {"id": 2000}, "changes": {"n": {"from": 5, "to": 99}, "s": {"from": "w0", "to": "w"}}}]
    twice = old | {5000: (1, "x")}
    _stored(tmp_path / "new.parquet", twice, [*twice, 3])
    with pytest.raises(BadInput, match="3 stands 2 times in the newer version"):
        table_diff.rows(*files, *manifests, key=["id"], asked=True, scratch=tmp_path / "scratch", limit=3)


DIFF = """
import re, sys
from pathlib import Path
from everloop.assets import table_diff, table_stats
from everloop.assets.table_parts import Stored
old, new, scratch = map(Path, sys.argv[1:4])
table_diff.DIFF_MEMORY = "200MB"
manifests = [{"schema": table_stats.schema(Stored(f)), "rows": Stored(f).num_rows} for f in (old, new)]
found = table_diff.rows(old, new, *manifests, key=["id"], asked=True, scratch=scratch, limit=5)
print(found["added"], found["removed"], found["changed"], found["skipped"], int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)
"""


@pytest.mark.check
def test_versions_larger_than_memory_are_compared_in_bounded_memory(tmp_path: Path) -> None:
    import numpy as np

    n, rng = 4_000_000, np.random.default_rng(1)
    columns = {"id": rng.permutation(n), **{f"x{i}": rng.normal(size=n) for i in range(8)}}
    table_parts.write(pa.table(columns), tmp_path / "old.parquet")
    columns = {name: values[::-1][:-1000].copy() for name, values in columns.items()}  # the other way round: no group is shared
    columns["x3"][:500] += 1
    table_parts.write(pa.table(columns), tmp_path / "new.parquet")
    done = subprocess.run(
        [sys.executable, "-c", DIFF, *(str(tmp_path / name) for name in ("old.parquet", "new.parquet", "scratch"))], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    added, removed, changed, skipped, peak = map(int, done.stdout.split())
    assert (added, removed, changed, skipped) == (0, 1000, 500, 0) and peak < 500, f"{peak} MB at its peak"
