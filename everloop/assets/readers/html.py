"""HTML: what a reader of the page sees. Headings kept; scripts, styles, navigation, forms' controls and hidden parts left out."""

from __future__ import annotations

import re
from typing import Any

from everloop.assets.readers import readers
from everloop.assets.text import Document, decode, squeeze, title_of

_DROP = frozenset(
    ["script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "nav", "footer", "button", "select", "head"]
)
_BLOCKS = """address article aside blockquote body caption dd details dialog div dl dt fieldset figcaption figure form header hr html legend li main ol
    p section summary table tbody td tfoot th thead tr ul"""
_BLOCK = frozenset(_BLOCKS.split())
_HIDDEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?:px|em|%|;|\s|$)|opacity\s*:\s*0(?:\.0+)?\s*(?:;|$)", re.IGNORECASE
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:-]{1,40})", re.IGNORECASE)
_LISTS = frozenset(["ul", "ol", "table", "tbody", "thead", "tfoot"])
_ANCHORS = frozenset(["¶", "#", "§", "🔗"])
"""Texts of links that only name the place they stand at."""
_BREAK = "\x1f"


@readers.add("html")
@readers.add("htm")
@readers.add("xhtml")
def read(path: str, data: bytes) -> Document:
    """The visible text; title: the page's <title>, else its first heading."""
    declared = _CHARSET.search(data[:4096])
    text, _ = decode(data, declared.group(1).decode() if declared else "")
    soup = _soup(text)
    document = Document(path, "html")
    title = squeeze(soup.title.get_text()) if soup.title else ""
    _walk(soup, document)
    first = [document.text[at:].split("\n", 1)[0] for at, _ in document.headings[:1]]
    document.title = title_of(path, title, *first)
    return document


def visible(text: str) -> str:
    """The visible words of a piece of HTML, as plain text."""
    document = Document("", "html")
    _walk(_soup(text), document)
    return document.text


def _soup(text: str) -> Any:
    import warnings

    from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, XMLParsedAsHTMLWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        return BeautifulSoup(text, "html.parser")


def _walk(root: Any, document: Document) -> None:
    """Depth first with a stack of its own, so that no nesting, however deep, can exhaust Python's."""
    from bs4 import Comment, NavigableString

    words: list[str] = []
    stack: list[Any] = [("open", root)]

    def flush(level: int = 0, exact: bool = False) -> None:
        text = "".join(words)
        words.clear()
        if exact:
            document.add(text)
        else:
            document.add("\n".join(line for part in text.split(_BREAK) if (line := squeeze(part).removesuffix(" |")) and line != "-"), level)

    while stack:
        what, node = stack.pop()
        name = getattr(node, "name", None)
        if what == "close":
            if name == "pre":
                flush(exact=True)
            elif name in ("td", "th"):
                words.append(" | ")
            elif name in ("li", "tr", "dt", "dd"):
                words.append(_BREAK)
            else:
                flush(int(name[1]) if _is_heading(name) else 0)
        elif isinstance(node, NavigableString):
            if type(node) is NavigableString and not isinstance(node, Comment):
                words.append(str(node))
        elif name == "br":
            words.append(_BREAK)
        elif not _hidden(node, name):
            if name in ("li", "tr", "dt", "dd"):
                words.append(_BREAK + ("- " if name == "li" else ""))
                stack.append(("close", node))
            elif name in ("td", "th"):
                stack.append(("close", node))
            elif (name in _BLOCK or _is_heading(name) or name == "pre") and not (name in _LISTS and _inside_list(node)):
                flush()
                stack.append(("close", node))
            stack.extend(("open", child) for child in reversed(node.contents))
    flush()


def _inside_list(node: Any) -> bool:
    return getattr(node.parent, "name", None) in ("li", "table", "dd")


def _is_heading(name: str | None) -> bool:
    return bool(name) and len(name) == 2 and name[0] == "h" and name[1] in "123456"  # type: ignore[arg-type,index]


def _hidden(node: Any, name: str | None) -> bool:
    if name in _DROP:
        return True
    attrs = getattr(node, "attrs", None) or {}
    if name == "a" and node.get_text().strip() in _ANCHORS:
        return True
    if "hidden" in attrs or str(attrs.get("aria-hidden", "")).lower() == "true":
        return True
    return bool(attrs.get("style")) and _HIDDEN.search(str(attrs["style"])) is not None
