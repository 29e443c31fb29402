"""Whether a gate may follow its suite to another version by itself: whoever is judged must not choose easier questions.

A gate that names an exact suite version (`suite:credit@2`) asks those cases until an approver changes the gate. One that names only the suite
asks its newest version, so that a retraining is judged on rows that neither model has seen; then a newer version is followed without a person only
where the pipeline made it that stood, unchanged, when the gate last let a version pass. Any other change of the suite is shown in the decision,
which then waits for an approver, whatever the gate's `approval` says.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.assets import catalog
from everloop.core.principal import Role
from everloop.core.refs import Ref
from everloop.store.records import Tx
from everloop.store.schema import decisions, pipelines

MADE_BY = "pipeline:"
"""How the name of a pipeline's principal begins: only the server gives such names, to the steps of a run."""


def changed(tx: Tx, ref: Ref, alias: str, spec: dict[str, Any]) -> str:
    """Why a person must agree to a decision about `ref` that asks `spec["suite_ref"]`; "" where none must, since of the suite's version."""
    named = Ref.parse(spec["suite"], "suite") if spec.get("suite") else None
    if named is None or named.version is not None or tx.who.role >= Role.approver:
        return ""
    last = _last_passed(tx, ref, alias)
    if last is None or last["spec"].get("suite_ref") in (None, spec["suite_ref"]):
        return ""
    made = catalog.get(tx, spec["suite_ref"])
    if made["created_by"].startswith(MADE_BY) and _stands(tx, made["created_by"].removeprefix(MADE_BY), last["at"]):
        return ""
    return (
        f"The suite is another than when the gate last let a version pass: {spec['suite_ref']}, made by {made['created_by']}, in place of "
        f"{last['spec']['suite_ref']}; so an approver must agree."
    )


def _last_passed(tx: Tx, ref: Ref, alias: str) -> dict[str, Any] | None:
    """The newest decision that let a version of the name have the alias."""
    t = decisions.c
    mine = (t.project == tx.project, t.kind == ref.kind, t.name == ref.name, t.alias == alias)
    let = (t.verdict == "pass", t.approval.in_(("not_needed", "approved")))
    return tx.row(sa.select(t.spec, t.at).where(*mine, *let).order_by(t.at.desc()).limit(1))


def _stands(tx: Tx, name: str, since: float) -> bool:
    """Whether a pipeline is what it was at a time: its spec unchanged, with code of an exact version or everloop's own."""
    row = tx.row(sa.select(pipelines.c.spec, pipelines.c.updated_at).where(pipelines.c.project == tx.project, pipelines.c.name == name))
    if row is None or row["updated_at"] > since:
        return False
    return not row["spec"].get("code") or Ref.parse(row["spec"]["code"]).version is not None
