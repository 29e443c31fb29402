"""Webhooks: who is told when models and prompts change. What must be delivered is written with the change itself, in one transaction, so it is
neither sent for a change that was rolled back nor lost by a restart.

A hook: {"id", "name", "url", "description", "events" (["model_version.created", ...]), "status" (active | disabled), "secret" (sealed), "created_at",
"updated_at"}. A delivery: {"id", "hook", "event", "payload" (text), "attempts", "due" (epoch seconds)}.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import orjson
import sqlalchemy as sa

from everloop.core.errors import BadInput, Busy, NotFound
from everloop.core.limits import WEBHOOK_DELIVERIES, WEBHOOKS
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import documents

HOOK, DUE = "webhook", "webhook delivery"
EVENTS = {
    "registered_model": ("created",),
    "model_version": ("created",),
    "model_version_tag": ("set", "deleted"),
    "model_version_alias": ("created", "deleted"),
    "prompt": ("created",),
    "prompt_version": ("created",),
    "prompt_tag": ("set", "deleted"),
    "prompt_version_tag": ("set", "deleted"),
    "prompt_alias": ("created", "deleted"),
}
"""What may be listened to, as MLflow names it."""
ENTITIES = {
    ("model", "name"): "registered_model",
    ("model", "version"): "model_version",
    ("model", "version_tag"): "model_version_tag",
    ("model", "alias"): "model_version_alias",
    ("prompt", "name"): "prompt",
    ("prompt", "version"): "prompt_version",
    ("prompt", "name_tag"): "prompt_tag",
    ("prompt", "version_tag"): "prompt_version_tag",
    ("prompt", "alias"): "prompt_alias",
}
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def create(tx: Tx, name: str, url: str, events: list[str], *, description: str = "", secret: str = "", status: str = "active") -> dict[str, Any]:
    """A new webhook; `secret` comes sealed. BadInput for a name or event that cannot be, Busy where the project has too many."""
    if len(every(tx)) >= WEBHOOKS:
        raise Busy(f"The project has {WEBHOOKS} webhooks already.", "Delete one first.")
    body = {"name": name, "url": url, "events": events, "description": description, "secret": secret, "status": status}
    made = {"id": tx.clock.new_id(), **_checked(body), "created_at": tx.now, "updated_at": tx.now}
    _put(tx, HOOK, made["id"], made)
    audit.record(tx, "webhook.create", f"webhook:{made['id']}", name=name, url=url, events=events)
    return made


def update(tx: Tx, id: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Change what is given of a webhook; NotFound, BadInput."""
    made = {**_checked({**get(tx, id), **changes}), "updated_at": tx.now}
    _put(tx, HOOK, id, made)
    audit.record(tx, "webhook.update", f"webhook:{id}", **{k: v for k, v in changes.items() if k != "secret"})
    return made


def get(tx: Tx, id: str) -> dict[str, Any]:
    """One webhook; NotFound if there is none."""
    found = tx.value(sa.select(documents.c.body).where(documents.c.project == tx.project, documents.c.kind == HOOK, documents.c.name == id))
    if found is None:
        raise NotFound(f"Webhook with ID {id} not found.")
    return dict(found)


def every(tx: Tx) -> list[dict[str, Any]]:
    """The project's webhooks, newest first."""
    rows = tx.rows(sa.select(documents.c.body).where(documents.c.project == tx.project, documents.c.kind == HOOK))
    return sorted((row["body"] for row in rows), key=lambda one: (-one["created_at"], one["id"]))


def delete(tx: Tx, id: str) -> None:
    """Remove a webhook and what it had still to be sent; NotFound."""
    get(tx, id)
    _drop(tx, HOOK, id)
    for one in due(tx):
        if one["hook"] == id:
            _drop(tx, DUE, one["id"])
    audit.record(tx, "webhook.delete", f"webhook:{id}")


def note(tx: Tx, kind: str, what: str, action: str, data: dict[str, Any]) -> None:
    """Something changed: `what` is name, version, name_tag, version_tag or alias of a model or prompt; a delivery is written for each hook that listens."""
    entity = ENTITIES.get((kind, what))
    if entity is None:
        return
    event = f"{entity}.{action}"
    hooks = [hook for hook in every(tx) if hook["status"] == "active" and event in hook["events"]]
    if not hooks:
        return
    waiting = tx.value(sa.select(sa.func.count()).select_from(documents).where(documents.c.project == tx.project, documents.c.kind == DUE))
    if waiting + len(hooks) > WEBHOOK_DELIVERIES:
        raise Busy(f"{waiting} webhook deliveries are waiting already.", "Mend or disable the hook that does not answer.")
    for hook in hooks:
        id = tx.clock.new_id()
        body = {"id": id, "hook": hook["id"], "event": event, "payload": payload(event, data, tx.now), "attempts": 0, "due": tx.now}
        _put(tx, DUE, id, body)


