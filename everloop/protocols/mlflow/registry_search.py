"""registered-models/search and model-versions/search: MLflow's filters, orders and pages over names and versions.

A prompt is found only where the filter asks for prompts (``tags.`mlflow.prompt.is_prompt` = 'true'``), as in MLflow.
"""

from __future__ import annotations

import asyncio
import operator
import re
from typing import Any

from everloop.assets import run_filter
from everloop.core.errors import BadInput
from everloop.protocols.mlflow.shapes import IS_PROMPT, name_of, version_of
from everloop.protocols.mlflow.wire import Call, lacking, reply

_ENTITIES = {"tag": "tag", "tags": "tag", "attribute": "attribute"}
_TIMES = {"creation_timestamp": ("created_at", "number"), "last_updated_timestamp": ("updated_at", "number")}
NAMES = run_filter.Grammar("registered models", {"name": ("name", "list")}, _ENTITIES, {"tag": "text"})
NAMES_ORDER = run_filter.Grammar(
    "registered models", {"name": ("name", "list"), **dict.fromkeys(("timestamp", "last_updated_timestamp"), ("updated_at", "number"))}, _ENTITIES
)
VERSIONS = run_filter.Grammar(
    "model versions",
    {"name": ("name", "list"), "run_id": ("run", "list"), "version_number": ("version", "number"), "source_path": ("source", "text")},
    _ENTITIES,
    {"tag": "text"},
)
VERSIONS_ORDER = run_filter.Grammar("model versions", {"name": ("name", "list"), "version_number": ("version", "number"), **_TIMES}, _ENTITIES)


async def search_names(call: Call) -> Any:
    """registered-models/search."""
    clauses = run_filter.parse(str(call.get("filter", "")), NAMES)
    kind, clauses = _kind(clauses)
    names = await call.ws.registry.names(call.who)
    found = [one for one in names if one["kind"] == kind and all(_holds(clause, one["tags"], one) for clause in clauses)]
    for key, ascending in reversed(_order(call.listed("order_by"), NAMES_ORDER, ["name"])):
        found.sort(key=lambda one: one[key], reverse=not ascending)
    start, limit = _start(call), call.number("max_results", 100, 1, 1000)
    items, following = found[start : start + limit], str(start + limit) if len(found) > start + limit else None
    full = await call.ws.registry.full(call.who, items)
    return lacking({"registered_models": [name_of(one) for one in full], "next_page_token": following})


async def search_versions(call: Call) -> Any:
    """model-versions/search, which the database answers whole."""
    kind, clauses = _kind(run_filter.parse(str(call.get("filter", "")), VERSIONS))
    order = _order(call.listed("order_by") or ["last_updated_timestamp DESC"], VERSIONS_ORDER, ["name", "version"])
    start, limit = _start(call), call.number("max_results", 10_000, 1, 200_000)
    items, more = await call.ws.registry.search_versions(call.who, kind, clauses, order, limit, start)
    following = str(start + limit) if more else None
    return await asyncio.to_thread(lambda: reply(lacking({"model_versions": [version_of(one) for one in items], "next_page_token": following})))


def _kind(clauses: list[run_filter.Clause]) -> tuple[str, list[run_filter.Clause]]:
    """("prompt" where a clause asks for prompts, else "model", and the clauses that are left)."""
    asked = [one for one in clauses if one.entity == "tag" and one.key == IS_PROMPT]
    prompts = any((one.op, str(one.value).lower()) in (("=", "true"), ("!=", "false")) for one in asked)
    return "prompt" if prompts else "model", [one for one in clauses if one not in asked]


_COMPARE = {"=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def _holds(clause: run_filter.Clause, tags: dict[str, str], fields: dict[str, Any]) -> bool:
    """Whether a clause holds of a name; of what it has not, none does."""
    value = tags.get(clause.key) if clause.entity == "tag" else fields.get(clause.key)
    if value is None:
        return False
    if clause.op in ("LIKE", "ILIKE"):
        pattern = re.escape(clause.value).replace("%", ".*").replace("_", ".")
        return re.fullmatch(pattern, str(value), re.DOTALL | (re.IGNORECASE if clause.op == "ILIKE" else 0)) is not None
    if clause.op in ("IN", "NOT IN"):
        return (value in clause.value) == (clause.op == "IN")
    return bool(_COMPARE[clause.op](value, clause.value))


def _order(order_by: list[Any], grammar: run_filter.Grammar, ties: list[str]) -> list[tuple[str, bool]]:
    """[(key, ascending)] as asked; equals by name up and version down. BadInput for a key that is none, or that comes twice."""
    keys: list[tuple[str, bool]] = []
    for text in order_by:
        entity, key, ascending = run_filter.parse_order(str(text), grammar)
        if entity != "attribute":
            raise BadInput(f"Invalid order_by entity in {text!r}.", f"Order by: {', '.join(sorted(grammar.attributes))}.")
        if key in (one for one, _ in keys):
            raise BadInput(f"`order_by` contains duplicate fields: {order_by}")
        keys.append((key, ascending))
    return keys + [(key, key == "name") for key in ties if key not in (one for one, _ in keys)]


def _start(call: Call) -> int:
    token = str(call.get("page_token", "") or "0")
    if not token.isdigit():
        raise BadInput(f"Invalid page token {token!r}.", "Use the next_page_token of an earlier answer.")
    return int(token)
