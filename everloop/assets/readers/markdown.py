"""Markdown (CommonMark with tables): headings kept as structure; marks, link targets, images and comments left out; code kept as it is."""

from __future__ import annotations

import re
from typing import Any

from everloop.assets.readers import readers
from everloop.assets.text import Document, opened, title_of

_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"^title:[ \t]*[\"']?(.*?)[\"']?[ \t]*$", re.MULTILINE)


@readers.add("md")
@readers.add("markdown")
@readers.add("mdx")
def read(path: str, data: bytes) -> Document:
    """The text with its headings; title: front matter's, else the first heading."""
    from markdown_it import MarkdownIt

    document, text = opened(path, "markdown", data)
    declared = None
    if front := _FRONT.match(text):
        found = _TITLE.search(front.group(1))
        declared, text = found.group(1) if found else None, text[front.end() :]
    _walk(MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(text), document)
    first = [document.text[at:].split("\n", 1)[0] for at, _ in document.headings[:1]]
    document.title = title_of(path, declared, *first)
    return document


def _walk(tokens: list[Any], document: Document) -> None:
    """Blocks in order. Items of a list stay one block, so that they are not torn apart; rows of a table too."""
    level, depth, numbers = 0, 0, []
    lines: list[str] = []
    mark = ""
    row: list[str] | None = None
    for token in tokens:
        kind = token.type
        if kind == "heading_open":
            level = int(token.tag[1:])
        elif kind in ("bullet_list_open", "ordered_list_open"):
            depth += 1
            numbers.append(int(token.attrGet("start") or 1) if kind == "ordered_list_open" else 0)
        elif kind in ("bullet_list_close", "ordered_list_close"):
            depth -= 1
            numbers.pop()
        elif kind == "list_item_open":
            mark = "  " * (depth - 1) + (f"{numbers[-1]}. " if numbers[-1] else "- ")
            numbers[-1] += 1 if numbers[-1] else 0
        elif kind == "tr_open":
            row = []
        elif kind == "tr_close":
            lines.append(" | ".join(row or ()))
            row = None
        elif kind == "inline":
            text = inline(token.children or ())
            if row is not None:
                row.append(text)
            elif level:
                document.add(text, level)
                level = 0
            else:
                lines.append((mark or "  " * depth) + text.replace("\n", "\n" + "  " * depth) if depth else text)
                mark = ""
        elif kind in ("fence", "code_block"):
            lines.append(token.content.rstrip())
        elif kind == "html_block":
            lines.append(_html(token.content))
        if (
            not depth
            and lines
            and kind in ("bullet_list_close", "ordered_list_close", "table_close", "paragraph_close", "fence", "code_block", "html_block")
        ):
            document.add("\n".join(line for line in lines if line.strip()))
            lines = []


def inline(children: Any) -> str:
    """The words of a line: text, code and the texts of links; an image gives its description."""
    parts = []
    for child in children:
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type == "softbreak":
            parts.append(" ")
        elif child.type == "hardbreak":
            parts.append("\n")
        elif child.type == "image":
            parts.append(inline(child.children or ()))
        elif child.type == "html_inline" and child.content.lower().startswith("<br"):
            parts.append("\n")
    return "".join(parts)


def _html(text: str) -> str:
    from everloop.assets.readers.html import visible

    return visible(text)
