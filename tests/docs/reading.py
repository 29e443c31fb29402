"""What the pages claim, taken out of them: commands, programs, requests, links, names in the code."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*.md"),
        *(ROOT / "everloop" / "cli" / "templates").glob("*/README.md"),
    ]
)
"""Every page of the project, and the READMEs of its templates."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line it begins in, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"(?ms)^```(\w*)[^\n]*\n(.*?)^```", text)
    return [Block(page, text[: m.start()].count("\n") + 1, m[1], m[2]) for m in found]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))


def inline(page: Path) -> list[str]:
    """What stands between backticks in a page's prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The everloop and ./dev commands of a page: (where, words)."""
    found = []
    for block in blocks(page):
        if block.language in ("console", "bash", "sh", ""):
            for number, line in enumerate(block.text.splitlines(), block.line + 1):
                line = line.removeprefix("$ ")
                if re.match(r"(\w+=\S+ )*(\./dev|everloop) ", line):
                    found.append((f"{page.relative_to(ROOT)}:{number}", shlex.split(line, comments=True)))
    for text in inline(page):
        if re.match(r"(\./dev|everloop) ", text):
            found.append((f"{page.relative_to(ROOT)}: `{text}`", shlex.split(text)))
    return [(where, [w for w in words if not re.fullmatch(r"[A-Z_]+=\S+", w)]) for where, words in found]


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    return {slug(title) for title in re.findall(r"(?m)^#+ (.+)$", prose(page))}
