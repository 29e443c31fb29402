"""How values are shown: numbers, times, sizes, references and Markdown, as filters of the templates. Plain functions; no state."""

from __future__ import annotations

import json
import math
import time
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from jinja2 import Undefined
from markupsafe import Markup

from everloop.core.refs import KINDS

DASH = "\u2013"
SHORT_TEXT = 160
JSON_CHARS = 40_000
"""Characters of a value that a page shows as JSON at most."""
MARKDOWN_CHARS = 200_000
VERDICTS = {
    "good": ("pass", "ok", "finished", "done", "approved", "live", "whole", "healthy", "enabled", "handled"),
    "bad": ("fail", "failed", "error", "rejected", "killed", "broken", "revoked", "blocked", "expired"),
    "wait": ("inconclusive", "pending", "open", "waiting", "cancelled", "skipped", "not_assessed", "flagged", "redacted", "attention", "refused"),
    "busy": ("running", "scheduled", "ready", "leased"),
}
"""Words of states by the colour they get; a word that is not here stays grey."""
MARKS = {"good": "\u2713", "bad": "\u2715", "wait": "\u2026", "busy": "\u25b8", "plain": "\u00b7"}
OWN_MARKS = {"attention": "!", "inconclusive": "?", "not_assessed": DASH, "idle": DASH}
WORDS = {"not_assessed": "not assessed", "not_needed": "no approval needed", "not_first": "not for the first version", "unset": "ok"}


def number(value: Any, digits: int = 4) -> str:
    """A number with thousands marks and at most `digits` significant decimals; a dash where there is none, text as it is."""
    if value is None or isinstance(value, Undefined):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.1f}"
    return f"{value:.{digits}g}"


def count(value: Any) -> str:
    """A count in few characters: 1,234, 12.3k, 4.5M."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return DASH
    for size, mark in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if mark == 'k' else size):.1f}{mark}"
    return f"{int(value):,}"


def percent(value: Any, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * value:.{digits}f} %" if isinstance(value, int | float) else DASH


def millis(value: Any) -> str:
    """A duration given in milliseconds."""
    if not isinstance(value, int | float):
        return DASH
    if value < 1:
        return "under 0.01 ms" if 0 < value < 0.01 else f"{value:.2f} ms"
    if value < 1000:
        return f"{value:.3g} ms"
    return duration(value / 1000)


def duration(seconds: Any) -> str:
    """A duration given in seconds."""
    if not isinstance(seconds, int | float):
        return DASH
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if seconds < 2 * 86_400:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{seconds / 86_400:.0f} days"


def money(value: Any) -> str:
    """US dollars."""
    if not isinstance(value, int | float):
        return DASH
    if value and abs(value) < 0.01:
        return f"${value:.6f}".rstrip("0")
    return f"${value:,.2f}"


def size(value: Any) -> str:
    """Bytes."""
    if not isinstance(value, int | float):
        return DASH
    for step, mark in ((2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if value >= step:
            return f"{value / step:.1f} {mark}"
    return f"{int(value)} B"


def stamp(seconds: Any) -> str:
    """Epoch seconds as ISO 8601 in UTC; "" for anything else."""
    if not isinstance(seconds, int | float):
        return ""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return ""


def when(seconds: Any, exact: bool = False) -> Markup:
    """A moment as a <time>: date and minute (with `exact`, seconds), in UTC; the title has all of it."""
    iso = stamp(seconds)
    if not iso:
        return Markup(DASH)
    shown = iso[: 19 if exact else 16].replace("T", " ")
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(iso, shown)


def ago(seconds: Any) -> Markup:
    """How long ago a moment was, as a <time> whose title has the moment."""
    iso = stamp(seconds)
    if not iso:
        return Markup(DASH)
    passed = time.time() - float(seconds)
    for step, word in ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if abs(passed) >= step:
            n = int(abs(passed) // step)
            shown = f"{n} {word}{'s' if n != 1 else ''}"
            break
    else:
        shown = ""
    shown = f"{shown} ago" if shown and passed >= 0 else f"in {shown}" if shown else "just now"
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(iso, shown)


def tone(word: Any) -> str:
    """The colour of a state's word: good, bad, wait, busy or plain."""
    return next((name for name, words in VERDICTS.items() if word in words), "plain")


def chip(word: Any, text: str = "") -> Markup:
    """A state as a chip: a mark, the word, a colour; never colour alone."""
    kind = tone(word)
    shown = text or WORDS.get(str(word), str(word))
    return Markup('<span class="chip {0}"><span class="mark" aria-hidden="true">{1}</span>{2}</span>').format(
        kind, OWN_MARKS.get(str(word), MARKS[kind]), shown
    )


def piece(text: Any) -> str:
    """Text as one piece of a path."""
    return quote(str(text), safe="")


def ref_path(ref: Any) -> str:
    """The page of a node: `kind:name@version`, `run:ID`, `decision:ID`, `trace:ID`, `endpoint:name` ...; "" where there is none."""
    kind, _, rest = str(ref or "").partition(":")
    if kind in KINDS and rest:
        name, _, at = rest.partition("@")
        return f"/ui/assets/{kind}/{piece(name)}" + (f"/{piece(at)}" if at else "")
    pages = {"run": "runs", "decision": "decisions", "trace": "traces", "endpoint": "endpoints", "monitor": "monitors", "pipeline": "pipelines"}
    return f"/ui/{pages[kind]}/{piece(rest)}" if kind in pages and rest else ""


def refs(value: Any) -> list[str]:
    """The exact references among a value's top parts: `{"model": "model:credit@3"}` has one."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [one for one in parts if isinstance(one, str) and "@" in one and ref_path(one)][:20]


def short(id: Any, n: int = 8) -> str:
    """The last characters of an id: the part that tells two apart."""
    return str(id)[-n:]


def text(value: Any, limit: int = SHORT_TEXT) -> str:
    """Any value as one line of text, cut at `limit`."""
    line = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "\u2026"


def pretty(value: Any) -> str:
    """Any value as indented JSON (text as it is), cut at JSON_CHARS."""
    body = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return body if len(body) <= JSON_CHARS else body[:JSON_CHARS] + f"\n\u2026 and {len(body) - JSON_CHARS:,} characters more"


def markdown(source: Any) -> Markup:
    """CommonMark with tables as HTML: raw HTML is shown as text, images are left out, links keep only safe schemes."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Markup(parser.render(str(source)[:MARKDOWN_CHARS]))


def plural(n: Any, one: str, many: str = "") -> str:
    """`1 call`, `2 calls`."""
    return f"{number(n)} {one if n == 1 else many or one + 's'}"


FILTERS = {
    "number": number,
    "count_short": count,
    "percent": percent,
    "millis": millis,
    "duration": duration,
    "money": money,
    "size": size,
    "when": when,
    "ago": ago,
    "iso": stamp,
    "chip": chip,
    "tone": tone,
    "piece": piece,
    "ref_path": ref_path,
    "refs": refs,
    "short": short,
    "line": text,
    "pretty": pretty,
    "markdown": markdown,
}
