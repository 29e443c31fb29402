"""References: `kind:name@version-or-alias`, the one way to name an asset.

`dataset:credit@3` is exact; `release:credit@champion` moves with its alias; `prompt:tutor` means the latest version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from everloop.core.errors import BadInput

KINDS = ("dataset", "model", "prompt", "index", "adapter", "suite", "policy", "release", "code")
NAME_MAX = 250
_NAME = re.compile(r"[^\x00-\x1f\x7f:@/]+")
_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_PIECE = re.compile(r"([^@#]*)#((?:row|number|document)=.*)", re.DOTALL)


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it may name something; raise BadInput saying why otherwise."""
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"The {what} is empty.", "Give it a name such as: credit")
    if len(name) > NAME_MAX:
        raise BadInput(f"The {what} is {len(name)} characters long; at most {NAME_MAX} are allowed.")
    if name != name.strip() or name in (".", "..") or not _NAME.fullmatch(name):
        raise BadInput(
            f"The {what} {name!r} has a character that is not allowed.",
            "Use letters, digits, dots, dashes and spaces; not : @ / or control characters.",
        )
    return name


def check_alias(alias: str) -> str:
    """Return `alias` if it may be one (a word that is not a number); raise BadInput otherwise."""
    if not _ALIAS.fullmatch(alias) or alias == "latest":
        raise BadInput(f"{alias!r} cannot be an alias.", "Use a word such as: champion, staging, canary.")
    return alias


def cut_part(text: str) -> tuple[str, str]:
    """(reference, part) of `dataset:credit@3#train`, `dataset:credit@3#row=4711` or `dataset:credit#row=4711`; the part is "" where none is named.

    Without a version only row=, number= and document= are parts: a name may have a # itself.
    """
    text = str(text)
    plain = _PIECE.fullmatch(text)
    if plain:
        return plain[1], plain[2]
    head, at, rest = text.partition("@")
    version, _, part = rest.partition("#")
    return f"{head}{at}{version}", part


@dataclass(frozen=True, order=True)
class Ref:
    """A parsed reference. `at` is a version number ("3"), an alias ("champion"), or "" for the latest version."""

    kind: str
    name: str
    at: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"There is no kind of asset called {self.kind!r}.", f"Kinds: {', '.join(KINDS)}.")
        check_name(self.name)
        if self.at and not self.at.isdigit():
            check_alias(self.at)

    @classmethod
    def parse(cls, text: str, kind: str | None = None) -> Ref:
        """Parse `[kind:]name[@at]`; `kind` is the default, and if both are given they must agree."""
        head, _, at = str(text).partition("@")
        found, colon, name = head.partition(":")
        if not colon:
            found, name = kind or "", head
        if not found:
            raise BadInput(f"{text!r} is not a reference: the kind is missing.", "Write it as kind:name@version, e.g. model:credit@3")
        if kind and found != kind:
            raise BadInput(f"{text!r} is a {found}; a {kind} is needed here.")
        return cls(found, name, "" if at == "latest" else at)

    @property
    def version(self) -> int | None:
        """The version number if this reference is exact, else None."""
        return int(self.at) if self.at.isdigit() else None

    @property
    def alias(self) -> str | None:
        """The alias if this reference names one, else None."""
        return self.at if self.at and not self.at.isdigit() else None

    def exact(self, version: int) -> Ref:
        """The same asset at one version."""
        return Ref(self.kind, self.name, str(version))

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}@{self.at}" if self.at else f"{self.kind}:{self.name}"
