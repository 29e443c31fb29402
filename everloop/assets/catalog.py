"""The catalogue: immutable, content-addressed versions of named things, `kind:name@version`.

A version's digest is the BLAKE3 of its manifest's canonical JSON; the manifest names files by digest, so the digest covers all bytes.
Registering the same content under the same name again answers the version that is there.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import orjson
import sqlalchemy as sa

from everloop.assets import derivations, lineage, webhooks
from everloop.core.errors import BadInput, Conflict, NotFound, TooLarge
from everloop.core.limits import MANIFEST_BYTES, PAGE_ROWS, PAGE_ROWS_MAX
from everloop.core.refs import KINDS, Ref, check_name, cut_part
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import aliases, assets


def digest_of(manifest: dict[str, Any]) -> str:
    """The identity of a manifest: BLAKE3 (hex) of its JSON with sorted keys."""
    from blake3 import blake3

    return blake3(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)).hexdigest()


def register(
    tx: Tx,
    kind: str,
    name: str,
    manifest: dict[str, Any],
    *,
    run: str | None = None,
    reads: Iterable[str] = (),
    description: str = "",
    tags: dict[str, str] | None = None,
    number: int | None = None,
) -> dict[str, Any]:
    """Make a new version, or answer the one with exactly this content. `reads` are references it was made from (lineage edges); `number` is the
    version's number, where an import keeps it (Conflict if it is taken).

    Raises BadInput for a name or kind that cannot be, TooLarge for a manifest over MANIFEST_BYTES (put bytes into objects), NotFound
    for an unknown reference in `reads`.
    """
    ref = Ref(kind, check_name(name))
    body = orjson.loads(orjson.dumps(manifest, option=orjson.OPT_SERIALIZE_NUMPY))
    size = len(orjson.dumps(body))
    if size > MANIFEST_BYTES:
        raise TooLarge(
            f"The manifest of {ref} is {size} bytes; at most {MANIFEST_BYTES} are allowed.", "Put large content into objects and name their digests."
        )
    digest = digest_of(body)
    cut = [(r, "") if r.startswith("run:") else cut_part(r) for r in reads]
    sources = [(head if head.startswith("run:") else str(resolve(tx, Ref.parse(head))), part) for head, part in cut]
    same = tx.row(sa.select(assets).where(*_named(tx, ref), assets.c.digest == digest, assets.c.deleted_at.is_(None)))
    if same is None:
        version = number or (tx.value(sa.select(sa.func.max(assets.c.version)).where(*_named(tx, ref))) or 0) + 1
        if number and tx.value(sa.select(assets.c.version).where(*_named(tx, ref), assets.c.version == number)):
            raise Conflict(f"{ref.exact(number)} is there already.", "An import brings a version once.")
        same = {
            "project": tx.project,
            "kind": kind,
            "name": name,
            "version": version,
            "digest": digest,
            "manifest": body,
            "description": description,
            "tags": dict(tags or {}),
            "run": run,
            "created_at": tx.now,
            "created_by": tx.who.name,
            "updated_at": None,
            "deleted_at": None,
        }
        tx.run(assets.insert().values(**same))
        audit.record(tx, "asset.register", str(ref.exact(version)), digest=digest, run=run)
        webhooks.note(tx, kind, "version", "created", webhooks.version(same))
    made = str(ref.exact(same["version"]))
    for source, part in sources:
        if part:
            _read_part(tx, source, part, made, body, run)
        else:
            lineage.link(tx, source, made, "derived")
        if run:
            lineage.link(tx, source, f"run:{run}", "read")
    if run:
        lineage.link(tx, f"run:{run}", made, "made")
    return _shown(tx, same)


def _read_part(tx: Tx, source: str, part: str, made: str, manifest: dict[str, Any], run: str | None) -> None:
    """Lineage of what was made of one split of a dataset version; what the run said of it in more detail stays."""
    held = get(tx, source)["manifest"]
    derivations.declare_part(tx, source, part, held, made, derivations.rows_in(manifest), run or "")
    if run:
        derivations.declare_part(tx, source, part, held, f"run:{run}", None, run)


def resolve(tx: Tx, ref: Ref | str) -> Ref:
    """The exact reference (with a version number) that `ref` means now; NotFound lists the versions and aliases there are."""
    ref = Ref.parse(ref) if isinstance(ref, str) else ref
    if ref.alias:
        version = tx.value(
            sa.select(aliases.c.version).where(
                aliases.c.project == tx.project, aliases.c.kind == ref.kind, aliases.c.name == ref.name, aliases.c.alias == ref.alias
            )
        )
    elif ref.version:
        version = tx.value(sa.select(assets.c.version).where(*_named(tx, ref), assets.c.version == ref.version, assets.c.deleted_at.is_(None)))
    else:
        version = tx.value(sa.select(sa.func.max(assets.c.version)).where(*_named(tx, ref), assets.c.deleted_at.is_(None)))
    if version is None:
        raise _missing(tx, ref)
    return ref.exact(int(version))


def get(tx: Tx, ref: Ref | str) -> dict[str, Any]:
    """The asset that `ref` means now, with manifest and aliases; NotFound as `resolve`."""
    exact = resolve(tx, ref)
    row = tx.row(sa.select(assets).where(*_named(tx, exact), assets.c.version == exact.version))
    if row is None:
        raise _missing(tx, exact)
    return _shown(tx, row)


def versions(tx: Tx, kind: str, name: str, limit: int = PAGE_ROWS, before: int | None = None) -> list[dict[str, Any]]:
    """Versions of a name, newest first, with manifests; `before` is a version to page on. NotFound if there is none at all."""
    ref = Ref(kind, name)
    statement = (
        sa.select(assets).where(*_named(tx, ref), assets.c.deleted_at.is_(None)).order_by(assets.c.version.desc()).limit(min(limit, PAGE_ROWS_MAX))
    )
    if before:
        statement = statement.where(assets.c.version < before)
    rows = tx.rows(statement)
    if not rows and not before:
        raise _missing(tx, ref)
    return _shown_many(tx, rows)


def names(tx: Tx, kind: str | None = None, search: str = "", limit: int = PAGE_ROWS, cursor: str | None = None) -> dict[str, Any]:
    """Names by last change, newest first: {"items": [{"kind", "name", "latest", "aliases", "updated_at", "description"}], "next"}."""
    if kind is not None and kind not in KINDS:
        raise BadInput(f"There is no kind of asset called {kind!r}.", f"Kinds: {', '.join(KINDS)}.")
    limit = max(1, min(limit, PAGE_ROWS_MAX))
    latest = (
        sa.select(assets.c.kind, assets.c.name, sa.func.max(assets.c.version).label("latest"), sa.func.max(assets.c.created_at).label("updated_at"))
        .where(assets.c.project == tx.project, assets.c.deleted_at.is_(None))
        .group_by(assets.c.kind, assets.c.name)
    )
    if kind:
        latest = latest.where(assets.c.kind == kind)
    if search:
        latest = latest.where(assets.c.name.ilike(f"%{_escaped(search)}%", escape="\\"))
    inner = latest.subquery()
    statement = sa.select(inner).order_by(inner.c.updated_at.desc(), inner.c.kind, inner.c.name).limit(limit + 1).offset(_offset(cursor))
    rows = tx.rows(statement)
    items = []
    for row in rows[:limit]:
        head = tx.row(
            sa.select(assets.c.description, assets.c.tags).where(*_named(tx, Ref(row["kind"], row["name"])), assets.c.version == row["latest"])
        )
        items.append(
            {
                **row,
                "aliases": aliases_of(tx, row["kind"], row["name"]),
                "description": (head or {}).get("description", ""),
                "tags": (head or {}).get("tags") or {},
            }
        )
    return {"items": items, "next": _cursor(_offset(cursor) + limit) if len(rows) > limit else None}


def kinds(tx: Tx) -> list[dict[str, Any]]:
    """How many names and versions of each kind there are: [{"kind", "names", "versions"}], all kinds, in KINDS' order."""
    rows = tx.rows(
        sa.select(assets.c.kind, sa.func.count(sa.distinct(assets.c.name)).label("names"), sa.func.count().label("versions"))
        .where(assets.c.project == tx.project, assets.c.deleted_at.is_(None))
        .group_by(assets.c.kind)
    )
    found = {row["kind"]: row for row in rows}
    return [found.get(kind, {"kind": kind, "names": 0, "versions": 0}) for kind in KINDS]


