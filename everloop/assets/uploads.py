"""Uploads in parts that are under way: what they become and which parts are there; documents of kind `upload` and `upload-part`.

The parts are objects. Their rows keep them from the garbage collector until the upload is complete, is given up, or is too old.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.core.errors import BadInput, Busy, NotFound, TooLarge
from everloop.core.limits import UPLOAD_BYTES, UPLOAD_PARTS, UPLOADS_OPEN, UPLOADS_SECONDS
from everloop.store.records import Tx
from everloop.store.schema import documents

KIND, PART = "upload", "upload-part"


def begin(tx: Tx, place: dict[str, str], parts: int) -> dict[str, Any]:
    """A new upload of so many parts to a place (the caller's words): {"id", "place", "parts", "at", "by", "done"}. BadInput for too many parts, Busy
    where UPLOADS_OPEN of the project are under way already."""
    if not 0 <= parts <= UPLOAD_PARTS:
        raise BadInput(f"An upload has at most {UPLOAD_PARTS} parts, not {parts}.", "Make the parts larger: MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE.")
    forget_old(tx)
    under_way = sa.select(sa.func.count()).select_from(documents).where(*_of(tx, KIND))
    if int(tx.value(under_way) or 0) >= UPLOADS_OPEN:
        raise Busy(f"{UPLOADS_OPEN} uploads in parts are under way in this project.", "Complete or abort some; they end by themselves after a day.")
    body = {"id": tx.clock.new_id(), "place": place, "parts": parts, "at": tx.now, "by": tx.who.name, "done": None}
    _keep(tx, KIND, body["id"], body)
    return body


def get(tx: Tx, id: str) -> dict[str, Any]:
    """An upload; NotFound where there is none such (any more)."""
    found = tx.value(sa.select(documents.c.body).where(*_of(tx, KIND), documents.c.name == id, documents.c.updated_at > tx.now - UPLOADS_SECONDS))
    if found is None:
        raise NotFound(f"There is no upload {id[:64]!r}.", "It was aborted, or began over a day ago: begin it again.")
    return dict(found)


def put_part(tx: Tx, id: str, number: int, digest: str, size: int) -> None:
    """Note that a part is there, in place of what was sent as that part before. NotFound for an upload that is not under way, BadInput for a part that
    it does not have."""
    upload = get(tx, id)
    if not 1 <= number <= upload["parts"]:
        raise BadInput(f"The upload has parts 1 to {upload['parts']}, not {number}.")
    if upload["done"]:
        raise BadInput("The upload is complete; its parts cannot be changed.")
    _keep(tx, PART, _part(id, number), {"digest": digest, "size": size})


def parts(tx: Tx, id: str, told: list[tuple[int, str]]) -> tuple[dict[str, Any], list[str]]:
    """(the upload, the digests of its parts in order), where `told` [(number, digest)] says what the client sent: BadInput names a part that is
    missing or another one here, TooLarge where all are over UPLOAD_BYTES."""
    upload = get(tx, id)
    names = [_part(id, number) for number in range(1, upload["parts"] + 1)]
    rows = tx.rows(sa.select(documents.c.name, documents.c.body).where(*_of(tx, PART), documents.c.name >= f"{id}/", documents.c.name < f"{id}0"))
    there = {row["name"]: row["body"] for row in rows}
    missing = [number for number, name in enumerate(names, 1) if name not in there]
    if missing and not upload["done"]:
        raise BadInput(f"Of {len(names)} parts {len(missing)} are missing, the first is {missing[0]}.", "Send them, then complete the upload.")
    said = dict(told)
    if sorted(said) != list(range(1, upload["parts"] + 1)) or len(said) != len(told):
        raise BadInput(f"The list of parts must name 1 to {upload['parts']}, each once.")
    if upload["done"]:
        return upload, []
    for number, name in enumerate(names, 1):
        if said[number] != there[name]["digest"]:
            raise BadInput(f"Part {number} here has the ETag {there[name]['digest']}, not {said[number]!r}.", "Send it again.")
    total = sum(there[name]["size"] for name in names)
    if total > UPLOAD_BYTES:
        raise TooLarge(f"The parts are {total} bytes together; a file may be {UPLOAD_BYTES}.")
    return upload, [there[name]["digest"] for name in names]


def finish(tx: Tx, upload: dict[str, Any], digest: str, size: int) -> None:
    """Note what an upload has become, so that completing it again is no error, and forget its parts."""
    _keep(tx, KIND, upload["id"], {**upload, "done": {"digest": digest, "size": size}})
    _drop_parts(tx, upload["id"])


def drop(tx: Tx, id: str) -> None:
    """Give an upload up; one that is not there is given up already."""
    tx.run(documents.delete().where(*_of(tx, KIND), documents.c.name == id))
    _drop_parts(tx, id)


def forget_old(tx: Tx) -> int:
    """Give up what began over UPLOADS_SECONDS ago; how many."""
    old = tx.rows(sa.select(documents.c.name).where(*_of(tx, KIND), documents.c.updated_at <= tx.now - UPLOADS_SECONDS))
    for row in old:
        drop(tx, row["name"])
    return len(old)


def _drop_parts(tx: Tx, id: str) -> None:
    tx.run(documents.delete().where(*_of(tx, PART), documents.c.name >= f"{id}/", documents.c.name < f"{id}0"))


def _keep(tx: Tx, kind: str, name: str, body: dict[str, Any]) -> None:
    row = {"project": tx.project, "kind": kind, "name": name, "body": body, "updated_at": tx.now, "updated_by": tx.who.name}
    tx.upsert(documents, row)


def _part(id: str, number: int) -> str:
    return f"{id}/{number:05d}"


def _of(tx: Tx, kind: str) -> list[Any]:
    return [documents.c.project == tx.project, documents.c.kind == kind]
