"""registered-models/search and model-versions/search: MLflow's filters, orders and pages over names and versions.

A prompt is found only where the filter asks for prompts (``tags.`mlflow.prompt.is_prompt` = 'true'``), as in MLflow.
"""

from __future__ import annotations

import operator
import re
from typing import Any

from everloop.assets import run_filter
from everloop.core.errors import BadInput
from everloop.protocols.mlflow.shapes import IS_PROMPT, name_of, origin, version_of
from everloop.protocols.mlflow.wire import Call, lacking

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
    _sort(found, call.listed("order_by"), NAMES_ORDER, ["name"])
    items, following = _page(call, found, 100, 1000)
    full = await call.ws.registry.full(call.who, items)
    return lacking({"registered_models": [name_of(one) for one in full], "next_page_token": following})


async def search_versions(call: Call) -> Any:
    """model-versions/search. What is asked of name and run the database answers."""
    clauses = run_filter.parse(str(call.get("filter", "")), VERSIONS)
    kind, clauses = _kind(clauses)
    found = await call.ws.registry.versions(call.who, _asked(clauses, "name"), _asked(clauses, "run"), kind)
    found = [one for one in found if all(_holds(clause, one["tags"], {**one, "source": origin(one).get("source", "")}) for clause in clauses)]
    order = call.listed("order_by") or ["last_updated_timestamp DESC"]
    _sort(found, order, VERSIONS_ORDER, ["name", "version"])
    items, following = _page(call, found, 10_000, 200_000)
    return lacking({"model_versions": [version_of(one) for one in items], "next_page_token": following})


def _kind(clauses: list[run_filter.Clause]) -> tuple[str, list[run_filter.Clause]]:
    """("prompt" where a clause asks for prompts, else "model", and the clauses that are left)."""
    asked = [one for one in clauses if one.entity == "tag" and one.key == IS_PROMPT]
    prompts = any((one.op, str(one.value).lower()) in (("=", "true"), ("!=", "false")) for one in asked)
    return "prompt" if prompts else "model", [one for one in clauses if one not in asked]


def _asked(clauses: list[run_filter.Clause], key: str) -> list[str] | None:
    """The values that a field must have one of, by `=` and IN; None where nothing is said."""
    found: list[str] | None = None
    for clause in clauses:
        if clause.entity == "attribute" and clause.key == key and clause.op in ("=", "IN"):
            values = [clause.value] if clause.op == "=" else list(clause.value)
            found = values if found is None else [one for one in found if one in values]
    return found


_COMPARE = {"=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def _holds(clause: run_filter.Clause, tags: dict[str, str], fields: dict[str, Any]) -> bool:
    """Whether a clause holds of a name or version; of what it has not, none does."""
    value = tags.get(clause.key) if clause.entity == "tag" else fields.get(clause.key)
    if value is None:
        return False
    if clause.op in ("LIKE", "ILIKE"):
        pattern = re.escape(clause.value).replace("%", ".*").replace("_", ".")
        return re.fullmatch(pattern, str(value), re.DOTALL | (re.IGNORECASE if clause.op == "ILIKE" else 0)) is not None
    if clause.op in ("IN", "NOT IN"):
        return (value in clause.value) == (clause.op == "IN")
    return bool(_COMPARE[clause.op](value, clause.value))


def _sort(found: list[dict[str, Any]], order_by: list[Any], grammar: run_filter.Grammar, ties: list[str]) -> None:
    """Sort as asked; equals by name up and version down. BadInput for a key that is none, or that comes twice."""
    keys: list[tuple[str, bool]] = []
    for text in order_by:
        entity, key, ascending = run_filter.parse_order(str(text), grammar)
        if entity != "attribute":
            raise BadInput(f"Invalid order_by entity in {text!r}.", f"Order by: {', '.join(sorted(grammar.attributes))}.")
        if key in (one for one, _ in keys):
            raise BadInput(f"`order_by` contains duplicate fields: {order_by}")
        keys.append((key, ascending))
    keys += [(key, key == "name") for key in ties if key not in (one for one, _ in keys)]
    for key, ascending in reversed(keys):
        found.sort(key=lambda one: one[key], reverse=not ascending)


def _page(call: Call, found: list[dict[str, Any]], size: int, most: int) -> tuple[list[dict[str, Any]], str | None]:
    limit = call.number("max_results", size, 1, most)
    token = str(call.get("page_token", "") or "0")
    if not token.isdigit():
        raise BadInput(f"Invalid page token {token!r}.", "Use the next_page_token of an earlier answer.")
    start = int(token)
    return found[start : start + limit], str(start + limit) if len(found) > start + limit else None
