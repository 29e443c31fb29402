"""A table that cannot be used: one sentence that says what, where and what to do, exit code 2, problem+json with 400, and nothing registered."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from everloop.build import tabular
from everloop.core.errors import BadInput, NotFound
from tests.cli.helpers import Run, run  # noqa: F401 - a fixture
from tests.web.test_data import client  # noqa: F401 - a fixture

GOOD = "when,income,bad\n2026-01-01,10,0\n2026-01-02,20,1\n2026-01-03,30,0\n"
BAD = {
    "missing target": (GOOD.replace("bad", "badly"), "The target column 'bad' is not in the table.", "Did you mean 'badly'?"),
    "one class": (GOOD.replace(",1\n", ",0\n"), "'bad' has one class only: '0' in all 3 rows", "at least two classes"),
    "no date": (GOOD.replace("2026-01-02", "soon"), "'when' does not parse as a date in row 2: 'soon'", "2026-11-24"),
    "empty": ("", "loans.csv is empty", "header line"),
    "header only": ("when,income,bad\n", "has no rows (only a header)", "at least one row"),
    "duplicate header": (GOOD.replace("income", "bad"), "columns with the same name: 'bad' (2 times)", "Rename"),
    "ragged": (GOOD + "2026-01-04,40\n", "2 fields where 3 are expected: '2026-01-04,40'", "fix the line"),
    "target all missing": ("when,income,bad\n2026-01-01,10,\n2026-01-02,20,\n", "'bad' has no value in any row", "another target"),
    "encoding": (GOOD.encode("utf-16-le"), "loans.csv holds zero bytes", "CSV file (text)"),
    "not a table": (b"PK\x03\x04" + b"x" * 100, "spreadsheet", "Save the sheet as CSV"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_said_in_a_sentence(client, run: Run, tmp_path: Path, name: str) -> None:  # noqa: F811
    text, what, do = BAD[name]
    file = tmp_path / "loans.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, err = run("data", "add", "loans", str(file), "--target", "bad", "--time", "when")
    assert code == 2 and what in err and do in err and "Traceback" not in err
    assert err.count("\n") <= 3
    with pytest.raises(BadInput) as refused:
        client.data.add("loans", file, target="bad", time="when")
    assert what in str(refused.value) and refused.value.status == 400
    assert client.data.list() == [] and client.assets.list()["items"] == []


def learn(client, frame: pd.DataFrame, params: dict | None = None, **roles) -> dict:  # noqa: F811
    """Validate and split, as the pipeline does."""
    client.data.add("d", frame, **roles)
    made, inputs = client.runs.start("t"), {}
    try:
        for name in ("validate", "split"):
            step = SimpleNamespace(params={"name": "m", "dataset": "dataset:d", **(params or {})}, inputs=inputs, client=client, run=made, log=print)
            inputs[name] = getattr(tabular, name)(step)
    finally:
        made.finish()
    return inputs


def loans(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"income": rng.normal(size=n), "kind": rng.choice(["a", "b"], n), "same": 1, "number": np.arange(n)})
    frame["name"] = [f"customer {i}" for i in range(n)]
    return frame.assign(bad=(frame.income + rng.normal(size=n) > 0.5).astype(int))


def test_too_few_rows_and_leaks_stop_the_pipeline(client) -> None:  # noqa: F811
    with pytest.raises(BadInput, match=r"dataset:d@1 has 10 rows with a value in 'bad'; at least 50 are needed.*Load more rows"):
        learn(client, loans(10), target="bad")
    late = loans().assign(closed=lambda f: np.where(f.bad == 1, "written off", "paid"))
    with pytest.raises(BadInput, match=r"Column 'closed' alone tells the target 'bad': balanced accuracy 1.000.*leave_out.*keep") as refused:
        learn(client, late, target="bad")
    assert {f["check"] for f in refused.value.details["findings"]} >= {"leak", "constant", "id_like"}
    names = [a["name"] for a in client.assets.list()["items"]]
    assert names == ["d"]
    assert learn(client, late, {"keep": ["closed"]}, target="bad")["validate"]["left_out"].keys() == {"same", "number", "name"}
    assert "closed" in learn(client, late, {"leave_out": ["closed"]}, target="bad")["validate"]["left_out"]
    with pytest.raises(BadInput, match="Column 'twice' alone tells the target 'income'"):
        learn(client, loans().assign(twice=lambda f: 3 - 2 * f.income), target="income")


def test_warnings_go_along_and_late_labels_are_left_out(client) -> None:  # noqa: F811
    frame = loans()
    frame["when"] = pd.date_range("2026-01-01", periods=len(frame), freq="h")
    frame["bad"] = frame.bad.astype(object)
    frame.loc[380:, "bad"] = None
    frame.loc[5, "bad"] = None
    frame.loc[40:60, ["income", "kind", "when", "bad"]] = frame.loc[40, ["income", "kind", "when", "bad"]].tolist()
    inputs = learn(client, frame.drop(columns=["number", "name"]), target="bad", time="when")
    found = {f["check"]: f for f in inputs["validate"]["findings"]}
    assert "20 rows from 2026-01-16 20:00:00 on have no 'bad' yet" in found["label_delay"]["what"] and found["label_delay"]["level"] == "note"
    assert found["missing_target"]["what"].startswith("1 rows") and found["duplicates"]["what"].startswith("20 of 400")
    assert inputs["validate"]["labelled"] == 379 and inputs["split"]["by"] == "time"
    assert client.data.frame("m-train").when.max() < client.data.frame("m-holdout").when.min()


def test_a_split_keeps_every_row_on_its_side_and_every_class_on_both(client) -> None:  # noqa: F811
    frame = loans(600).drop(columns=["number", "name"]).sort_values("bad")
    first = learn(client, frame, target="bad")["split"]
    assert first["by"] == "hash" and set(client.data.frame("m-holdout").bad) == {0, 1}
    held = set(client.data.frame("m-holdout").income)
    more = pd.concat([loans(900).drop(columns=["number", "name"]).tail(300), frame]).sample(frac=1, random_state=1)
    second = learn(client, more, target="bad")["split"]
    assert second["suite"] == "suite:m@2" and held <= set(client.data.frame("m-holdout").income)
    with pytest.raises(BadInput, match="All 4.. rows to train have 'bad' = '0'"):
        learn(client, frame.assign(bad=[0] * 450 + [1] * 150), {"order": "rows"}, target="bad")
    rare = loans(600).drop(columns=["number", "name"])
    rare["bad"] = np.where(np.arange(600) < 596, np.where(rare.bad == 1, "x", "y"), "z")
    learn(client, rare, target="bad")
    assert set(client.data.frame("m-holdout").bad) == set(client.data.frame("m-train").bad) == {"x", "y", "z"}
    with pytest.raises(NotFound):
        client.assets.get("model:m")
