"""Gates' records: what must hold before an alias moves, the decisions made, and their approval. The judging itself is in evaluate/."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.assets import catalog, gate_suites
from everloop.core.errors import BadInput, Conflict, Forbidden, NotFound
from everloop.core.limits import PAGE_ROWS
from everloop.core.principal import Role
from everloop.core.refs import KINDS, Ref, check_alias, check_name
from everloop.store import audit, identity
from everloop.store.records import Tx
from everloop.store.schema import assets, decisions, gates, runs

APPROVAL = ("never", "always", "not_first")
DAY = 86_400.0


def full_spec(kind: str, name: str, alias: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A gate's spec with its defaults; BadInput says what cannot be. Whether the requirements parse is the caller's to check."""
    if kind not in KINDS:
        raise BadInput(f"There is no kind of asset called {kind!r}.", f"Kinds: {', '.join(KINDS)}.")
    check_name(name)
    check_alias(alias)
    full = {"suite": "", "requirements": [], "confidence": 0.95, "approval": "never", "expires_days": 7.0, **spec}
    if not full["requirements"] or not isinstance(full["requirements"], list):
        raise BadInput(f"The gate of {kind}:{name}@{alias} has no requirements.", 'Give a list such as ["auc >= 0.7", "auc >= champion - 0.01"].')
    if full["approval"] not in APPROVAL:
        raise BadInput(f"approval is {full['approval']!r}.", f"One of: {', '.join(APPROVAL)}.")
    if not 0.5 < float(full["confidence"]) < 1:
        raise BadInput(f"confidence is {full['confidence']!r}.", "Give a number between 0.5 and 1, such as 0.95.")
    unknown = set(full) - {"suite", "requirements", "confidence", "approval", "expires_days"}
    if unknown:
        raise BadInput(
            f"The gate has unknown settings: {', '.join(sorted(unknown))}.", "Settings: suite, requirements, confidence, approval, expires_days."
        )
    return full


