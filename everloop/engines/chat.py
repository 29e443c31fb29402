"""From the engine spec in a chat release's parameters to the callable that answers; secrets, prices and texts that all LLM engines share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from everloop.core.errors import BadInput, UpstreamFailed
from everloop.core.types import Serve, Usage
from everloop.engines.base import Secrets, llms
from everloop.engines.prices import cost

KEY_HOSTS = {
    "OPENAI_API_KEY": "api.openai.com",
    "ANTHROPIC_API_KEY": "api.anthropic.com",
    "MISTRAL_API_KEY": "api.mistral.ai",
    "GROQ_API_KEY": "api.groq.com",
    "OPENROUTER_API_KEY": "openrouter.ai",
    "TOGETHER_API_KEY": "api.together.xyz",
    "DEEPSEEK_API_KEY": "api.deepseek.com",
    "GEMINI_API_KEY": "generativelanguage.googleapis.com",
    "XAI_API_KEY": "api.x.ai",
}
"""Where providers' usual key variables may be sent. NAME_API_KEY may also go to the host of NAME_BASE_URL in the server's environment."""
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")


def make(spec: Mapping[str, Any], secrets: Secrets) -> Serve:
    """The LLM engine that `spec` names (`{"name": "extractive" | "openai" | "anthropic" | ..., ...}`) as a `Serve` over `Chat` inputs.

    `secrets` turns `spec["key"]` (`env:OPENAI_API_KEY`) into the key, at each call. BadInput without a name or with a key written out, NotFound
    for an unknown engine.
    """
    name = spec.get("name")
    if not isinstance(name, str) or not name:
        raise BadInput("The engine's spec names no engine.", f"Engines: {', '.join(llms.names())}.")
    key = spec.get("key") or ""
    if key and not (isinstance(key, str) and _REFERENCE.fullmatch(key)):
        raise BadInput("A provider's key does not belong in a release.", 'Name its environment variable: "key": "env:OPENAI_API_KEY".')
    url = spec.get("base_url") or ""
    if url and (urlsplit(str(url)).scheme not in ("http", "https") or "@" in urlsplit(str(url)).netloc):
        raise BadInput("The engine's base_url must be an http or https URL without a user or password.", "For example http://127.0.0.1:11434/v1.")
    return llms.get(name)(spec, secrets)


def env_secrets(reference: str, url: str) -> str:
    """Secrets of the form `env:NAME`, from the server's environment, for a request to `url`; "" stays "".

    A key goes only to its provider (KEY_HOSTS) or to the host of NAME_BASE_URL in the same environment, so that no one who may write a release
    can have it sent elsewhere. UpstreamFailed if the variable is not set, BadInput if the key may not go to `url`.
    """
    if not reference:
        return ""
    if not _REFERENCE.fullmatch(reference):
        raise BadInput(f"{reference!r} is not a reference to a secret.", "Write it as env:NAME_OF_THE_VARIABLE.")
    name = reference.removeprefix("env:")
    home = f"{name.removesuffix('_KEY').removesuffix('_API')}_BASE_URL"
    parts = urlsplit(url)
    host = parts.netloc
    allowed = {KEY_HOSTS.get(name) if parts.scheme == "https" else None, urlsplit(os.environ.get(home, "")).netloc} - {None, ""}
    if host not in allowed:
        raise BadInput(
            f"The key {name} may not be sent to {host}.",
            f"It may go to: {', '.join(sorted(map(str, allowed)))}."
            if allowed
            else f"Say where it may go in the server's environment: {home}={parts.scheme}://{host}",
        )
    value = os.environ.get(name)
    if not value:
        raise UpstreamFailed(f"The environment variable {name} is not set on the server.", f"Set it before the server starts: export {name}=...")
    return value


def priced(usage: Usage, prices: Mapping[str, float] | None, free: bool = False) -> Usage:
    """The usage with its cost in US dollars: by `prices` ({"input", "output", "cached"?} per million tokens) from the engine's spec if given,
    0 where tokens are `free` (a server on this machine), else by the price table; None where no price is known.
    """
    if prices:
        fresh, rate = usage.tokens_in - usage.tokens_cached, float(prices.get("input", 0.0))
        cached = usage.tokens_cached * float(prices.get("cached", rate))
        return replace(usage, cost=(fresh * rate + cached + usage.tokens_out * float(prices.get("output", 0.0))) / 1e6)
    if free:
        return replace(usage, cost=0.0)
    if not (usage.tokens_in or usage.tokens_out):
        return usage
    return replace(usage, cost=cost(usage.provider, usage.model, usage.tokens_in, usage.tokens_out, usage.tokens_cached))


def question_of(messages: Any) -> str:
    """The text of the last user message (its text parts, if it is a list of parts); "" if there is none."""
    for message in reversed(list(messages)):
        if message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def text_of(content: Any) -> str:
    """A message's content as text: a string, or the text parts of a list joined by line breaks."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [p if isinstance(p, str) else p.get("text") or "" for p in content if isinstance(p, (str, Mapping))]
        return "\n".join(p for p in parts if p)
    return "" if content is None else str(content)
