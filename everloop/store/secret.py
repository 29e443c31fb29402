"""The home's secret: 256 random bits that sign short tokens, in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from everloop.core.errors import BadInput

NAME = "secret"
BYTES = 32


def home_secret(home: Path) -> bytes:
    """The secret of a home, made at the first call; whole or not there at all. BadInput if the file is not one.

    Replicas that share records must share this file, else one does not accept the tokens of another.
    """
    path = home / NAME
    if not path.exists():
        fresh = home / f"{NAME}.{os.getpid()}"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # fails if another process was first; then its secret is the one
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh)
    if path.stat().st_mode & 0o077:
        os.chmod(path, 0o600)
    found = path.read_bytes()
    if len(found) != BYTES:
        raise BadInput(f"{path} is not a secret: it has {len(found)} bytes and not {BYTES}.", "Remove it; tokens that were signed with it end.")
    return found
