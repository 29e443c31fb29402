"""Webhooks over MLflow's API."""

from __future__ import annotations

from typing import Any

from everloop.core.errors import BadInput
from everloop.protocols.mlflow import fields
from everloop.protocols.mlflow.wire import Call, lacking, ms

ENTITIES = (
    "",
    "registered_model",
    "model_version",
    "model_version_tag",
    "model_version_alias",
    "prompt",
    "prompt_version",
    "prompt_tag",
    "prompt_version_tag",
    "prompt_alias",
    "budget_policy",
)
ACTIONS = ("", "created", "updated", "deleted", "set", "exceeded")
STATUSES = {"ACTIVE": "active", "DISABLED": "disabled", "1": "active", "2": "disabled"}


async def create(call: Call) -> Any:
    """POST webhooks."""
    made = await call.ws.webhooks.create(
        call.who,
        call.need("name"),
        call.need("url"),
        [_event(one) for one in call.listed("events")],
        str(call.get("secret", "")),
        description=str(call.get("description", "")),
        status=_status(call.get("status", "ACTIVE")),
    )
    return {"webhook": webhook_of(made)}


async def listed(call: Call) -> Any:
    """GET webhooks, newest first."""
    most = call.number("max_results", 100, 1, 1000)
    token = str(call.get("page_token", "") or "0")
    if not token.isdigit():
        raise BadInput(f"Invalid page token: {token!r}.")
    found = (await call.ws.webhooks.list(call.who))[int(token) :]
    following = str(int(token) + most) if len(found) > most else None
    return lacking({"webhooks": [webhook_of(one) for one in found[:most]], "next_page_token": following})


async def get(call: Call) -> Any:
    """GET webhooks/{id}."""
    return {"webhook": webhook_of(await call.ws.webhooks.get(call.who, call.path["id"]))}


async def update(call: Call) -> Any:
    """PATCH webhooks/{id}."""
    changes: dict[str, Any] = {name: str(call.get(name)) for name in ("name", "url") if call.get(name)}
    changes |= {name: str(call.get(name)) for name in ("description", "secret") if call.get(name) is not None}
    if call.listed("events"):
        changes["events"] = [_event(one) for one in call.listed("events")]
    if call.get("status") is not None:
        changes["status"] = _status(call.get("status"))
    return {"webhook": webhook_of(await call.ws.webhooks.update(call.who, call.path["id"], **changes))}


async def delete(call: Call) -> Any:
    """DELETE webhooks/{id}."""
    await call.ws.webhooks.delete(call.who, call.path["id"])


async def test(call: Call) -> Any:
    """POST webhooks/{id}/test: an example is sent once."""
    event = call.get("event")
    found = await call.ws.webhooks.test(call.who, call.path["id"], _event(event) if event else None)
    result = {"success": found["success"], "response_status": found["status"]}
    return {"result": lacking({**result, "response_body": found["body"] or None, "error_message": found["error"] or None})}


def webhook_of(hook: dict[str, Any]) -> dict[str, Any]:
    """A webhook in MLflow's shape; its secret is never told."""
    events = [event.split(".") for event in hook["events"]]
    body = {
        "webhook_id": hook["id"],
        "name": hook["name"],
        "description": hook["description"] or None,
        "url": hook["url"],
        "events": [{"entity": entity.upper(), "action": action.upper()} for entity, action in events],
        "status": hook["status"].upper(),
        "creation_timestamp": ms(hook["created_at"]),
        "last_updated_timestamp": ms(hook["updated_at"]),
    }
    return lacking(body)


def _event(one: Any) -> str:
    if not isinstance(one, dict):
        raise fields.invalid("events", one, f" Each is an entity and an action.{fields.SEE}")
    return f"{_named(one.get('entity'), ENTITIES)}.{_named(one.get('action'), ACTIONS)}"


def _named(value: Any, names: tuple[str, ...]) -> str:
    text = str(value)
    return names[int(text)] if text.isdigit() and int(text) < len(names) else text.lower()


def _status(value: Any) -> str:
    if str(value) not in STATUSES:
        raise fields.invalid("status", value, f" Use ACTIVE or DISABLED.{fields.SEE}")
    return STATUSES[str(value)]


ROUTES = [
    ("POST", "webhooks", create),
    ("GET", "webhooks", listed),
    ("GET", "webhooks/{id}", get),
    ("PATCH", "webhooks/{id}", update),
    ("DELETE", "webhooks/{id}", delete),
    ("POST", "webhooks/{id}/test", test),
]
