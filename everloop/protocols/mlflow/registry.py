"""Registered models, model versions, aliases and prompts over MLflow's API.

A model version is the asset `model:NAME@V` (manifest format "mlflow", its files registered); a name whose tags say that it is a prompt
holds `prompt:NAME@V`, whose manifest has the messages, so that a release can pin it. An alias is our alias and moves through the gate.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from everloop.assets.registry import STAGE, STAGES
from everloop.core.errors import BadInput, NotFound
from everloop.core.principal import Role
from everloop.protocols.mlflow.registry_search import search_names, search_versions
from everloop.protocols.mlflow.shapes import IS_PROMPT, PROMPT_TEXT, PROMPT_TYPE, asset_uri, name_of, origin, version_of
from everloop.protocols.mlflow.sources import Source, source_of
from everloop.protocols.mlflow.wire import Call, lacking

KEY_CHARS, VALUE_CHARS = 250, 100_000
"""Longest key and value of a tag of a name or version."""
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][\w.]*)\s*\}\}")
_ALIAS = re.compile(r"[\w\-]{1,255}")


async def create_name(call: Call) -> Any:
    """registered-models/create."""
    tags = _tags(call.pairs())
    kind = "prompt" if tags.get(IS_PROMPT, "").lower() == "true" else "model"
    _checked(call.need("name"))
    made = await call.ws.registry.create(call.who, call.need("name"), kind, str(call.get("description", "")), tags)
    return {"registered_model": name_of(made)}


async def get_name(call: Call) -> Any:
    """registered-models/get."""
    return {"registered_model": name_of(await call.ws.registry.get(call.who, call.need("name")))}


async def update_name(call: Call) -> Any:
    """registered-models/update: the description."""
    return {"registered_model": name_of(await call.ws.registry.change(call.who, call.need("name"), description=str(call.get("description", ""))))}


async def rename(call: Call) -> Any:
    """registered-models/rename."""
    return {"registered_model": name_of(await call.ws.registry.rename(call.who, call.need("name"), _checked(call.need("new_name"))))}


async def delete_name(call: Call) -> Any:
    """registered-models/delete."""
    await call.ws.registry.delete(call.who, call.need("name"))


async def set_name_tag(call: Call) -> Any:
    """registered-models/set-tag."""
    await call.ws.registry.change(call.who, call.need("name"), tags=_tags({call.need("key"): str(call.get("value", ""))}))


async def delete_name_tag(call: Call) -> Any:
    """registered-models/delete-tag."""
    await call.ws.registry.change(call.who, call.need("name"), tags={call.need("key"): None})


async def latest_versions(call: Call) -> Any:
    """registered-models/get-latest-versions: the newest of each stage."""
    found = await call.ws.registry.get(call.who, call.need("name"))
    wanted = [stage_of(str(one)) for one in call.listed("stages")]
    return {"model_versions": [version_of(one) for one in found["latest"] if not wanted or one["tags"].get(STAGE, "None") in wanted]}


def stage_of(text: str) -> str:
    """A stage in its own spelling; BadInput in MLflow's words for one that is none."""
    found = next((one for one in STAGES if one.lower() == text.lower()), None)
    if found is None:
        raise BadInput(f"Invalid Model Version stage: {text}. Value must be one of {', '.join(STAGES)}.")
    return found


async def create_version(call: Call) -> Any:
    """model-versions/create: the files that the source names are registered with it."""
    name, source = call.need("name"), call.need("source")
    found, tags = await call.ws.registry.get(call.who, name), _tags(call.pairs())
    run, model = (str(call.get(key) or "") or None for key in ("run_id", "model_id"))
    brought = _brought(call)
    described = lacking({"source": source, "link": call.get("run_link"), "id": call.ws.clock.new_id()})
    if found["kind"] == "prompt":
        manifest = {**prompt_manifest(tags), "mlflow": lacking({**described, "run": run, "model": model})}
    else:
        at = Source(source, None, run, model, list(brought["files"])) if "files" in brought else await source_of(call, source, run, model)
        run, model = at.run, at.model
        described |= lacking(
            {
                "source": brought.get("source") or at.source,
                "artifact_uri": None if "files" in brought else at.uri or at.source,
                "run": run,
                "model": model,
            }
        )
        manifest = {"format": "mlflow", "files": at.files, "written_by": at.written_by, "mlflow": described}
    more = {"run": run, "description": str(call.get("description", "")), "tags": tags}
    more |= {key: brought[key] for key in ("number", "created_at", "updated_at") if key in brought}
    made = await call.ws.registry.add_version(call.who, name, manifest, **more)
    if model and found["kind"] == "model" and not brought:
        await _note(call, model, name, made["version"])
    return {"model_version": version_of(made)}


