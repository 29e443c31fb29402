"""Registered models, model versions, aliases and prompts over MLflow's API.

A model version is the asset `model:NAME@V` (manifest format "mlflow", its files registered); a name whose tags say that it is a prompt
holds `prompt:NAME@V`, whose manifest has the messages, so that a release can pin it. An alias is our alias and moves through the gate.
"""

from __future__ import annotations

import operator
import re
from typing import Any

import orjson

from everloop.assets import run_filter
from everloop.core.errors import BadInput
from everloop.protocols.mlflow.artifacts import files_of, place
from everloop.protocols.mlflow.wire import Call, lacking, ms, tag_list

IS_PROMPT, PROMPT_TEXT, PROMPT_TYPE = "mlflow.prompt.is_prompt", "mlflow.prompt.text", "_mlflow_prompt_type"
STAGE = "everloop.mlflow.stage"
STAGES = ("None", "Staging", "Production", "Archived")
_TAGS = dict.fromkeys(("tag", "tags"), "tag")
NAMES = run_filter.Grammar(
    "registered models", {"name": ("name", "list"), "timestamp": ("at", "number"), "last_updated_timestamp": ("at", "number")}, _TAGS, {"tag": "null"}
)
VERSIONS = run_filter.Grammar(
    "model versions",
    {
        "name": ("name", "list"),
        "version_number": ("version", "number"),
        "version": ("version", "number"),
        "run_id": ("run", "list"),
        "source_path": ("source", "list"),
        "creation_timestamp": ("created_at", "number"),
        "last_updated_timestamp": ("created_at", "number"),
    },
    _TAGS,
    {"tag": "null"},
)
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][\w.]*)\s*\}\}")


async def create_name(call: Call) -> Any:
    """registered-models/create."""
    tags = call.pairs()
    kind = "prompt" if tags.get(IS_PROMPT, "").lower() == "true" else "model"
    made = await call.ws.registry.create(call.who, call.need("name"), kind, str(call.get("description", "")), tags)
    return {"registered_model": name_of(made)}


async def get_name(call: Call) -> Any:
    """registered-models/get."""
    return {"registered_model": name_of(await call.ws.registry.get(call.who, call.need("name")))}


async def search_names(call: Call) -> Any:
    """registered-models/search."""
    clauses = run_filter.parse(str(call.get("filter", "")), NAMES)

    def fits(one: dict[str, Any]) -> bool:
        tags = {**one["tags"], **({IS_PROMPT: "true"} if one["kind"] == "prompt" else {})}
        return all(_holds(clause, tags if clause.entity == "tag" else {"name": one["name"], "at": one["updated_at"]}) for clause in clauses)

    found = await call.ws.registry.search(call.who, fits)
    _sort(found, call.listed("order_by"), NAMES, {"name": lambda one: one["name"], "at": lambda one: one["updated_at"]})
    items, following = _page(call, found, 100, 1000)
    return lacking({"registered_models": [name_of(one) for one in items], "next_page_token": following})


async def update_name(call: Call) -> Any:
    """registered-models/update: the description."""
    return {"registered_model": name_of(await call.ws.registry.change(call.who, call.need("name"), description=str(call.get("description", ""))))}


async def rename(call: Call) -> Any:
    """registered-models/rename."""
    return {"registered_model": name_of(await call.ws.registry.rename(call.who, call.need("name"), call.need("new_name")))}


async def delete_name(call: Call) -> Any:
    """registered-models/delete."""
    await call.ws.registry.delete(call.who, call.need("name"))


async def set_name_tag(call: Call) -> Any:
    """registered-models/set-tag."""
    await call.ws.registry.change(call.who, call.need("name"), tags={call.need("key"): str(call.get("value", ""))})


async def delete_name_tag(call: Call) -> Any:
    """registered-models/delete-tag."""
    await call.ws.registry.change(call.who, call.need("name"), tags={call.need("key"): None})


async def latest_versions(call: Call) -> Any:
    """registered-models/get-latest-versions: the newest of each stage."""
    name = call.need("name")
    await call.ws.registry.get(call.who, name)
    wanted = [str(one).lower() for one in call.listed("stages")]
    newest: dict[str, dict[str, Any]] = {}
    for one in await call.ws.registry.versions(call.who, name):
        newest.setdefault(one["tags"].get(STAGE, "None"), one)
    shown = [version_of(one) for stage, one in newest.items() if not wanted or stage.lower() in wanted]
    return {"model_versions": shown}


