"""Our own style, script and icons, and the locked front-end packages: served from memory, named by their content so that browsers keep them.

`url("everloop.css")` is `/static/<hash>/everloop.css`: kept for a year, and a new address when the file changes. `/static/everloop.css` works
too and is asked for anew each time. What the package was built without (no Node) is simply not there: pages work without it.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from everloop.core.errors import NotFound

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).resolve().parent.parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
KEPT = "public, max-age=31536000, immutable"


@functools.cache
def files() -> dict[str, tuple[str, bytes]]:
    """All files there are: {path: (hash, bytes)}."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            data = path.read_bytes()
            found[path.relative_to(FOLDER).as_posix()] = (hashlib.sha256(data).hexdigest()[:12], data)
    return found


def url(path: str) -> str:
    """The address of a file that stays the same while its content does; "" where the file is not there."""
    found = files().get(path)
    return f"/static/{found[0]}/{path}" if found else ""


@router.get("/static/{path:path}")
async def static_file(request: Request, path: str) -> Response:
    """One file; NotFound for any path that was not there when the server started."""
    head, _, rest = path.partition("/")
    there = files()
    name, kept = (rest, True) if rest in there and there[rest][0] == head else (path, False)
    if name not in there:
        raise NotFound(f"There is no file {path!r}.")
    tag, data = there[name]
    headers = {"cache-control": KEPT if kept else "no-cache", "etag": f'"{tag}"'}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=TYPES[Path(name).suffix])
