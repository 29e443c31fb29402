"""Where a run's code ran: git commit, Python, packages, command. Read once a process, in the background, never in the way of user code."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
from typing import Any

_SECRET = re.compile(r"(key|token|secret|passw|credential)", re.IGNORECASE)
GIT_SECONDS = 5.0


@functools.cache
def environment() -> dict[str, Any]:
    """{"python", "platform", "packages": {name: version}} of this process."""
    from importlib.metadata import distributions

    packages = {}
    for one in distributions():
        name = one.metadata["Name"]
        if name:
            packages[str(name).lower()] = one.version
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": dict(sorted(packages.items()))}


@functools.cache
def code() -> dict[str, Any]:
    """{"command", "commit", "dirty", "repository"} of this process; without the last three where there is no git."""
    found: dict[str, Any] = {"command": command(sys.argv)}
    folder = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv and os.path.exists(sys.argv[0]) else os.getcwd()
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        found["commit"] = commit
        found["dirty"] = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
        remote = _git(folder, "config", "--get", "remote.origin.url")
        if remote:
            found["repository"] = re.sub(r"//[^/@]*@", "//", remote)
    return found


def command(argv: list[str]) -> str:
    """The command line with values of options that look like secrets masked."""
    shown, hide = [], False
    for word in argv:
        name, equals, _value = word.partition("=")
        if hide:
            shown.append("***")
            hide = False
        elif equals and _SECRET.search(name):
            shown.append(f"{name}=***")
        else:
            hide = word.startswith("-") and bool(_SECRET.search(word))
            shown.append(word)
    return " ".join(shown)


def _git(folder: str, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