async def create_version(call: Call) -> Any:
    """model-versions/create: the files that the source names are registered with it."""
    name, source = call.need("name"), call.need("source")
    found, tags = await call.ws.registry.get(call.who, name), call.pairs()
    run = str(call.get("run_id") or "") or None
    origin = lacking({"source": source, "run": run, "model": call.get("model_id"), "link": call.get("run_link"), "id": call.ws.clock.new_id()})
    if found["kind"] == "prompt":
        manifest = {**prompt_manifest(tags), "mlflow": origin}
    else:
        where = await _resolve(call, source)
        sort, owner, _ = place(_path_of(where)) if where else ("", "", "")
        if sort == "model":
            origin["model"] = owner
            run = run or (await call.ws.runs.model(call.who, owner))["run"]
        origin["artifact_uri"] = where or source
        files = await _files(call, where) if where else []
        manifest = {"format": "mlflow", "files": files, "mlflow": origin}
    made = await call.ws.registry.add_version(call.who, name, manifest, run=run, description=str(call.get("description", "")), tags=tags)
    return {"model_version": version_of(made)}


async def get_version(call: Call) -> Any:
    """model-versions/get."""
    return {"model_version": version_of(await _version(call))}


async def update_version(call: Call) -> Any:
    """model-versions/update: the description."""
    asset = await _version(call)
    return {"model_version": version_of(await call.ws.assets.annotate(call.who, asset["ref"], str(call.get("description", ""))))}


async def delete_version(call: Call) -> Any:
    """model-versions/delete."""
    await call.ws.registry.delete_version(call.who, call.need("name"), _number(call))


async def set_version_tag(call: Call) -> Any:
    """model-versions/set-tag."""
    asset = await _version(call)
    await call.ws.assets.annotate(call.who, asset["ref"], None, {call.need("key"): str(call.get("value", ""))})


async def delete_version_tag(call: Call) -> Any:
    """model-versions/delete-tag."""
    asset = await _version(call)
    await call.ws.assets.annotate(call.who, asset["ref"], None, {call.need("key"): None})


async def transition(call: Call) -> Any:
    """model-versions/transition-stage: stages are a tag here; traffic follows none of them."""
    asset = await _version(call)
    stage = next((one for one in STAGES if one.lower() == call.need("stage").lower()), None)
    if stage is None:
        raise BadInput(f"Invalid Model Version stage: {call.get('stage')}.", f"Value must be one of {', '.join(STAGES)}.")
    if call.get("archive_existing_versions") in (True, "true"):
        if stage not in ("Staging", "Production"):
            raise BadInput("Archiving existing versions goes with the stages Staging and Production only.")
        for other in await call.ws.registry.versions(call.who, asset["name"]):
            if other["tags"].get(STAGE) == stage and other["ref"] != asset["ref"]:
                await call.ws.assets.annotate(call.who, other["ref"], None, {STAGE: "Archived"})
    return {"model_version": version_of(await call.ws.assets.annotate(call.who, asset["ref"], None, {STAGE: stage}))}


async def search_versions(call: Call) -> Any:
    """model-versions/search."""
    clauses = run_filter.parse(str(call.get("filter", "")), VERSIONS)
    name = next((c.value for c in clauses if c.entity == "attribute" and c.key == "name" and c.op == "="), None)

    def fits(one: dict[str, Any]) -> bool:
        fields = {**{k: one[k] for k in ("name", "version", "run", "created_at")}, "source": _origin(one).get("source", "")}
        tags = {**({IS_PROMPT: "true"} if one["kind"] == "prompt" else {}), **one["tags"]}
        return all(_holds(clause, tags if clause.entity == "tag" else fields) for clause in clauses)

    found = [one for one in await call.ws.registry.versions(call.who, name) if fits(one)]
    keys = {"name": lambda one: one["name"], "version": lambda one: one["version"], "created_at": lambda one: one["created_at"]}
    _sort(found, call.listed("order_by") or ["last_updated_timestamp DESC", "name ASC", "version_number DESC"], VERSIONS, keys)
    items, following = _page(call, found, 10_000, 200_000)
    return lacking({"model_versions": [version_of(one) for one in items], "next_page_token": following})


async def download_uri(call: Call) -> Any:
    """model-versions/get-download-uri."""
    asset = await _version(call)
    return {"artifact_uri": _origin(asset).get("artifact_uri") or _asset_uri(asset)}


async def set_alias(call: Call) -> Any:
    """POST registered-models/alias: the alias moves through the gate, where one is declared."""
    asset = await _version(call)
    await call.ws.assets.move_alias(call.who, asset["ref"], call.need("alias"), why="MLflow: set_registered_model_alias")


