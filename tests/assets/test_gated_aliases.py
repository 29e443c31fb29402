"""The catalogue, lineage, and aliases that no one moves round the gate; on every records backend."""

from __future__ import annotations

from typing import Any

import pytest

from everloop.assets import aliases, catalog, gates, lineage, releases
from everloop.core.errors import BadInput, Conflict, Forbidden, GateRefused, NotFound
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref
from everloop.store import identity
from everloop.store.records import Records, Tx
from everloop.store.schema import runs

SPEC = {"suite": "suite:s", "requirements": ["auc >= 0.7"]}


def model(tx: Tx, n: int) -> dict[str, Any]:
    return catalog.register(tx, "model", "credit", {"n": n})


def test_the_same_content_is_the_same_version(records: Records, who: Principal) -> None:
    first = records.write_sync(who, lambda tx: model(tx, 1))
    again = records.write_sync(who, lambda tx: model(tx, 1))
    second = records.write_sync(who, lambda tx: model(tx, 2))
    assert first["ref"] == again["ref"] == "model:credit@1" and second["ref"] == "model:credit@2"


def test_another_project_sees_nothing(records: Records, who: Principal, other: Principal) -> None:
    records.write_sync(who, lambda tx: model(tx, 1))
    with pytest.raises(NotFound):
        records.read_sync(other, lambda tx: catalog.get(tx, "model:credit@1"))


def test_an_unknown_reference_says_what_there_is(records: Records, who: Principal) -> None:
    records.write_sync(who, lambda tx: model(tx, 1))
    with pytest.raises(NotFound, match=r"Versions: 1\..*everloop alias model:credit@1 champion"):
        records.read_sync(who, lambda tx: catalog.resolve(tx, "model:credit@champion"))
    with pytest.raises(NotFound, match="Did you mean: credit"):
        records.read_sync(who, lambda tx: catalog.resolve(tx, "model:credti@1"))


def test_an_ungated_alias_moves_freely_and_a_gated_one_needs_its_decision(records: Records, who: Principal) -> None:
    def work(tx: Tx) -> None:
        model(tx, 1), model(tx, 2)
        assert aliases.move(tx, "model:credit@1", "staging")["ungated"]
        gates.declare(tx, "model", "credit", "champion", SPEC)
        with pytest.raises(GateRefused, match="no gate decision"):
            aliases.move(tx, "model:credit@1", "champion")
        gates.store_decision(tx, Ref.parse("model:credit@1"), "champion", SPEC, "fail", "auc is 0.6", [], None)
        with pytest.raises(GateRefused, match="auc is 0.6"):
            aliases.move(tx, "model:credit@1", "champion")
        good = gates.store_decision(tx, Ref.parse("model:credit@1"), "champion", SPEC, "pass", "all hold", [], None)
        with pytest.raises(GateRefused, match="is about model:credit@1"):
            aliases.move(tx, "model:credit@2", "champion", decision=good["id"])
        assert aliases.move(tx, "model:credit@1", "champion")["decision"] == good["id"]
        assert catalog.aliases_of(tx, "model", "credit") == {"champion": 1, "staging": 1}

    records.write_sync(who, work)


def test_an_approval_is_a_persons_and_not_the_askers(records: Records) -> None:
    asker, approver = Principal("user:a", "default", Role.approver), Principal("user:b", "default", Role.approver)
    spec = {**SPEC, "approval": "always"}

    def ask(tx: Tx) -> str:
        model(tx, 1)
        gates.declare(tx, "model", "credit", "champion", spec)
        id = gates.store_decision(tx, Ref.parse("model:credit@1"), "champion", spec, "pass", "ok", [], None)["id"]
        with pytest.raises(GateRefused, match="waits for a person"):
            aliases.move(tx, "model:credit@1", "champion")
        with pytest.raises(Forbidden, match="somebody else"):
            gates.settle(tx, id, True, "mine")
        return str(id)

    id = records.write_sync(asker, ask)
    records.write_sync(approver, lambda tx: gates.settle(tx, id, True, "looks right"))
    assert records.write_sync(asker, lambda tx: aliases.move(tx, "model:credit@1", "champion"))["to"] == 1
    with pytest.raises(Conflict):
        records.write_sync(approver, lambda tx: gates.settle(tx, id, True, "twice"))


