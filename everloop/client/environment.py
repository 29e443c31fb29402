"""Where a run's code ran: git commit, Python, packages, command. Read once a process, in the background, never in the way of user code."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
from typing import Any

_SECRET = re.compile(r"key(?!s\b|word|point|board)|token(?!iz|s\b)|secret|passw|pwd|credential|auth(?!or)|bearer", re.IGNORECASE)
"""Names whose values are secrets; `--tokenizer`, `--max_tokens` and `--keywords` are not such."""
_VALUES = re.compile(
    r"(?P<url>\b[a-z][a-z0-9+.-]{0,20}://[^/\s:@'\"]{0,200}:)[^/\s@'\"]{1,500}(?=@)"
    r"|(?P<named>(?:api_?key|secret(?:_?key)?|password|passwd|access_?token|auth_?token)[\"']?\]?\s{0,9}[:=]\s{0,9}[\"'])[^\"'\s]+(?=[\"'])"
    r"|(?P<said>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|\b(?:sk-[A-Za-z0-9_-]{16,}|evt?_[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|(?-i:AKIA[0-9A-Z]{16}|AIza[\w-]{30,}))",
    re.IGNORECASE,
)
"""Secrets that show by themselves, wherever they stand: passwords in URLs, quoted values of names as above, bearer tokens, keys of well-known makers."""
GIT_SECONDS = 5.0
PATCH_BYTES = 5_000_000
"""Largest patch, or program, that is kept with a run."""


@functools.cache
def environment(seed: int | None = None) -> dict[str, Any]:
    """{"python", "platform", "packages": {name: version}, "hardware", "seeds"?} of this process; `seed` is what the program says it uses."""
    from importlib.metadata import distributions

    from everloop.client import system

    packages = {}
    for one in distributions():
        name = one.metadata["Name"]
        if name:
            packages[str(name).lower()] = one.version
    found = {"python": platform.python_version(), "platform": platform.platform(), "packages": dict(sorted(packages.items()))}
    found["hardware"] = system.hardware()
    seeds = {"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED"), "seed": seed}
    if any(value is not None for value in seeds.values()):
        found["seeds"] = {name: value for name, value in seeds.items() if value is not None}
    return found


@functools.cache
def code() -> dict[str, Any]:
    """{"command", "argv", "folder", "commit", "branch", "dirty", "root", "repository"} of this process; without the last five where there is no git.

    `argv` is the command in words, secrets masked; `folder` is where it ran, seen from the repository's root.
    """
    found: dict[str, Any] = {"command": command(sys.argv), "argv": masked(sys.argv), "folder": os.getcwd()}
    folder = _folder()
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        root = _git(folder, "rev-parse", "--show-toplevel") or folder
        found |= {"commit": commit, "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "", "root": root}
        found["dirty"] = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
        found["folder"] = os.path.relpath(os.getcwd(), root)
        remote = _git(folder, "config", "--get", "remote.origin.url")
        if remote:
            found["repository"] = re.sub(r"//[^/@]*@", "//", remote)
    return found


def sources() -> list[tuple[str, bytes]]:
    """What git does not have: the changes since the commit as `code/dirty.patch`, and the program where it is not tracked, below `code/untracked/`.

    Nothing larger than PATCH_BYTES; keys and passwords that show as such are masked (of a patch in the lines it adds, so that it still applies).
    """
    found: list[tuple[str, bytes]] = []
    known = code()
    if known.get("dirty"):
        patch = _git_bytes(known["root"], "diff", "--binary", "HEAD")
        if patch and len(patch) <= PATCH_BYTES:
            lines = patch.split(b"\n")
            found.append(("code/dirty.patch", b"\n".join(_hidden(line) if line.startswith(b"+") else line for line in lines)))
    program = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    if not program.endswith((".py", ".ipynb")) or not os.path.isfile(program) or os.path.getsize(program) > PATCH_BYTES:
        return found
    root = known.get("root")
    inside = root and os.path.realpath(program).startswith(os.path.realpath(root) + os.sep)
    if inside and _git(root, "ls-files", "--error-unmatch", os.path.realpath(program)) is not None:
        return found
    name = os.path.relpath(os.path.realpath(program), os.path.realpath(root)) if inside and root else os.path.basename(program)
    with open(program, "rb") as file:
        found.append((f"code/untracked/{name}", _hidden(file.read())))
    return found


def _folder() -> str:
    return os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv and os.path.exists(sys.argv[0]) else os.getcwd()


def command(argv: list[str]) -> str:
    """The command line with values of options that look like secrets masked."""
    return " ".join(masked(argv))


def masked(argv: list[str]) -> list[str]:
    """The words of a command line; values of options that are called as secrets are, and what shows as one by itself, masked."""
    shown, hide = [], False
    for word in argv:
        name, equals, _value = word.partition("=")
        if hide and not word.startswith("--"):
            shown.append("***")
            hide = False
        elif equals and _SECRET.search(name):
            shown.append(f"{name}=***")
        else:
            hide = word.startswith("-") and bool(_SECRET.search(word))
            shown.append(hidden(word))
    return shown


def hidden(text: str) -> str:
    """A text with the secrets in it that show by themselves masked."""
    return _VALUES.sub(lambda m: (m["url"] or m["named"] or m["said"] or "") + "***", text)


def _hidden(data: bytes) -> bytes:
    return hidden(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _git(folder: str, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _git_bytes(folder: str, *words: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
