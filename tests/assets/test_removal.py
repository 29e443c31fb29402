"""Versions deleted, restored and purged, and two of them compared; on every records backend."""

from __future__ import annotations

import pytest

from everloop.assets import aliases, catalog, comparison, gates, lineage, registry, releases, removal, runs
from everloop.assets.run_metrics import Point
from everloop.core.errors import Conflict, NotFound
from everloop.core.principal import Principal
from everloop.store.records import Records, Tx

FILES = [{"path": "model.onnx", "digest": "a" * 64, "size": 10}]


def model(tx: Tx, n: int, **more: object) -> str:
    return str(catalog.register(tx, "model", "credit", {"n": n, "files": FILES, **more})["ref"])


def test_a_version_that_something_live_needs_stays(records: Records, who: Principal) -> None:
    def work(tx: Tx) -> None:
        first = model(tx, 1)
        aliases.move(tx, first, "champion")
        release = releases.make(tx, "credit", "predict", {"model": first})
        with pytest.raises(Conflict, match=r"it is model:credit@champion; release release:credit@1 pins it") as told:
            removal.delete(tx, first)
        assert len(told.value.details["needed_by"]) == 2
        aliases.remove(tx, "model", "credit", "champion")
        removal.delete(tx, release["ref"])
        removal.delete(tx, first)
        with pytest.raises(Conflict, match="could be restored"):
            removal.purge(tx, first)
        removal.purge(tx, release["ref"])
        assert removal.purge(tx, first) == {"ref": first, "digest": catalog.digest_of({"n": 1, "files": FILES}), "files": 1, "bytes": 10}

    records.write_sync(who, work)


def test_deleted_comes_back_and_purged_does_not(records: Records, who: Principal) -> None:
    def work(tx: Tx) -> None:
        first, second = model(tx, 1), model(tx, 2)
        removal.delete(tx, second)
        with pytest.raises(NotFound):
            catalog.get(tx, second)
        assert [one["ref"] for one in removal.deleted(tx)] == [second]
        assert removal.restore(tx, second)["manifest"]["n"] == 2
        removal.purge(tx, second)
        assert removal.deleted(tx) == []
        with pytest.raises(Conflict, match="for good"):
            removal.restore(tx, second)
        assert model(tx, 3) == "model:credit@3"  # a number is never given twice
        with pytest.raises(NotFound, match="models deleted"):
            removal.restore(tx, first)

    records.write_sync(who, work)


def test_a_gate_keeps_its_suite_and_mlflows_delete_respects_gated_aliases(records: Records, who: Principal) -> None:
    def work(tx: Tx) -> None:
        suite = catalog.register(tx, "suite", "s", {"task": "binary", "dataset": None})["ref"]
        first = model(tx, 1)
        aliases.move(tx, first, "champion")
        aliases.move(tx, first, "free")
        gates.declare(tx, "model", "credit", "champion", {"suite": "suite:s", "requirements": ["auc >= 0.7"]})
        with pytest.raises(Conflict, match="the gate of model:credit@champion tests with it"):
            removal.delete(tx, suite)
        with pytest.raises(Conflict, match="it is model:credit@champion"):
            registry.delete_version(tx, "credit", "1")

    records.write_sync(who, work)


def test_two_versions_are_compared(records: Records, who: Principal) -> None:
    def work(tx: Tx) -> None:
        data = catalog.register(tx, "dataset", "d", {"format": "files"})["ref"]
        made = []
        for depth, auc in ((3, 0.7), (5, 0.8)):
            run = runs.create(tx, f"r{depth}", "training", code={"commit": f"c{depth}"})["id"]
            runs.log(tx, run, {"depth": depth, "seed": 1}, [Point("auc", auc, 0, 1.0)], None)
            lineage.link(tx, data, f"run:{run}", "read")
            inputs = [{"name": "age", "type": "number"}, *([{"name": "city", "type": "string"}] if depth == 5 else [])]
            manifest = {"format": "sklearn", "depth": depth, "files": FILES, "signature": {"inputs": inputs, "outputs": []}}
            made.append(catalog.register(tx, "model", "credit", manifest, run=run))
        found = comparison.compare(tx, "model", "credit", "1", "latest")
        assert (found["from"]["ref"], found["to"]["ref"], found["same"]) == ("model:credit@1", "model:credit@2", False)
        assert [(p["key"], p["from"], p["to"]) for p in found["params"] if p["changed"]] == [("depth", "3", "5")]
        assert found["metrics"][0]["difference"] == pytest.approx(0.1)
        assert [(c["name"], c["change"]) for c in found["signature"]["inputs"]] == [("age", "same"), ("city", "added")]
        assert found["from"]["data"] == [data] and found["to"]["code"] == {"commit": "c5"} and found["files"][0]["change"] == "same"

    records.write_sync(who, work)