def test_a_rollback_is_one_alias_move(records: Records, who: Principal) -> None:
    def work(tx: Tx) -> None:
        gates.declare(tx, "model", "credit", "champion", SPEC)
        for n in (1, 2):
            model(tx, n)
            gates.store_decision(tx, Ref.parse(f"model:credit@{n}"), "champion", {**SPEC, "expires_days": 0.0001}, "pass", "ok", [], None)
            aliases.move(tx, f"model:credit@{n}", "champion")
        tx.now += 10 * 86_400
        assert aliases.move(tx, "model:credit@1", "champion", why="2 misbehaves")["to"] == 1
        assert [m["to_version"] for m in aliases.history(tx, "model", "credit", "champion")][0] == 1

    records.write_sync(who, work)


def test_a_decision_counts_while_the_gate_and_the_version_to_beat_are_the_same(records: Records, who: Principal) -> None:
    spec = {**SPEC, "requirements": ["auc >= 0.7", "auc >= champion - 0.01"]}

    def decide(tx: Tx, n: int, against: int | None) -> None:
        gates.store_decision(tx, Ref.parse(f"model:credit@{n}"), "champion", spec, "pass", "ok", [], against)

    def work(tx: Tx) -> None:
        gates.declare(tx, "model", "credit", "champion", spec)
        for n in (1, 2, 3):
            model(tx, n)
            decide(tx, n, None)
        aliases.move(tx, "model:credit@1", "champion")
        with pytest.raises(GateRefused, match="compared it with nothing, and champion is model:credit@1 now"):
            aliases.move(tx, "model:credit@2", "champion")
        decide(tx, 2, 1)
        decide(tx, 3, 1)
        aliases.move(tx, "model:credit@2", "champion")
        with pytest.raises(GateRefused, match="compared it with model:credit@1, and champion is model:credit@2 now"):
            aliases.move(tx, "model:credit@3", "champion")
        decide(tx, 3, 2)
        gates.declare(tx, "model", "credit", "champion", {**spec, "requirements": ["auc >= 0.8"]})
        with pytest.raises(GateRefused, match="the gate was changed after decision"):
            aliases.move(tx, "model:credit@3", "champion")
        assert aliases.move(tx, "model:credit@1", "champion")["to"] == 1

    records.write_sync(who, work)


def test_a_version_that_was_judged_again_and_did_not_pass_moves_by_no_older_decision(records: Records, who: Principal) -> None:
    def work(tx: Tx) -> None:
        model(tx, 1)
        gates.declare(tx, "model", "credit", "champion", SPEC)
        decide = lambda verdict, why: gates.store_decision(tx, Ref.parse("model:credit@1"), "champion", SPEC, verdict, why, [], None)
        good = decide("pass", "ok")
        tx.now += 60
        decide("fail", "auc is 0.5 on the new rows")
        for given in (None, good["id"]):
            with pytest.raises(GateRefused, match="auc is 0.5 on the new rows"):
                aliases.move(tx, "model:credit@1", "champion", decision=given)
        tx.now += 60
        decide("pass", "ok")
        aliases.move(tx, "model:credit@1", "champion")

    records.write_sync(who, work)


def test_who_may_only_edit_removes_no_gated_alias(records: Records, who: Principal) -> None:
    def work(tx: Tx) -> None:
        model(tx, 1)
        aliases.move(tx, "model:credit@1", "champion")
        gates.declare(tx, "model", "credit", "champion", SPEC)

    records.write_sync(who, work)
    editor = Principal("key:e", who.project, Role.editor)
    with pytest.raises(Forbidden, match="which a gate guards one must be approver"):
        records.write_sync(editor, lambda tx: aliases.remove(tx, "model", "credit", "champion"))
    records.write_sync(who, lambda tx: aliases.remove(tx, "model", "credit", "champion"))


