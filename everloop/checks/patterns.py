"""Regular expressions in linear time: RE2, for our own patterns and for users', so that no text and no pattern can hang a call."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.limits import REGEX_CHARS

_MEMORY = 64 * 1024 * 1024
"""Bytes that one pattern's automaton may take before RE2 forgets and rebuilds it (slower, never wrong)."""


def compiled(pattern: str) -> Any:
    """A pattern compiled by RE2, quiet on standard error. Raises re2.error if it does not parse."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    return re2.compile(pattern, options)


@lru_cache(maxsize=256)
def linear(pattern: str) -> Any:
    """A user's pattern compiled by RE2; BadInput if it is too long, does not parse, or needs what RE2 does not do in linear time."""
    import re2

    if len(pattern) > REGEX_CHARS:
        raise BadInput(f"The pattern is {len(pattern)} characters long; at most {REGEX_CHARS} are allowed.")
    try:
        return compiled(pattern)
    except re2.error as error:
        said = error.args[0] if error.args else error
        said = said.decode() if isinstance(said, bytes) else said
        raise BadInput(f"The pattern {pattern!r} cannot be used: {said}.", "RE2 syntax: no look-around and no back-references.") from None
