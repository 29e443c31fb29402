"""Which LLM is there? Keys in the environment first, then a local OpenAI-compatible server, else the extractive engine."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

LOCAL = ("http://127.0.0.1:11434/v1", "http://127.0.0.1:8000/v1")
"""Where Ollama and vLLM listen by default."""
PROBE_SECONDS = 0.3
"""Time a local server has to list its models."""
OPENAI_MODEL, ANTHROPIC_MODEL = "gpt-5-mini", "claude-haiku-4-5"
"""Models asked for when OPENAI_MODEL or ANTHROPIC_MODEL do not say."""


def choose(environ: Mapping[str, str] | None = None, local: tuple[str, ...] = LOCAL) -> tuple[dict[str, Any], str]:
    """(engine spec for a release's params, one sentence that says which LLM answers and why). Blocks for two seconds at most.

    The server reads the same variables when it is asked: it must have been started with them.
    """
    env = os.environ if environ is None else environ
    base = env.get("OPENAI_BASE_URL", "").rstrip("/")
    if env.get("OPENAI_API_KEY") or base:
        return _openai(env, base)
    if env.get("ANTHROPIC_API_KEY"):
        model = env.get("ANTHROPIC_MODEL") or ANTHROPIC_MODEL
        spec = {"name": "anthropic", "model": model, "key": "env:ANTHROPIC_API_KEY"}
        if env.get("ANTHROPIC_BASE_URL"):
            spec["base_url"] = env["ANTHROPIC_BASE_URL"]
        where = urlsplit(spec["base_url"]).netloc if "base_url" in spec else "Anthropic"
        return spec, f"The LLM is {model} at {where}, because ANTHROPIC_API_KEY is set (ANTHROPIC_MODEL names another model)."
    for url in local:
        models = list_models(url, PROBE_SECONDS)
        if models:
            spec = {"name": "openai", "model": models[0], "base_url": url, "key": ""}
            more = f"; it has {len(models)} models, OPENAI_BASE_URL with OPENAI_MODEL choose another" if len(models) > 1 else ""
            return spec, f"The LLM is {models[0]} on this machine, because an OpenAI-compatible server answers at {url}{more}."
    return {"name": "extractive"}, (
        "No LLM was found (OPENAI_API_KEY, OPENAI_BASE_URL and ANTHROPIC_API_KEY are not set, no Ollama or vLLM answers on ports 11434 or 8000), so the "
        "extractive engine answers: it quotes the best sentences of the documents and cites them."
    )


def _openai(env: Mapping[str, str], base: str) -> tuple[dict[str, Any], str]:
    key = "env:OPENAI_API_KEY" if env.get("OPENAI_API_KEY") else ""
    model = env.get("OPENAI_MODEL", "")
    if not model and base and "api.openai.com" not in base:
        models = list_models(base, 2.0, env.get("OPENAI_API_KEY", ""))
        model = models[0] if models else ""
    model = model or OPENAI_MODEL
    spec: dict[str, Any] = {"name": "openai", "model": model, "key": key}
    if base:
        spec["base_url"] = base
        guessed = "" if env.get("OPENAI_MODEL") or model != OPENAI_MODEL else "; it lists no models, so OPENAI_MODEL should name one"
        return spec, f"The LLM is {model} at {urlsplit(base).netloc}, because OPENAI_BASE_URL is set{guessed}."
    return spec, f"The LLM is {model} at OpenAI, because OPENAI_API_KEY is set (OPENAI_MODEL names another model)."


def list_models(base: str, seconds: float, key: str = "") -> list[str]:
    """The chat models that an OpenAI-compatible server lists; [] if it does not answer so in time."""
    parts = urlsplit(base)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    except ValueError:
        return []
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/models", headers={"authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        body = json.loads(response.read(2_000_000)) if response.status == 200 else {}
    except (OSError, http.client.HTTPException, ValueError):
        return []
    finally:
        connection.close()
    items = body.get("data") if isinstance(body, dict) else None
    names = [str(i["id"]) for i in items or () if isinstance(i, dict) and i.get("id")]
    return [n for n in names if "embed" not in n.lower()]