def _brought(call: Call) -> dict[str, Any]:
    """What an import (admins') says of a version: its "number", times, and its "files" or "source" where the source is none of ours."""
    found = call.get("everloop_import")
    if found is None:
        return {}
    call.who.need(Role.admin, "import with numbers and times")
    if not isinstance(found, dict):
        raise BadInput("Invalid value for parameter 'everloop_import' supplied: it must be an object.")
    return found


async def _note(call: Call, model: str, name: str, version: int) -> None:
    """Write on a logged model which version was made of it, where MLflow's client looks for it."""
    try:
        logged = await call.ws.runs.model(call.who, model)
    except NotFound:
        return
    noted = orjson.loads(logged["tags"].get("mlflow.modelVersions") or "[]")
    if {"name": name, "version": version} in noted:
        return
    noted.append({"name": name, "version": version})
    await call.ws.runs.change_model(call.who, model, tags={"mlflow.modelVersions": orjson.dumps(noted).decode()})


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
    await call.ws.assets.annotate(call.who, asset["ref"], None, _tags({call.need("key"): str(call.get("value", ""))}))


async def delete_version_tag(call: Call) -> Any:
    """model-versions/delete-tag."""
    asset = await _version(call)
    await call.ws.assets.annotate(call.who, asset["ref"], None, {call.need("key"): None})


async def transition(call: Call) -> Any:
    """model-versions/transition-stage: stages are a tag here; traffic follows none of them."""
    archive = call.get("archive_existing_versions") in (True, "true", "True")
    return {"model_version": version_of(await call.ws.registry.transition(call.who, call.need("name"), _number(call), call.need("stage"), archive))}


async def download_uri(call: Call) -> Any:
    """model-versions/get-download-uri."""
    asset = await _version(call)
    return {"artifact_uri": origin(asset).get("artifact_uri") or asset_uri(asset)}


async def set_alias(call: Call) -> Any:
    """POST registered-models/alias: the alias moves through the gate, where one is declared."""
    alias = _alias(call)
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise BadInput(f"The alias name '{alias}' is reserved.", "Use a word such as: champion, staging, canary.")
    asset = await _version(call)
    await call.ws.assets.move_alias(call.who, asset["ref"], alias, why="MLflow: set_registered_model_alias")


async def delete_alias(call: Call) -> Any:
    """DELETE registered-models/alias; one that is not there is gone already."""
    found = await call.ws.registry.get(call.who, call.need("name"))
    alias = _alias(call)
    if alias in found["aliases"]:
        await call.ws.assets.remove_alias(call.who, found["kind"], found["name"], alias, "MLflow: delete_registered_model_alias")


async def get_by_alias(call: Call) -> Any:
    """GET registered-models/alias; `latest` is the newest version."""
    name, alias = call.need("name"), _alias(call)
    found = await call.ws.registry.get(call.who, name)
    if alias.lower() == "latest":
        if not found["latest"]:
            raise NotFound(f"Latest version not found for model {name}.")
        return {"model_version": version_of(found["latest"][0])}
    if alias not in found["aliases"]:
        raise BadInput(f"Registered model alias {alias} not found.")
    return {"model_version": version_of(await call.ws.registry.version(call.who, name, str(found["aliases"][alias])))}


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


def _number(call: Call) -> str:
    text = call.need("version")
    if not text.isdigit():
        raise BadInput(f"Parameter 'version' must be an integer, got '{text}'. Model version must be an integer.")
    return str(int(text))


def _checked(name: str) -> str:
    if "/" in name or ":" in name:
        raise BadInput(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    return name


def _alias(call: Call) -> str:
    alias = call.need("alias")
    if not _ALIAS.fullmatch(alias):
        raise BadInput(f"Invalid alias name: '{alias}'.", "Names may only contain alphanumerics, underscores (_) and dashes (-), 255 at most.")
    return alias


def _tags(tags: dict[str, str]) -> dict[str, str]:
    """Tags that a name or version may have; BadInput for those that are too long."""
    for key, value in tags.items():
        if len(key) > KEY_CHARS:
            raise BadInput(f"'key' exceeds the maximum length of {KEY_CHARS} characters")
        if len(value) > VALUE_CHARS:
            if key == PROMPT_TEXT:
                raise BadInput(f"Prompt text exceeds max length of {VALUE_CHARS} characters.")
            raise BadInput(f"'value' exceeds the maximum length of {VALUE_CHARS} characters")
    return tags


async def _version(call: Call) -> dict[str, Any]:
    return await call.ws.registry.version(call.who, call.need("name"), _number(call))


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
