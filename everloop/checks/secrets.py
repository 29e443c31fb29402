"""Keys, tokens, passwords and private keys in a text: by their issuers' shapes, and by entropy where a name says "secret"."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from everloop.checks import checks
from everloop.checks.base import TextCheck
from everloop.checks.patterns import compiled
from everloop.core.types import Score, Utterance

_SHAPES = {
    "private_key": (  # with its body, also where line ends are escaped as in JSON, or the end is cut off
        r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[A-Za-z0-9+/=\s\\:,\-]*-----END (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----|(?:(?:\s|\\[rn])*[A-Za-z0-9+/=]{16,})*)"
    ),
    "aws_key": r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    "github_token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b",
    "gitlab_token": r"\bgl(?:pat|dt|rt|cbt|ptt)-[A-Za-z0-9_\-]{20,}",
    "slack_token": r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}|https://hooks\.slack\.com/services/[A-Za-z0-9/_]{40,}",
    "google_key": r"\bAIza[A-Za-z0-9_\-]{35}|\bGOCSPX-[A-Za-z0-9_\-]{28}",
    "anthropic_key": r"\bsk-ant-[A-Za-z0-9_\-]{20,}",
    "openai_key": r"\bsk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_\-]{20,}",
    "stripe_key": r"\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}\b",
    "huggingface_token": r"\bhf_[A-Za-z0-9]{30,40}\b",
    "npm_token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "pypi_token": r"\bpypi-AgE[A-Za-z0-9_\-]{50,}",
    "sendgrid_key": r"\bSG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{32,}",
    "twilio_key": r"\b(?:SK|AC)[0-9a-f]{32}\b",
    "digitalocean_token": r"\bdo[opr]_v1_[0-9a-f]{64}\b",
    "telegram_token": r"\b\d{8,10}:AA[A-Za-z0-9_\-]{32,34}\b",
    "everloop_key": r"\bev_[A-Za-z0-9_\-]{30,}",
    "azure_key": r"\bAccountKey=[A-Za-z0-9+/]{60,}={0,2}",
    "jwt": r"\beyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}",
    "url_password": r"\b[a-z][a-z0-9+.\-]{1,20}://[^\s:/@'\"]{1,}:[^\s:/@'\"]{3,}@[A-Za-z0-9.\-]{1,}",
    "bearer": r"(?i)\bbearer [A-Za-z0-9_\-.=+/]{20,}",
    "assigned": (
        r"(?i)\b[a-z0-9_.\-]{0,40}(?:passw(?:or)?d|passphrase|pwd|secret|api[_\- ]?key|access[_\- ]?key|auth[_\- ]?token|access[_\- ]?token|private[_\- ]?key|client[_\- ]?secret|token)"
        r"[\"']?\s{0,3}(?:=|:|=>|\bis\b)\s{0,3}[\"']?([^\s\"',;<>{}()\[\]]{6,})"
    ),
}
_HINTS = ("-----BEGIN", "://", "eyJ", "key", "Key", "KEY", "oken", "OKEN", "ecret", "ECRET", "assw", "ASSW", "pwd", "PWD", "earer", "assphrase")
_PLACEHOLDERS = (
    "example",
    "changeme",
    "your",
    "xxxx",
    "placeholder",
    "redacted",
    "****",
    "dummy",
    "none",
    "null",
    "true",
    "false",
    "todo",
    "required",
    "process.env",
    "os.environ",
    "getenv",
    "${",
    "$(",
)
ENTROPY = 3.0
"""Bits a character that an assigned value must have to be a secret; English words have about 2.5 at this length, random text 3.5 and more."""


@lru_cache(maxsize=1)
def _compiled() -> tuple[Any, dict[str, Any]]:
    return compiled("|".join(f"(?P<{name}>{shape})" for name, shape in _SHAPES.items() if not shape.startswith("(?i)"))), {
        name: compiled(shape) for name, shape in _SHAPES.items() if shape.startswith("(?i)")
    }


def entropy(text: str) -> float:
    """Shannon entropy of a text's characters in bits."""
    n = len(text)
    return -sum(c / n * math.log2(c / n) for c in Counter(text).values()) if n else 0.0


def find(text: str) -> list[tuple[int, int, str]]:
    """Spans (start, end, type) of secrets, in order of place."""
    shapes, loose = _compiled()
    found = [(m.start(), m.end(), str(m.lastgroup)) for m in shapes.finditer(text)]
    found = [(s, e, kind) for s, e, kind in found if kind not in ("openai_key", "everloop_key") or _random(text[s:e])]
    if any(hint in text for hint in _HINTS):
        for name, pattern in loose.items():
            for m in pattern.finditer(text):
                start, end = (m.start(1), m.end(1)) if name == "assigned" else (m.start(), m.end())
                if name == "assigned" and not _assigned(text[start:end], text[m.start() : start]):
                    continue
                if not any(start < e and s < end for s, e, _ in found):
                    found.append((start, end, name))
    return sorted(found)


def _assigned(value: str, before: str) -> bool:
    value = value.rstrip(".,!?")
    low = value.lower()
    if len(value) < 6 or any(p in low for p in _PLACEHOLDERS):
        return False
    mixed = sum(
        (any(c.isdigit() for c in value), any(c.islower() for c in value), any(c.isupper() for c in value), any(not c.isalnum() for c in value))
    )
    said = " is" in before.lower() or ": " in before
    return (mixed >= 2 and any(c.isdigit() for c in value) and entropy(value) >= (2.5 if said else ENTROPY - 0.5)) or (
        mixed >= 3 and entropy(value) >= ENTROPY
    )


def _random(value: str) -> bool:
    return any(c.isdigit() for c in value[3:]) and entropy(value) >= ENTROPY


@checks.add("secrets")
@dataclass(frozen=True)
class Secrets(TextCheck):
    """Keys, tokens and passwords in a text: fails when any is found; details["spans"] are [start, end, type] for redaction."""

    name: ClassVar[str] = "secrets"
    redacts: ClassVar[bool] = True

    def judge(self, text: Utterance) -> Score:
        """Fail with the spans found; the secret itself is never repeated."""
        spans = find(text.text)
        if not spans:
            return Score(self.name, 0, "pass", 1, None, self.name, "No secret of a known shape.")
        kinds = sorted({kind for _, _, kind in spans})
        why = f"{len(spans)} secret{'s' if len(spans) > 1 else ''}: {', '.join(kinds)}."
        return Score(self.name, len(spans), "fail", 1, None, self.name, why, {"spans": [list(s) for s in spans], "types": kinds})
