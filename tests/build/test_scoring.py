"""Batch scoring: chunks, rows that cannot be scored, lineage, a release without an endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from everloop.build import scoring
from everloop.core.errors import BadInput, NotFound
from everloop.engines.fit import as_wanted, fitting
from tests.build.test_tabular import walk
from tests.web.test_data import client  # noqa: F401 - a fixture


def loans(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"id": [f"L{i}" for i in range(n)], "income": rng.normal(3000, 800, n).round(), "kind": rng.choice(["a", "b", "7"], n)})
    return frame.assign(bad=(frame.income + rng.normal(0, 500, n) < 2700).astype(int))


def score(client: Any, **params: Any) -> dict[str, Any]:  # noqa: F811
    run = client.runs.start("score")
    try:
        return scoring.score(SimpleNamespace(params=params, inputs={}, client=client, run=run, log=print)) | {"run": run.id}
    finally:
        run.finish()


def test_a_dataset_is_scored_in_chunks_with_ids_and_lineage(client, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(scoring, "SCORE_CHUNK", 100)
    walk(client, data=loans(900), target="bad", id="id")
    client.endpoints.put("m", "predict", release="m")
    fresh = loans(250).drop(columns="bad")
    fresh["income"] = fresh.income.astype(object)
    fresh.loc[3, "income"], fresh.loc[120, "income"], fresh.loc[7, "kind"] = "unknown", "n.k.", None
    client.data.add("fresh", fresh.astype(str), id="id", roles={})
    done = score(client, endpoint="m", dataset="dataset:fresh")
    assert (done["rows"], done["scored"], done["refused"], done["out"]) == (250, 248, 2, "dataset:m-scored@1")
    assert done["refused_rows"][1] == {"row": 121, "column": "income", "why": "column 'income': found the text 'n.k.', wanted a number."}
    assert len(client.runs.get_artifact(done["run"], "refused.jsonl").splitlines()) == 2 and len(done["traces"]) == 3
    out = client.data.frame(done["out"])
    assert list(out.columns) == ["row", "id", "prediction", "probability_0", "probability_1", "prediction_id"] and 4 not in set(out.row)
    why = json.dumps(client.why(out.prediction_id[150]))
    assert "release:m@1" in why and "dataset:d@1" in why
    lineage = json.dumps(client.why(done["out"])["nodes"])
    assert "dataset:fresh@1" in lineage and "release:m@1" in lineage


def test_a_file_through_a_release_itself(client, tmp_path: Path) -> None:  # noqa: F811
    walk(client, data=loans(900), target="bad", id="id", params={"promote": False})
    loans(20).to_csv(tmp_path / "in.csv", index=False)
    done = score(client, release="release:m@1", file=str(tmp_path / "in.csv"), out_file=str(tmp_path / "o/out.parquet"), inputs=True)
    out = pd.read_parquet(done["out"])
    assert len(out) == 20 and {"income", "prediction", "bad"} <= set(out.columns) and client.why(out.prediction_id[0])["nodes"]
    for params, says in (
        ({"endpoint": "m", "release": "m", "dataset": "d"}, "what scores the rows"),
        ({"release": "m@1"}, "Say which rows"),
        ({"release": "m@1", "dataset": "d", "absent": "skip"}, "absent is 'skip'"),
        ({"release": "m@1", "file": str(tmp_path / "none.csv")}, "cannot be read"),
    ):
        with pytest.raises(BadInput, match=says):
            score(client, **params)
    client.endpoints.put("m", "predict", release="m")
    with pytest.raises(NotFound, match="Nothing is live"):
        score(client, endpoint="m", dataset="dataset:d")
    loans(20).drop(columns="kind").to_csv(tmp_path / "narrow.csv", index=False)
    with pytest.raises(BadInput, match="narrow.csv lacks 1 of the 2 columns that release:m@1 takes: kind"):
        score(client, release="m@1", file=str(tmp_path / "narrow.csv"))
    assert score(client, release="m@1", file=str(tmp_path / "narrow.csv"), out_file=str(tmp_path / "n.parquet"), absent="missing")["scored"] == 20
    loans(20).assign(income="much").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(BadInput, match="None of the 20 rows .* row 1: column 'income': found the text 'much'"):
        score(client, release="m@1", file=str(tmp_path / "bad.csv"))
    assert [d["name"] for d in client.data.list(search="scored")] == []


def test_only_the_rows_that_fit_are_kept_and_other_spellings_are_read() -> None:
    signature = {"inputs": [{"name": "n", "type": "integer"}, {"name": "t", "type": "string", "required": False}]}
    keep, refused = fitting({"n": [1, None, 2.5, 4], "t": ["a", "b", "c", 5]}, 4, signature)
    assert keep == [0] and [(r["row"], r["column"]) for r in refused] == [(1, "n"), (2, "n"), (3, "t")]
    with pytest.raises(BadInput, match="column 'n' is missing"):
        fitting({"t": ["a"]}, 1, signature)
    assert as_wanted(["12", "1.5", "x", "", 3], "number") == [12, 1.5, "x", None, 3]
    assert as_wanted([7, 7.0, True, None], "string") == ["7", "7", "true", None]
    assert as_wanted(["True", "0", "maybe"], "boolean") == [True, False, "maybe"]
