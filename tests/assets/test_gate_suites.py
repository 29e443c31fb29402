"""Whoever is judged does not choose easier questions: a suite that changed is for an approver, but a standing pipeline's is followed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from everloop.assets import catalog, gates
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref
from everloop.store.records import Records, Tx
from everloop.workspace import pipelines

EDITOR = Principal("user:ed", "default", Role.editor, "person")
APPROVER = Principal("user:ann", "default", Role.approver, "person")
PIPELINE = Principal("pipeline:credit", "default", Role.editor, "pipeline")
SPEC = {"steps": [{"name": "split", "call": "everloop.build.tabular:split", "after": []}], "params": {}}


def judged(records: Records, who: Principal, suite: str = "suite:credit") -> dict[str, Any]:
    """A decision that passed, as an evaluation with the newest suite stores it."""

    def work(tx: Tx) -> dict[str, Any]:
        catalog.register(tx, "model", "credit", {"n": 1})
        exact = str(catalog.resolve(tx, Ref.parse(suite, "suite")))
        spec = {"suite": suite, "suite_ref": exact, "requirements": ["auc >= 0.7"], "approval": "never"}
        return gates.store_decision(tx, Ref.parse("model:credit@1"), "champion", spec, "pass", "All hold.", [], None)

    records.clock.time += 10  # type: ignore[attr-defined]
    return records.write_sync(who, work)


def suite(records: Records, who: Principal, cases: int, **more: Any) -> None:
    """A new version of the suite."""
    records.clock.time += 10  # type: ignore[attr-defined]
    records.write_sync(who, lambda tx: catalog.register(tx, "suite", "credit", {"count": cases}, **more))


def test_an_easier_suite_by_hand_waits_for_an_approver_and_then_is_the_standard(records: Records) -> None:
    suite(records, EDITOR, 100)
    assert judged(records, EDITOR)["approval"] == judged(records, PIPELINE)["approval"] == "not_needed"
    suite(records, EDITOR, 3)
    for who in (EDITOR, PIPELINE):
        made = judged(records, who)
        assert made["approval"] == "pending" and "suite:credit@2, made by user:ed, in place of suite:credit@1" in made["why"]
    assert judged(records, EDITOR, "suite:credit@1")["approval"] == "not_needed"  # an exact version is what the gate's owner chose
    assert judged(records, APPROVER)["approval"] == "not_needed"  # who may change the gate may change its questions
    assert judged(records, EDITOR)["approval"] == "not_needed"


def test_a_standing_pipelines_fresh_rows_are_followed_but_not_a_changed_ones(records: Records) -> None:
    records.write_sync(EDITOR, lambda tx: pipelines.put(tx, "credit", SPEC))
    suite(records, PIPELINE, 100)
    judged(records, PIPELINE)
    suite(records, PIPELINE, 101)
    records.write_sync(EDITOR, lambda tx: pipelines.put(tx, "credit", SPEC))  # the same again is no change
    assert judged(records, PIPELINE)["approval"] == "not_needed"
    records.write_sync(EDITOR, lambda tx: pipelines.put(tx, "credit", {**SPEC, "params": {"holdout": 0.05}}))
    suite(records, PIPELINE, 5)
    assert judged(records, PIPELINE)["approval"] == "pending"
    suite(records, replace(PIPELINE, name="pipeline:other"), 6)
    assert judged(records, PIPELINE)["approval"] == "pending"