def version(asset: dict[str, Any]) -> dict[str, Any]:
    """Data of a new version of a model or prompt, from its row."""
    data = {"name": asset["name"], "version": str(asset["version"]), "tags": asset["tags"], "description": asset["description"] or None}
    if asset["kind"] == "prompt":
        messages = asset["manifest"].get("messages") or []
        text = asset["tags"].get("mlflow.prompt.text")
        return {**data, "template": text if text is not None else "\n".join(str(one.get("content", "")) for one in messages)}
    return {**data, "source": (asset["manifest"].get("mlflow") or {}).get("source"), "run_id": asset["run"]}


def tagged(of: dict[str, Any], key: str, value: str | None) -> tuple[str, dict[str, Any]]:
    """(action, data) of a tag that was set, or removed (None)."""
    return ("deleted", {**of, "key": key}) if value is None else ("set", {**of, "key": key, "value": value})


def payload(event: str, data: dict[str, Any], at: float) -> str:
    """The text that is sent and signed."""
    entity, _, action = event.partition(".")
    moment = datetime.fromtimestamp(at, UTC).isoformat()
    return orjson.dumps({"entity": entity, "action": action, "timestamp": moment, "data": data}).decode()


def example(event: str) -> dict[str, Any]:
    """Data such as an event carries, for trying a hook out."""
    entity, _, action = event.partition(".")
    prompt = entity.startswith("prompt")
    data: dict[str, Any] = {"name": "example_prompt" if prompt else "example_model"}
    if entity in ("registered_model", "prompt"):
        return {**data, "tags": {"example_key": "example_value"}, "description": "An example"}
    if "version" in entity or "alias" in entity:
        data["version"] = "1"
    if entity.endswith("alias"):
        data["alias"] = "example_alias"
        if action == "deleted":
            del data["version"]
    elif entity.endswith("tag"):
        data |= {"key": "example_key", **({"value": "example_value"} if action == "set" else {})}
    else:
        source = {"template": "Hello {{name}}!"} if prompt else {"source": "models:/123", "run_id": "abcd1234abcd5678"}
        data |= {**source, "tags": {"example_key": "example_value"}, "description": "An example version"}
    return data


def due(tx: Tx, everywhere: bool = False) -> list[dict[str, Any]]:
    """Deliveries still to be made, with their project, the longest due first: of this project, or of all."""
    where = [documents.c.kind == DUE] + ([] if everywhere else [documents.c.project == tx.project])
    rows = tx.rows(sa.select(documents.c.project, documents.c.body).where(*where))
    return sorted(({**row["body"], "project": row["project"]} for row in rows), key=lambda one: one["due"])


def sent(tx: Tx, id: str) -> None:
    """A delivery is over."""
    _drop(tx, DUE, id)


def put_off(tx: Tx, delivery: dict[str, Any], until: float) -> None:
    """A delivery did not go through: try it again at `until`."""
    body = {key: value for key, value in delivery.items() if key != "project"}
    _put(tx, DUE, delivery["id"], {**body, "attempts": delivery["attempts"] + 1, "due": until})


def count_everywhere(tx: Tx) -> int:
    """How many webhooks all projects have together."""
    return int(tx.value(sa.select(sa.func.count()).select_from(documents).where(documents.c.kind == HOOK)))


def _checked(hook: dict[str, Any]) -> dict[str, Any]:
    if not _NAME.fullmatch(hook["name"]):
        raise BadInput(
            f"Webhook name {hook['name']!r} is invalid. It must start and end with a letter or digit, be less than 63 characters long, "
            "and contain only letters, digits, dots (.), underscores (_), and hyphens (-)."
        )
    if not hook["events"]:
        raise BadInput("Webhook events cannot be empty")
    for event in hook["events"]:
        entity, _, action = event.partition(".")
        if action not in EVENTS.get(entity, ()):
            raise BadInput(f"Invalid action '{action}' for entity '{entity}'. Valid actions are: {sorted(EVENTS.get(entity, ()))}")
    return hook


def _put(tx: Tx, kind: str, name: str, body: dict[str, Any]) -> None:
    row = {"project": tx.project, "kind": kind, "name": name, "body": body, "updated_at": tx.now, "updated_by": tx.who.name}
    tx.upsert(documents, row)


def _drop(tx: Tx, kind: str, name: str) -> None:
    tx.run(documents.delete().where(documents.c.project == tx.project, documents.c.kind == kind, documents.c.name == name))