async def delete_alias(call: Call) -> Any:
    """DELETE registered-models/alias; one that is not there is gone already."""
    found = await call.ws.registry.get(call.who, call.need("name"))
    alias = call.need("alias")
    if alias in found["aliases"]:
        await call.ws.assets.remove_alias(call.who, found["kind"], found["name"], alias, "MLflow: delete_registered_model_alias")


async def get_by_alias(call: Call) -> Any:
    """GET registered-models/alias."""
    name, alias = call.need("name"), call.need("alias")
    found = await call.ws.registry.get(call.who, name)
    if alias not in found["aliases"]:
        raise BadInput(f"Registered model alias {alias} not found.")
    return {"model_version": version_of(await call.ws.registry.version(call.who, name, str(found["aliases"][alias])))}


def name_of(one: dict[str, Any]) -> dict[str, Any]:
    """A registered model in MLflow's shape."""
    tags = {**one["tags"], **({IS_PROMPT: "true"} if one["kind"] == "prompt" else {})}
    return {
        "name": one["name"],
        "creation_timestamp": ms(one["created_at"]),
        "last_updated_timestamp": ms(one["updated_at"]),
        "description": one["description"],
        "latest_versions": [version_of(one["latest"])] if one.get("latest") else [],
        "tags": tag_list(tags),
        "aliases": [{"alias": alias, "version": str(number)} for alias, number in one["aliases"].items()],
    }


def version_of(asset: dict[str, Any]) -> dict[str, Any]:
    """An asset as a model version in MLflow's shape; a prompt made elsewhere gets the tags that MLflow's client reads it from."""
    origin = _origin(asset)
    tags = dict(asset["tags"])
    stage = tags.pop(STAGE, "None")
    if asset["kind"] == "prompt" and PROMPT_TEXT not in tags:
        messages = asset["manifest"].get("messages") or []
        tags |= {IS_PROMPT: "true", PROMPT_TYPE: "chat", PROMPT_TEXT: orjson.dumps(messages).decode()}
    body = {
        "name": asset["name"],
        "version": str(asset["version"]),
        "creation_timestamp": ms(asset["created_at"]),
        "last_updated_timestamp": ms(asset["created_at"]),
        "user_id": asset["created_by"],
        "current_stage": stage,
        "description": asset["description"],
        "source": origin.get("source") or _asset_uri(asset),
        "run_id": asset["run"] or "",
        "run_link": origin.get("link"),
        "model_id": origin.get("model"),
        "status": "READY",
        "tags": tag_list(tags),
        "aliases": list(asset["aliases"]),
    }
    return lacking(body)


def prompt_manifest(tags: dict[str, str]) -> dict[str, Any]:
    """The manifest of a prompt from MLflow's tags; BadInput where a chat prompt's messages are not JSON."""
    text = tags.get(PROMPT_TEXT, "")
    messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    if tags.get(PROMPT_TYPE) == "chat":
        try:
            messages = [{"role": str(m["role"]), "content": m["content"]} for m in orjson.loads(text)]
        except (ValueError, TypeError, KeyError):
            raise BadInput("The prompt says that it is a chat, and its text is not a JSON list of messages with role and content.") from None
    variables = list(dict.fromkeys(_VARIABLE.findall(text)))
    return {"messages": messages, "syntax": "jinja2", "variables": variables, "parameters": {}, "settings": {}}


def _origin(asset: dict[str, Any]) -> dict[str, Any]:
    return asset["manifest"].get("mlflow") or {}


def _asset_uri(asset: dict[str, Any]) -> str:
    return f"mlflow-artifacts:/everloop/{asset['kind']}/{asset['name']}/{asset['version']}"


def _number(call: Call) -> str:
    text = call.need("version")
    if not text.isdigit():
        raise BadInput(f"Invalid value {text!r} for parameter 'version' supplied: it must be a version number.")
    return text


async def _version(call: Call) -> dict[str, Any]:
    return await call.ws.registry.version(call.who, call.need("name"), _number(call))


