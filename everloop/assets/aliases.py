"""Moving aliases. A protected alias moves only with a stored decision for exactly that version: no protocol and no room can go round it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.assets import catalog, gates, webhooks
from everloop.core.errors import GateRefused, NotFound
from everloop.core.principal import Role
from everloop.core.refs import Ref, check_alias
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import alias_moves, aliases


def move(tx: Tx, ref: Ref | str, alias: str, *, decision: str | None = None, why: str = "") -> dict[str, Any]:
    """Point `alias` at the version that `ref` means. Where a gate is declared, a decision is needed that passed, is for exactly this
    version and digest, is approved if it must be, has not expired, was followed by none that did not pass, was judged by the gate as it stands now and, where the gate compares,
    against the version that holds the alias now; `decision` None takes the newest such one.

    Going back to a version that was champion before needs no new decision while its own has been used: a rollback is one alias move.
    Raises GateRefused saying what is missing. Answers {"ref", "alias", "from", "to", "decision", "ungated"}.
    """
    check_alias(alias)
    asset = catalog.get(tx, ref)
    exact = Ref.parse(asset["ref"])
    gate = gates.gate_for(tx, exact.kind, exact.name, alias)
    before = catalog.aliases_of(tx, exact.kind, exact.name).get(alias)
    used = None
    if gate is not None:
        used = _allowed(tx, asset, gate, before, decision)
    if before != exact.version:
        tx.upsert(
            aliases,
            {
                "project": tx.project,
                "kind": exact.kind,
                "name": exact.name,
                "alias": alias,
                "version": exact.version,
                "decision": used,
                "moved_at": tx.now,
                "moved_by": tx.who.name,
            },
        )
        _log(tx, exact, alias, before, exact.version, used, why)
        audit.record(
            tx,
            "alias.move",
            asset["ref"],
            alias=alias,
            **{"from": before},
            to=exact.version,
            decision=used or ("ungated" if gate is None else None),
            why=why,
        )
        webhooks.note(tx, exact.kind, "alias", "created", {"name": exact.name, "alias": alias, "version": str(exact.version)})
    return {"ref": asset["ref"], "alias": alias, "from": before, "to": exact.version, "decision": used, "ungated": gate is None}


def remove(tx: Tx, kind: str, name: str, alias: str, why: str = "") -> None:
    """Delete an alias. NotFound if there is none; Forbidden for one that a gate guards, unless an approver asks: the next version would be
    judged with nothing to compare it with."""
    if gates.gate_for(tx, kind, name, alias) is not None:
        tx.who.need(Role.approver, f"remove the alias {alias} of {kind}:{name}, which a gate guards")
    before = catalog.aliases_of(tx, kind, name).get(alias)
    if before is None:
        raise NotFound(f"{kind}:{name} has no alias {alias!r}.", f"It has: {', '.join(catalog.aliases_of(tx, kind, name)) or 'none'}.")
    tx.run(aliases.delete().where(aliases.c.project == tx.project, aliases.c.kind == kind, aliases.c.name == name, aliases.c.alias == alias))
    _log(tx, Ref(kind, name), alias, before, None, None, why)
    audit.record(tx, "alias.remove", f"{kind}:{name}@{before}", alias=alias, why=why)
    webhooks.note(tx, kind, "alias", "deleted", {"name": name, "alias": alias})


def history(tx: Tx, kind: str, name: str, alias: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Moves of a name's aliases, newest first."""
    statement = sa.select(alias_moves).where(alias_moves.c.project == tx.project, alias_moves.c.kind == kind, alias_moves.c.name == name)
    if alias:
        statement = statement.where(alias_moves.c.alias == alias)
    return tx.rows(statement.order_by(alias_moves.c.at.desc(), alias_moves.c.id.desc()).limit(limit))


def _allowed(tx: Tx, asset: dict[str, Any], gate: dict[str, Any], before: int | None, decision: str | None) -> str:
    alias = gate["alias"]
    newest = [d for d in gates.decided(tx, asset["kind"], asset["name"], asset["version"]) if d["alias"] == alias]
    found = newest if decision is None else [gates.decision(tx, decision)]
    was_there = any(m["to_version"] == asset["version"] and m["decision"] for m in history(tx, asset["kind"], asset["name"], alias, 1000))
    reasons = []
    for one in found:
        refused = _refusal(tx, one, asset, alias) or (None if was_there else _stale(tx, one, gate, before, newest))
        if refused is None:
            return str(one["id"])
        reasons.append(refused)
    what = f"{asset['ref']} may not become {alias}: " + (reasons[0] if reasons else "no gate decision has been made about it.")
    raise GateRefused(
        what, f"Evaluate it: everloop gates evaluate {asset['ref']} {alias}" if not reasons else "", decision=found[0]["id"] if found else None
    )


def _refusal(tx: Tx, one: dict[str, Any], asset: dict[str, Any], alias: str) -> str | None:
    if one["ref"] != asset["ref"] or one["digest"] != asset["digest"] or one["alias"] != alias:
        return f"decision {one['id']} is about {one['ref']} as {one['alias']}."
    if one["verdict"] != "pass":
        return f"the gate says {one['verdict']}: {one['why']}"
    if one["approval"] == "pending":
        return f"decision {one['id']} waits for a person's approval (everloop gates approve {one['id']})."
    if one["approval"] == "rejected":
        return f"{one['approved_by']} rejected it: {one['approval_why']}"
    return None


def _stale(tx: Tx, one: dict[str, Any], gate: dict[str, Any], before: int | None, newest: list[dict[str, Any]]) -> str | None:
    """Why a decision that passed says nothing about today: its time is over, the gate or the version to beat is another one, or the version was
    judged again since and did not pass."""
    if tx.now > one["expires_at"]:
        return f"decision {one['id']} has expired; evaluate it again."
    for later in newest:
        if (later["at"], later["id"]) > (one["at"], one["id"]) and later["verdict"] != "pass":
            return f"decision {later['id']} came after {one['id']} and says {later['verdict']}: {later['why']}"
    if any(one["spec"].get(key, value) != value for key, value in gate["spec"].items() if key != "expires_days"):
        return f"the gate was changed after decision {one['id']}; evaluate it again."
    holder = None if before is None else f"{gate['kind']}:{gate['name']}@{before}"
    if holder not in (one["against"], one["ref"]) and any("champion" in rule for rule in gate["spec"]["requirements"]):
        return f"decision {one['id']} compared it with {one['against'] or 'nothing'}, and {gate['alias']} is {holder or 'nothing'} now; evaluate it again."
    return None


def _log(tx: Tx, ref: Ref, alias: str, before: int | None, after: int | None, decision: str | None, why: str) -> None:
    tx.run(
        alias_moves.insert().values(
            id=tx.clock.new_id(),
            project=tx.project,
            kind=ref.kind,
            name=ref.name,
            alias=alias,
            from_version=before,
            to_version=after,
            decision=decision,
            why=why,
            at=tx.now,
            by=tx.who.name,
        )
    )
