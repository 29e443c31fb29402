"""What may stand in the params of pipelines and schedules: no credentials, since params are stored and shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput

_WITH_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/\s:@]*:[^/\s@]+@")


def refuse_credentials(params: Any, where: str = "params") -> None:
    """BadInput if a URL with a password stands anywhere in `params` (the password is not repeated)."""
    if isinstance(params, Mapping):
        for key, value in params.items():
            refuse_credentials(value, f"{where}.{key}")
    elif isinstance(params, list | tuple):
        for i, value in enumerate(params):
            refuse_credentials(value, f"{where}[{i}]")
    elif isinstance(params, str) and _WITH_PASSWORD.search(params):
        raise BadInput(
            f"{where} holds a URL with a password in clear; params are stored and shown to everyone in the project.",
            "Put the URL into an environment variable of the worker and write env:NAME, or into a file and write file:/path.",
        )
