"""The home's secret: 256 random bits that sign short tokens, in a file that only its owner can read."""

from __future__ import annotations

import base64
import hmac
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


def seal(secret: bytes, text: str) -> str:
    """A text that only this secret opens: HMAC-SHA256 in counter mode over a fresh nonce, then an HMAC over both (encrypt, then authenticate)."""
    nonce, raw = secrets.token_bytes(16), text.encode()
    hidden = bytes(a ^ b for a, b in zip(raw, _stream(secret, nonce, len(raw)), strict=True))
    return base64.b64encode(nonce + hidden + _mark(secret, nonce + hidden)).decode()


def unseal(secret: bytes, sealed: str) -> str:
    """The text again; BadInput where it was sealed by another secret, or changed."""
    raw = base64.b64decode(sealed)
    body, mark = raw[:-BYTES], raw[-BYTES:]
    if not hmac.compare_digest(mark, _mark(secret, body)):
        raise BadInput("A sealed value does not open: the home's secret is another one than when it was sealed.", "Set the value anew.")
    nonce, hidden = body[:16], body[16:]
    return bytes(a ^ b for a, b in zip(hidden, _stream(secret, nonce, len(hidden)), strict=True)).decode()


def _stream(secret: bytes, nonce: bytes, size: int) -> bytes:
    key = hmac.digest(secret, b"everloop seal stream", "sha256")
    return b"".join(hmac.digest(key, nonce + i.to_bytes(8, "big"), "sha256") for i in range(-(-size // BYTES)))[:size]


def _mark(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(hmac.digest(secret, b"everloop seal mark", "sha256"), body, "sha256")