def annotate(tx: Tx, ref: Ref | str, description: str | None = None, tags: dict[str, str | None] | None = None) -> dict[str, Any]:
    """Change what may change of a version: its description and tags (a None value removes a tag). Audited."""
    asset = get(tx, ref)
    values: dict[str, Any] = {}
    if description is not None:
        values |= {"description": description, "updated_at": tx.now}
    if tags:
        merged = {**asset["tags"], **tags}
        values["tags"] = {k: v for k, v in merged.items() if v is not None}
    if values:
        exact = Ref.parse(asset["ref"])
        tx.run(assets.update().where(*_named(tx, exact), assets.c.version == exact.version).values(**values))
        audit.record(tx, "asset.annotate", asset["ref"], **values)
        for key, value in (tags or {}).items():
            of = {"name": asset["name"], "version": str(asset["version"])}
            webhooks.note(tx, asset["kind"], "version_tag", *webhooks.tagged(of, key, value))
    return {**asset, **values}


def aliases_of(tx: Tx, kind: str, name: str) -> dict[str, int]:
    """Aliases of a name: {alias: version}."""
    rows = tx.rows(
        sa.select(aliases.c.alias, aliases.c.version)
        .where(aliases.c.project == tx.project, aliases.c.kind == kind, aliases.c.name == name)
        .order_by(aliases.c.alias)
    )
    return {row["alias"]: row["version"] for row in rows}