def test_a_release_pins_exact_versions_and_lineage_goes_both_ways(records: Records, who: Principal) -> None:
    def work(tx: Tx) -> None:
        data = catalog.register(tx, "dataset", "loans", {"rows": 1})
        made = catalog.register(tx, "model", "credit", {"n": 1}, run="r1", reads=["dataset:loans"])
        release = releases.make(tx, "credit", "predict", {"model": "model:credit"}, {"threshold": 0.4})
        assert release["manifest"]["pins"] == {"model": made["ref"]}
        assert data["ref"] in lineage.upstream(tx, release["ref"])["nodes"]
        assert release["ref"] in lineage.downstream(tx, data["ref"])["nodes"]
        with pytest.raises(BadInput, match="pins a model"):
            releases.make(tx, "credit", "predict", {})

    records.write_sync(who, work)


def test_a_person_and_their_key_are_two_eyes_not_four(records: Records) -> None:
    ann, bob = (Principal(f"user:{name}", "default", Role.admin, "person") for name in ("ann", "bob"))
    local = Principal("local", "default", Role.admin, "local")
    for maker, name in ((ann, "hers"), (Principal("key:hers", "default", Role.admin), "of-hers"), (bob, "his"), (local, "plain"), (local, "other")):
        records.write_sync(maker, lambda tx, name=name: identity.create_key(tx, name, Role.approver))
    keys = {name: Principal(f"key:{name}", "default", Role.approver) for name in ("hers", "of-hers", "his", "plain", "other")}
    spec = {**SPEC, "approval": "always"}

    def ask(tx: Tx) -> str:
        model(tx, 1)
        return str(gates.store_decision(tx, Ref.parse("model:credit@1"), "champion", spec, "pass", "ok", [], None)["id"])

    for asker, no, yes in (
        (keys["hers"], (ann, keys["of-hers"], keys["hers"]), keys["his"]),
        (ann, (keys["hers"], keys["of-hers"]), bob),
        (keys["plain"], (keys["plain"],), keys["other"]),
    ):
        id = records.write_sync(asker, ask)
        for approver in no:
            with pytest.raises(Forbidden, match="somebody else must approve"):
                records.write_sync(approver, lambda tx, id=id: gates.settle(tx, id, True, "mine"))
        assert records.write_sync(yes, lambda tx, id=id: gates.settle(tx, id, True, "fine"))["approved_by"] == yes.name


def test_who_started_the_pipeline_approves_nothing_it_asked_for(records: Records) -> None:
    starter, other = Principal("key:a", "default", Role.approver, "key"), Principal("key:b", "default", Role.approver, "key")
    pipeline = Principal("pipeline:credit", "default", Role.editor, "pipeline")
    run = {"project": "default", "name": "r", "status": "finished", "started_at": 1.0}

    def ask(tx: Tx) -> str:
        tx.run(runs.insert().values(**run, id="whole", kind="pipeline", created_by="key:a"))
        tx.run(runs.insert().values(**run, id="step", kind="step", parent="whole", created_by="worker"))
        catalog.register(tx, "model", "credit", {"n": 1}, run="step")
        gates.declare(tx, "model", "credit", "champion", {**SPEC, "approval": "always"})
        spec = {**SPEC, "approval": "always"}
        return str(gates.store_decision(tx, Ref.parse("model:credit@1"), "champion", spec, "pass", "ok", [], None)["id"])

    id = records.write_sync(pipeline, ask)
    with pytest.raises(Forbidden, match="started the pipeline"):
        records.write_sync(starter, lambda tx: gates.settle(tx, id, True, "mine"))
    assert records.write_sync(other, lambda tx: gates.settle(tx, id, True, "looks right"))["approval"] == "approved"
