"""The home's secret: 256 random bits that sign short tokens, in a file that only its owner can read."""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from pathlib import Path
from typing import Any

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


def seal(secret: bytes, text: str) -> str:
    """A text that only this secret opens (Fernet: AES-128 in CBC mode with HMAC-SHA256, under a key of its own derived from the secret)."""
    return str(_fernet(secret).encrypt(text.encode()), "ascii")


def unseal(secret: bytes, sealed: str) -> str:
    """The text again; BadInput where it was sealed by another secret, or changed."""
    from cryptography.fernet import InvalidToken

    try:
        return str(_fernet(secret).decrypt(sealed.encode()), "utf-8")
    except InvalidToken:
        raise BadInput("A sealed value does not open: the home's secret is another one than when it was sealed.", "Set the value anew.") from None


def pseudonym(secret: bytes, project: str, text: str) -> str:
    """A name that stands for `text`, always the same in a project, from which nobody without the secret learns the text (HMAC-SHA256, 96 bits)."""
    message = "\0".join(("everloop pseudonym", project, text)).encode("utf-8", "surrogatepass")
    return f"h-{hmac.digest(secret, message, 'sha256').hex()[:24]}"


def _fernet(secret: bytes) -> Any:
    from cryptography.fernet import Fernet

    return Fernet(base64.urlsafe_b64encode(hmac.digest(secret, b"everloop seal", "sha256")))