def declare(tx: Tx, kind: str, name: str, alias: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Declare (or change) the gate before an alias of a name. The caller has checked that the requirements parse.

    Whoever is judged by a gate must not loosen it: Forbidden where one stands whose full spec (what `spec` leaves out has its default) would
    be another, unless an approver asks.
    """
    full = full_spec(kind, name, alias, spec)
    before = gate_for(tx, kind, name, alias)
    if before is not None and before["spec"] != full:
        tx.who.need(Role.approver, f"change the gate of {kind}:{name}@{alias}")
    row = {"project": tx.project, "kind": kind, "name": name, "alias": alias, "spec": full, "updated_at": tx.now, "updated_by": tx.who.name}
    tx.upsert(gates, row)
    audit.record(tx, "gate.declare", f"gate:{kind}:{name}@{alias}", spec=full)
    return row


def gate_for(tx: Tx, kind: str, name: str, alias: str) -> dict[str, Any] | None:
    """The gate declared for (kind, name, alias), or None: then the alias moves freely."""
    return tx.row(sa.select(gates).where(gates.c.project == tx.project, gates.c.kind == kind, gates.c.name == name, gates.c.alias == alias))


def need_to_reroute(tx: Tx, what: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Forbidden where a gate guards what `before` sends users to ({"release", "split": [{"alias", "weight"}]}) and `after` sends more of them
    round it, unless an approver asks: to another release, to an alias that was not in the split, or to more of one that no gate guards.
    """
    had, has = _shares(before), _shares(after)
    guarded = {alias for alias in had if gate_for(tx, "release", before["release"], alias) is not None}
    same = before["release"] == after["release"]
    if guarded and not (same and all(alias in guarded or share <= had.get(alias, 0.0) + 1e-9 for alias, share in has.items())):
        tx.who.need(Role.approver, f"send users of {what}, whose release a gate guards, elsewhere")


def _shares(spec: dict[str, Any]) -> dict[str, float]:
    whole = sum(part["weight"] for part in spec["split"])
    return {part["alias"]: part["weight"] / whole for part in spec["split"] if part["weight"] > 0}


def listed(tx: Tx) -> list[dict[str, Any]]:
    """All gates of the project."""
    return tx.rows(sa.select(gates).where(gates.c.project == tx.project).order_by(gates.c.kind, gates.c.name, gates.c.alias))


def remove(tx: Tx, kind: str, name: str, alias: str) -> None:
    """Remove a gate; the alias moves freely from then on. Audited."""
    if not tx.run(gates.delete().where(gates.c.project == tx.project, gates.c.kind == kind, gates.c.name == name, gates.c.alias == alias)):
        raise NotFound(f"There is no gate for {kind}:{name}@{alias}.")
    audit.record(tx, "gate.remove", f"gate:{kind}:{name}@{alias}")


def store_decision(
    tx: Tx, ref: Ref, alias: str, spec: dict[str, Any], verdict: str, why: str, scores: list[dict[str, Any]], against: int | None, evidence: str = ""
) -> dict[str, Any]:
    """Freeze a decision about exactly one version. Whether a person must approve follows the gate's `approval`, and whether its suite changed."""
    asset = catalog.get(tx, ref)
    approval = "not_needed"
    other_suite = gate_suites.changed(tx, ref, alias, spec) if verdict == "pass" else ""
    if other_suite:
        approval, why = "pending", f"{why} {other_suite}"
    elif verdict == "pass" and (spec.get("approval") == "always" or (spec.get("approval") == "not_first" and against is not None)):
        approval = "pending"
    row = {
        "id": tx.clock.new_id(),
        "project": tx.project,
        "kind": ref.kind,
        "name": ref.name,
        "version": asset["version"],
        "digest": asset["digest"],
        "alias": alias,
        "against": against,
        "verdict": verdict,
        "why": why,
        "scores": scores,
        "spec": spec,
        "evidence": evidence,
        "approval": approval,
        "approved_by": None,
        "approved_at": None,
        "approval_why": "",
        "at": tx.now,
        "by": tx.who.name,
        "expires_at": tx.now + float(spec.get("expires_days", 7.0)) * DAY,
    }
    tx.run(decisions.insert().values(**row))
    audit.record(tx, "gate.decide", asset["ref"], decision=row["id"], alias=alias, verdict=verdict, why=why, against=against)
    return shown(row)


def decision(tx: Tx, id: str) -> dict[str, Any]:
    """One decision; NotFound if there is none with that id in the project."""
    row = tx.row(sa.select(decisions).where(decisions.c.project == tx.project, decisions.c.id == id))
    if row is None:
        raise NotFound(f"There is no decision {id!r} in project {tx.project!r}.", "List them with: everloop gates decisions")
    return shown(row)


def decided(
    tx: Tx,
    kind: str | None = None,
    name: str | None = None,
    version: int | None = None,
    approval: str | None = None,
    limit: int = PAGE_ROWS,
    before: float | None = None,
) -> list[dict[str, Any]]:
    """Decisions, newest first."""
    statement = sa.select(decisions).where(decisions.c.project == tx.project).order_by(decisions.c.at.desc(), decisions.c.id.desc()).limit(limit)
    for column, value in ((decisions.c.kind, kind), (decisions.c.name, name), (decisions.c.version, version), (decisions.c.approval, approval)):
        if value is not None:
            statement = statement.where(column == value)
    if before is not None:
        statement = statement.where(decisions.c.at < before)
    return [shown(row) for row in tx.rows(statement)]


def _starter(tx: Tx, found: dict[str, Any]) -> str | None:
    """Who started the pipeline run that made the version a decision is about."""
    step, whole, asset = runs.alias(), runs.alias(), assets.c
    made = sa.and_(step.c.project == asset.project, step.c.id == asset.run)
    parent = sa.and_(whole.c.project == step.c.project, whole.c.id == step.c.parent)
    version = (asset.project == tx.project, asset.kind == found["kind"], asset.name == found["name"], asset.version == found["version"])
    row = tx.row(sa.select(whole.c.created_by).select_from(assets.join(step, made).join(whole, parent)).where(*version))
    return None if row is None else str(row["created_by"])


def _need_other(tx: Tx, doer: str | None, did: str) -> None:
    """Forbidden where whoever acts is, or shares a person with, `doer`, who did what is to be approved."""
    if doer is None or not identity.persons(tx, tx.who.name) & identity.persons(tx, doer):
        return
    shared = "" if doer == tx.who.name else f"; the same person is behind {tx.who.name}"
    raise Forbidden(f"{doer} {did}{shared}; somebody else must approve it.", "Ask another approver of the project.")


def settle(tx: Tx, id: str, approve: bool, why: str) -> dict[str, Any]:
    """A person approves or rejects a decision that waits. Who asked for it, or started the pipeline that did, cannot, unless it was the local user.

    Four eyes are of persons: a key counts as the person who made it, so neither approves what the other asked for.
    """
    found = decision(tx, id)
    if found["approval"] != "pending":
        raise Conflict(f"Decision {id} does not wait for approval: it is {found['approval']}.")
    if tx.who.kind == "pipeline":
        raise Forbidden(f"{tx.who.name} is a pipeline; an approval is a person's.")
    if tx.who.kind not in ("local", "system"):
        _need_other(tx, found["by"], f"asked for decision {id}")
        if found["by"].startswith("pipeline:"):
            _need_other(tx, _starter(tx, found), f"started the pipeline that asked for decision {id}")
    if tx.now > found["expires_at"]:
        raise Conflict(f"Decision {id} has expired.", "Evaluate the version again.")
    state = "approved" if approve else "rejected"
    tx.run(
        decisions.update()
        .where(decisions.c.project == tx.project, decisions.c.id == id)
        .values(approval=state, approved_by=tx.who.name, approved_at=tx.now, approval_why=why)
    )
    audit.record(tx, f"gate.{'approve' if approve else 'reject'}", found["ref"], decision=id, why=why)
    return decision(tx, id)


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A decisions row as facades answer it."""
    body = {
        key: row[key]
        for key in (
            "id",
            "kind",
            "name",
            "version",
            "digest",
            "alias",
            "verdict",
            "why",
            "scores",
            "spec",
            "evidence",
            "approval",
            "approved_by",
            "approved_at",
            "approval_why",
            "at",
            "by",
            "expires_at",
        )
    }
    against = f"{row['kind']}:{row['name']}@{row['against']}" if row["against"] is not None else None
    return {**body, "ref": f"{row['kind']}:{row['name']}@{row['version']}", "against": against}
