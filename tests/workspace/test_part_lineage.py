"""What one row or document reached: through the tabular pipeline, an index and its updates, labels, loads, and a user's own declarations."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from everloop.build import index, tabular
from everloop.cli import lineage, screen
from everloop.core.errors import BadInput, NotFound
from tests.web.test_data import client  # noqa: F401 - a fixture


def loans(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    income, age = rng.normal(50, 12, n), rng.integers(20, 70, n)
    bad = pd.array((rng.random(n) < 1 / (1 + np.exp((income - 45) / 6))).astype(int), dtype="Int64")
    bad[7] = pd.NA
    return pd.DataFrame({"customer": [f"C{i:04}" for i in range(n)], "income": income, "age": age, "bad": bad})


def step(client, inputs: dict, **params):  # noqa: F811
    run = client.runs.start("step")
    return SimpleNamespace(params=params, inputs=inputs, client=client, run=run, log=lambda text: None)


def trained(client, dataset: str) -> dict:  # noqa: F811
    """All steps of the tabular pipeline, in this process."""
    done: dict = {}
    for name in ("validate", "split", "train", "release", "gate"):
        at = step(client, dict(done), dataset=dataset, name="credit", gate={"requirements": ["auc >= 0.5"], "approval": "never"})
        done[name] = getattr(tabular, name)(at)
        at.run.finish()
    return done


def test_which_models_saw_this_applicants_row(client) -> None:  # noqa: F811
    frame = loans()
    client.data.add("loans", frame, target="bad", id="customer")
    done = trained(client, "dataset:loans")
    client.endpoints.put("credit", "predict", release="credit")
    sides = {side: set(client.data.frame(done["split"][side])["customer"]) for side in ("train", "holdout")}
    learnt, held = next(c for c in frame.customer if c in sides["train"]), next(c for c in frame.customer if c in sides["holdout"])
    client.traces.get(client.endpoints.predict("credit", [{"income": 30.0, "age": 40}])["trace_id"])

    found = client.impact(f"dataset:loans@1#row={learnt}")
    reach = {node["ref"]: node["reach"] for node in found["nodes"]}
    assert reach["dataset:credit-train@1"] == reach["model:credit@1"] == reach["release:credit@1"] == "yes" and not found["upper_bound"]
    there = next(node for node in found["nodes"] if node["ref"] == "dataset:credit-train@1")["rows"]
    assert client.data.frame("dataset:credit-train@1")["customer"][there[0]] == learnt and len(there) == 1
    assert {node["ref"] for node in found["not_reached"]} == {"dataset:credit-holdout@1", "suite:credit@1"}
    assert found["live"][0]["endpoint"] == "credit" and found["answers"] == {"release:credit@1": 1} and not found["decisions"]

    found = client.impact(f"dataset:loans@1#row={held}")
    gone = {node["ref"]: node["why"] for node in found["not_reached"]}
    assert {"dataset:credit-train@1", "model:credit@1", "release:credit@1"} <= set(gone)
    assert "held out in dataset:credit-holdout@1" in gone["dataset:credit-train@1"]
    assert "dataset:credit-train@1, not reached either" in gone["model:credit@1"]
    assert found["live"] == [] and not any(found["answers"].values()) and [d["ref"] for d in found["decisions"]] == ["release:credit@1"]

    found = client.impact("dataset:loans@1#number=7")  # without a label
    assert [n for n in found["nodes"] if n["reach"] == "yes"] == [n for n in found["nodes"] if n["ref"] == "dataset:loans@1"]
    assert "1 rows have no label" in found["not_reached"][0]["why"]
    assert "learnt from" in next(n for n in client.why("release:credit@1")["nodes"] if n["kind"] == "model")["title"]
    page = client._http.get_bytes(f"/ui/lineage?ref=dataset:loans@1%23row={held}").decode()
    assert "Did not reach" in page and "held out in" in page


def test_a_gate_asks_a_part_and_a_pipeline_learns_from_another(client) -> None:  # noqa: F811
    client.data.add("loans", loans(), target="bad", id="customer", splits={"parts": {"train": 0.7, "test": 0.3}, "seed": 1})
    with pytest.raises(BadInput, match="has no split 'holdout'") as error:
        client.suites.put("fair", dataset="dataset:loans@1#holdout", task="binary", target="bad")
    assert "train, test" in error.value.hint
    suite = client.suites.put("fair", dataset="dataset:loans@latest#test", task="binary", target="bad")
    assert suite["manifest"]["dataset"] == "dataset:loans@1#test" and suite["manifest"]["part"] == {"name": "test", "rows": 120, "of": 400}
    client.gates.declare("release", "credit", "champion", suite="suite:fair", requirements=["auc >= 0.5"])
    done = trained(client, "dataset:loans@1#train")
    assert done["gate"]["seen_by_challenger"] == 0
    decision = client.gates.decision(done["gate"]["decision"])
    assert decision["spec"]["suite_part"] == {"dataset": "dataset:loans@1#test", "name": "test", "rows": 120, "of": 400}
    unlabelled = int(client.data.frame("dataset:loans@1#test")["bad"].isna().sum())
    assert decision["scores"][0]["n"] == 120 - unlabelled
    told = client.data.dataset("loans@1#train").pandas()
    rows = client.data.frame(done["split"]["train"])
    assert set(rows.customer) < set(told.customer)
    found = client.impact("dataset:loans@1#test")
    assert {n["ref"] for n in found["nodes"] if n["reach"] == "yes"} == {"dataset:loans@1", "suite:fair@1"} and not found["upper_bound"]
    assert "model:credit@1" in {n["ref"] for n in found["not_reached"]} and found["part"]["count"] == 120
    found = client.impact(f"dataset:loans@1#row={rows.customer[0]}")
    assert "model:credit@1" in {n["ref"] for n in found["nodes"]} and "suite:fair@1" in {n["ref"] for n in found["not_reached"]}


def test_which_index_versions_contain_this_document(client) -> None:  # noqa: F811
    pages = {f"page-{i}.md": f"# Page {i}\n\nThe animal of this page is number {i}, a beast of burden.".encode() for i in range(20)}

    def build(files: dict) -> str:
        client.data.add_documents("zoo", files)
        at = step(client, {}, documents="dataset:zoo", name="zoo", update=True)
        made = index.build(at)["index"]
        at.run.finish()
        return made

    build(pages)
    changed = {**pages, "page-3.md": b"# Page 3\n\nHere lives the okapi."}
    del changed["page-5.md"]
    assert build(changed) == "index:zoo@2"
    assert build({**changed, "page-7.md": b"# Page 7\n\nNothing is left of it."}) == "index:zoo@3"

    def has(ref: str) -> list[str]:
        found = client.impact(ref)
        assert not found["upper_bound"]
        return [n["ref"] for n in found["nodes"] if n["kind"] == "index"]

    assert has("dataset:zoo@1#document=page-1.md") == ["index:zoo@1", "index:zoo@2", "index:zoo@3"]
    assert has("dataset:zoo@1#document=page-3.md") == ["index:zoo@1"] and has("dataset:zoo@2#document=page-3.md") == ["index:zoo@2", "index:zoo@3"]
    assert has("dataset:zoo@1#document=page-5.md") == ["index:zoo@1"] and has("dataset:zoo@1#document=page-7.md") == ["index:zoo@1", "index:zoo@2"]
    found = client.impact("dataset:zoo#document=page-5.md")
    assert found["part"]["versions"] == ["dataset:zoo@1"] and len(client.impact("dataset:zoo#document=page-1.md")["part"]["versions"]) == 3
    with pytest.raises(NotFound, match=r"no document 'page-55.md'"):
        client.impact("dataset:zoo@1#document=page-55.md")
    with pytest.raises(BadInput, match="holds documents, so it has no row"):
        client.impact("dataset:zoo@1#row=1")


def test_what_a_user_declares_and_what_nobody_declared(client, monkeypatch) -> None:  # noqa: F811
    frame = loans(50)
    client.data.add("x", frame, id="customer")
    client.data.add("plain", frame[["income"]], roles={})
    clean = client.data.add("clean", frame[frame.age > 30], id="customer", reads=["dataset:x@1"])["ref"]
    old = frame.customer[frame.age > 30].iloc[0]
    young = frame.customer[frame.age <= 30].iloc[0]
    assert {n["reach"] for n in client.impact(f"dataset:x@1#row={young}")["nodes"] if n["ref"] == clean} == {"may"}

    said = client.lineage.derives(clean, {"dataset:x@1": frame.age > 30}, why="over thirty")
    assert said[0]["count"] == int((frame.age > 30).sum()) and said[0]["of"] == 50 and client.lineage.declared(clean) == said
    sums = client.data.add("sums", pd.DataFrame({"n": [1, 2]}), reads=[clean])["ref"]
    kept = client.data.frame(clean)
    client.lineage.derives(sums, {clean: {"rows": range(len(kept)), "to": [0 if i < 5 else 1 for i in range(len(kept))]}})
    client.assets.register("code", "later", {"files": []}, reads=[sums])
    found = client.impact(f"dataset:x@1#row={old}")
    assert {n["ref"]: n["reach"] for n in found["nodes"]} == {"dataset:x@1": "yes", clean: "yes", sums: "yes", "code:later@1": "may"}
    assert next(n for n in found["nodes"] if n["ref"] == sums)["rows"] == [0] and found["upper_bound"]
    found = client.impact(f"dataset:x@1#row={young}")
    assert [n["ref"] for n in found["nodes"]] == ["dataset:x@1"] and "over thirty" in found["not_reached"][0]["why"]

    monkeypatch.setattr(screen, "client", lambda: client)
    app = typer.Typer()
    app.command()(lineage.impact)
    said = CliRunner().invoke(app, [f"dataset:x@1#row={young}"]).output
    assert "1 row of 50 in dataset:x@1\nreached nothing: no step took it\ndid not reach:\n" in said and "over thirty" in said
    said = CliRunner().invoke(app, [f"dataset:x#row={old}"]).output
    assert "may have reached (on the way a step read" in said and said.index("upper bound") < said.index("code:later@1") and "[row 0]" in said

    keyed = client.data.add("keyed", frame.iloc[[4, 2]], reads=["dataset:x@1"])["ref"]
    client.lineage.derives(keyed, {"dataset:x@1": ["C0004", "C0002"]})
    assert next(n for n in client.impact("dataset:x@1#row=C0002")["nodes"] if n["ref"] == keyed)["rows"] == [1]
    for rows, says in (
        (np.ones(3, dtype=bool), "The mask has 3 values; dataset:x@1 has 50 rows"),
        ([0, 50], "names 50; dataset:x@1 has 50"),
        ("some", "Rows cannot be 'some'"),
        ({"rows": [1, 2], "to": [0]}, "2 rows and 1 places"),
        ({"rows": [1], "to": [9]}, "names 9; the output has 2"),
    ):
        with pytest.raises(BadInput, match=says):
            client.lineage.derives(keyed, {"dataset:x@1": rows})
    with pytest.raises(NotFound, match="no row with customer = 'C9999'"):
        client.lineage.derives(keyed, {"dataset:x@1": ["C9999"]})
    with pytest.raises(BadInput, match="has no id column"):
        client.impact("dataset:plain@1#row=3")
    with pytest.raises(NotFound, match="has no row number 50"):
        client.impact("dataset:x@1#number=50")
    with pytest.raises(BadInput, match="no rows or documents of its own"):
        client.impact("code:later@1#row=3")
