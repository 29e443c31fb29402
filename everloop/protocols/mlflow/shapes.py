"""Registered models and their versions in MLflow's shape."""

from __future__ import annotations

from typing import Any

import orjson

from everloop.assets.registry import STAGE
from everloop.protocols.mlflow.wire import lacking, ms, tag_list

IS_PROMPT, PROMPT_TEXT, PROMPT_TYPE = "mlflow.prompt.is_prompt", "mlflow.prompt.text", "_mlflow_prompt_type"
"""Tags by which MLflow's client knows a prompt and reads it."""


def name_of(one: dict[str, Any]) -> dict[str, Any]:
    """A registered model, from `registry.get` or `registry.full`."""
    tags = {**one["tags"], **({IS_PROMPT: "true"} if one["kind"] == "prompt" else {})}
    return {
        "name": one["name"],
        "creation_timestamp": ms(one["created_at"]),
        "last_updated_timestamp": ms(one["updated_at"]),
        "description": one["description"],
        "latest_versions": [version_of(version) for version in one["latest"]],
        "tags": tag_list(tags),
        "aliases": [{"alias": alias, "version": str(number)} for alias, number in one["aliases"].items()],
    }


def version_of(asset: dict[str, Any]) -> dict[str, Any]:
    """An asset as a model version; a prompt made elsewhere gets the tags that MLflow's client reads it from."""
    known = origin(asset)
    tags = dict(asset["tags"])
    stage = tags.pop(STAGE, "None")
    if asset["kind"] == "prompt" and PROMPT_TEXT not in tags:
        messages = asset["manifest"].get("messages") or []
        tags |= {IS_PROMPT: "true", PROMPT_TYPE: "chat", PROMPT_TEXT: orjson.dumps(messages).decode()}
    body = {
        "name": asset["name"],
        "version": str(asset["version"]),
        "creation_timestamp": ms(asset["created_at"]),
        "last_updated_timestamp": ms(asset["updated_at"]),
        "user_id": asset["created_by"],
        "current_stage": stage,
        "description": asset["description"],
        "source": known.get("source") or asset_uri(asset),
        "run_id": asset["run"] or "",
        "run_link": known.get("link"),
        "model_id": known.get("model"),
        "status": "READY",
        "tags": tag_list(tags),
        "aliases": asset["aliases"],
    }
    return lacking(body)


def origin(asset: dict[str, Any]) -> dict[str, Any]:
    """What MLflow's client said of where a version came from: {"source", "artifact_uri", "run", "model", "link"}, as far as it did."""
    found: dict[str, Any] = asset["manifest"].get("mlflow") or {}
    return found


def asset_uri(asset: dict[str, Any]) -> str:
    """Where MLflow's client finds the files of a version that was made elsewhere."""
    return f"mlflow-artifacts:/everloop/{asset['kind']}/{asset['name']}/{asset['version']}"