async def _resolve(call: Call, source: str) -> str | None:
    """The mlflow-artifacts: URI that a source means, or None where it lies outside (a bucket): then no file is registered.

    A path of this machine's disk is refused: the server never reads files that a client names.
    """
    if source.startswith("models:/"):
        rest = source.removeprefix("models:/").strip("/")
        if rest.startswith("m-") and "/" not in rest:
            from everloop.protocols.mlflow.models import uri_of

            return uri_of(await call.ws.runs.model(call.who, rest))
        name, _, at = rest.partition("/")
        if not at:
            name, _, at = rest.partition("@")
        asset = await call.ws.registry.version(call.who, name, at)
        return _origin(asset).get("artifact_uri") or _asset_uri(asset)
    if source.startswith("runs:/"):
        id, _, rest = source.removeprefix("runs:/").partition("/")
        run = await call.ws.runs.get(call.who, id)
        return f"mlflow-artifacts:/{run['experiment_id']}/{id}/artifacts/{rest}".rstrip("/")
    if source.startswith("mlflow-artifacts:"):
        return source
    if "://" not in source or source.startswith("file:") or ".." in source:
        raise BadInput(
            f"Invalid model version source: '{source}'. It must be models:/..., runs:/..., mlflow-artifacts:/... or a bucket's URL.",
            "To use a local path as a model version source, log the model first: its files then live in everloop.",
        )
    return None


def _path_of(uri: str) -> str:
    return re.sub(r"^mlflow-artifacts:(//[^/]*)?", "", uri).strip("/")


async def _files(call: Call, uri: str) -> list[dict[str, Any]]:
    sort, owner, under = place(_path_of(uri))
    start = len(under) + 1 if under else 0
    found = await files_of(call.ws, call.who, sort, owner, under)
    return [{"path": one["path"][start:], "digest": one["digest"], "size": one["size"]} for one in found]


_COMPARE = {"=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def _holds(clause: run_filter.Clause, fields: dict[str, Any]) -> bool:
    """Whether a clause holds of a name or version. MLflow's one exception: "is not a prompt" holds where the tag is missing."""
    value = fields.get(clause.key)
    if clause.op in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (clause.op == "IS NULL")
    if value is None:
        return clause.key == IS_PROMPT and clause.op == "!="
    if clause.op in ("LIKE", "ILIKE"):
        pattern = re.escape(clause.value).replace("%", ".*").replace("_", ".")
        return re.fullmatch(pattern, str(value), re.DOTALL | (re.IGNORECASE if clause.op == "ILIKE" else 0)) is not None
    if clause.op in ("IN", "NOT IN"):
        return (value in clause.value) == (clause.op == "IN")
    wanted = run_filter.seconds(clause.value) if isinstance(clause.value, float) else clause.value
    return bool(_COMPARE[clause.op](value, wanted))


def _sort(found: list[dict[str, Any]], order_by: list[Any], grammar: run_filter.Grammar, keys: dict[str, Any]) -> None:
    for text in reversed(order_by):
        entity, key, ascending = run_filter.parse_order(str(text), grammar)
        if entity != "attribute" or key not in keys:
            raise BadInput(f"Invalid order by key {text!r} specified.", f"Order by: {', '.join(sorted(grammar.attributes))}.")
        found.sort(key=keys[key], reverse=not ascending)


def _page(call: Call, found: list[dict[str, Any]], size: int, most: int) -> tuple[list[dict[str, Any]], str | None]:
    limit = call.number("max_results", size, 1, most)
    token = str(call.get("page_token", "") or "0")
    if not token.isdigit():
        raise BadInput(f"Invalid page token {token!r}.", "Use the next_page_token of an earlier answer.")
    start = int(token)
    return found[start : start + limit], str(start + limit) if len(found) > start + limit else None


ROUTES = [
    ("POST", "registered-models/create", create_name),
    ("GET", "registered-models/get", get_name),
    ("GET", "registered-models/search", search_names),
    ("PATCH", "registered-models/update", update_name),
    ("POST", "registered-models/rename", rename),
    ("DELETE", "registered-models/delete", delete_name),
    ("POST", "registered-models/set-tag", set_name_tag),
    ("DELETE", "registered-models/delete-tag", delete_name_tag),
    ("GET", "registered-models/get-latest-versions", latest_versions),
    ("POST", "registered-models/get-latest-versions", latest_versions),
    ("POST", "registered-models/alias", set_alias),
    ("DELETE", "registered-models/alias", delete_alias),
    ("GET", "registered-models/alias", get_by_alias),
    ("POST", "model-versions/create", create_version),
    ("GET", "model-versions/get", get_version),
    ("GET", "model-versions/search", search_versions),
    ("PATCH", "model-versions/update", update_version),
    ("DELETE", "model-versions/delete", delete_version),
    ("POST", "model-versions/set-tag", set_version_tag),
    ("DELETE", "model-versions/delete-tag", delete_version_tag),
    ("POST", "model-versions/transition-stage", transition),
    ("GET", "model-versions/get-download-uri", download_uri),
]