def _named(tx: Tx, ref: Ref) -> list[Any]:
    return [assets.c.project == tx.project, assets.c.kind == ref.kind, assets.c.name == ref.name]


def _shown(tx: Tx, row: dict[str, Any]) -> dict[str, Any]:
    return _shown_many(tx, [row])[0]


def _shown_many(tx: Tx, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one name as asset dicts."""
    found = aliases_of(tx, rows[0]["kind"], rows[0]["name"]) if rows else {}
    return [shown(row, found) for row in rows]


def shown(row: dict[str, Any], named: dict[str, int]) -> dict[str, Any]:
    """A row of the table as the asset dict that everyone sees, with those of the name's aliases that are on it."""
    keep = ("kind", "name", "version", "digest", "manifest", "description", "tags", "run", "created_at", "created_by")
    return {
        "ref": f"{row['kind']}:{row['name']}@{row['version']}",
        **{key: row[key] for key in keep},
        "updated_at": row["updated_at"] or row["created_at"],
        "aliases": [alias for alias, version in named.items() if version == row["version"]],
    }


def _missing(tx: Tx, ref: Ref) -> NotFound:
    there = [
        row["version"]
        for row in tx.rows(sa.select(assets.c.version).where(*_named(tx, ref), assets.c.deleted_at.is_(None)).order_by(assets.c.version))
    ]
    if there:
        named = aliases_of(tx, ref.kind, ref.name)
        shown = ", ".join(map(str, there[-10:])) + (" (and older ones)" if len(there) > 10 else "")
        hint = f"Versions: {shown}.  Aliases: {', '.join(named) or 'none'}."
        if ref.alias:
            hint += f"  Set one with: everloop alias {ref.kind}:{ref.name}@{there[-1]} {ref.alias}"
        return NotFound(f'There is no asset "{ref}".', hint)
    others = [
        row["name"]
        for row in tx.rows(sa.select(assets.c.name).distinct().where(assets.c.project == tx.project, assets.c.kind == ref.kind).limit(1000))
    ]
    near = get_close_matches(ref.name, others, 3) or others[:5]
    hint = f"Did you mean: {', '.join(near)}?" if near else f"There is no {ref.kind} in project {tx.project!r} yet."
    return NotFound(f'There is no asset "{ref}".', hint)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _cursor(offset: int) -> str:
    return base64.urlsafe_b64encode(str(offset).encode()).decode()


def _offset(cursor: str | None) -> int:
    if not cursor:
        return 0
    try:
        return max(0, int(base64.urlsafe_b64decode(cursor.encode())))
    except ValueError:
        raise BadInput(f"{cursor!r} is not a cursor of this list.", "Use the `next` of an earlier answer.") from None
