"""Models: registering one in any known format, and whose pickles and code may be loaded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from everloop.assets import trust
from everloop.assets.trust import UNKNOWN
from everloop.core.errors import BadInput, Forbidden
from everloop.core.principal import Principal, Role
from everloop.store.schema import assets, logged_models, run_artifacts, runs

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

_COPY = re.compile(r"(?:models:|mlflow-artifacts:(?://[^/]*)?/everloop/model)/+([^/]+)/([0-9]{1,9})(?![^/])")
"""A source that is another registered version; the groups are its name and number."""


class Models:
    """Facade over formats and the list of trusted producers."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def put(
        self,
        who: Principal,
        name: str,
        format: str,
        files: Sequence[Mapping[str, Any]],
        *,
        sample: Mapping[str, Sequence[Any]] | None = None,
        classes: Sequence[Any] | None = None,
        positive: Any = None,
        task: str | None = None,
        pipeline: str | None = None,
        card: str = "",
        **more: Any,
    ) -> dict[str, Any]:
        """Register a model whose files are objects already: its format says how it is served; a scikit-learn one is converted where answers agree.

        `sample` is rows by column, as the model was trained on; `more` is run, reads, description, tags. BadInput says what the format misses,
        NotFound which formats there are.
        """
        who.need(Role.editor, "register a model")
        given = {"classes": list(classes) if classes else None, "task": task, "pipeline": pipeline}
        listed = [{"path": str(f["path"]), "digest": str(f["digest"]), "size": int(f.get("size") or 0)} for f in files]
        if not listed:
            raise BadInput("A model has at least one file.", "Put its bytes first: POST /api/v1/objects")
        made, onnx = await asyncio.to_thread(_described, format, listed, self._read(who), given, sample)
        manifest = {**made, "format": format, "files": listed}
        if onnx is not None:
            manifest["files"] = [*listed, {"path": "model.onnx", **await self.ws.assets.put_object(who, onnx)}]
        if positive is not None:
            if positive not in manifest["classes"]:
                raise BadInput(f"{positive!r} is none of the classes {manifest['classes']}.", "Name the class that counts as positive.")
            manifest["positive"] = positive
        if card:
            manifest["card"] = (await self.ws.assets.put_object(who, card.encode()))["digest"]
        return await self.ws.assets.register(who, "model", name, manifest, **more)

    async def logged(self, who: Principal, files: list[dict[str, Any]]) -> dict[str, Any]:
        """What makes a model that MLflow's client logged servable: fields for its manifest, with the reason where it is not."""
        files = [one for one in files if not one["path"].startswith("everloop/")]
        made, onnx = await asyncio.to_thread(_logged, files, self._read(who))
        listed = [{"path": "everloop/model.onnx", **await self.ws.assets.put_object(who, onnx)}] if onnx is not None else []
        return {**made, "files": [*files, *listed]}

    async def allow(self, who: Principal, asset: Mapping[str, Any]) -> None:
        """Forbidden where a model can only be loaded by running what its producer wrote, and that producer is not trusted; BadInput for a model that
        is not served at all."""
        from everloop.engines.base import ISOLATED

        manifest = asset["manifest"]
        if asset["kind"] != "model":
            return
        if not manifest.get("engine") and manifest.get("not_served"):
            raise BadInput(f"{asset['ref']} cannot be served: {manifest['not_served']}")
        if manifest.get("engine") != ISOLATED:
            return
        doubted = await self.ws.records.read(who, lambda tx: [maker for maker in _makers(tx, asset) if not trust.is_trusted(tx, maker)])
        if doubted:
            whose = " and ".join("somebody unknown (who wrote its files was not kept yet)" if one == UNKNOWN else one for one in doubted)
            raise Forbidden(
                f"{asset['ref']} is a pickle (or code) by {whose}, who is not trusted: opening it can run anything.",
                f"An admin may say so: everloop models trust {doubted[0]}. Or log it in a safe form: skops, ONNX, safetensors, XGBoost's or LightGBM's own.",
            )

    async def makers(self, who: Principal, ref: str) -> list[str]:
        """Who had a hand in a version of any kind: its files' writers, its registrant, its run's creator, and those of what it is a copy of."""
        asset = await self.ws.assets.get(who, ref)
        return await self.ws.records.read(who, lambda tx: _makers(tx, asset))

    async def trusted(self, who: Principal) -> list[dict[str, Any]]:
        """Who is trusted: [{"producer", "why", "at", "by"}]."""
        return await self.ws.records.read(who.need(Role.viewer), trust.listed)

    async def trust(self, who: Principal, producer: str, why: str = "") -> dict[str, Any]:
        """Trust a producer's pickles and code from now on; for admins, on the record."""
        who.need(Role.admin, "trust a producer's code")
        return await self.ws.records.write(who, lambda tx: trust.add(tx, producer, why))

    async def distrust(self, who: Principal, producer: str, why: str = "") -> None:
        """Trust a producer no longer: what is loaded of it is let go, and refused at the next call."""
        who.need(Role.admin, "distrust a producer's code")
        await self.ws.records.write(who, lambda tx: trust.remove(tx, producer, why))
        self.ws.endpoints.forget(who.project)

    def _read(self, who: Principal) -> Any:
        return lambda digest: self.ws.objects.get(who.project, digest)


def _makers(tx: Any, asset: Mapping[str, Any]) -> list[str]:
    """Who had a hand in a version: who registered it, who wrote its files, who made the run and the logged model that they came from, and the same of
    each version that it is a copy of."""
    found: list[str] = []
    seen: set[tuple[str, int]] = set()
    one: Mapping[str, Any] | None = asset
    while one is not None:
        origin = one["manifest"].get("mlflow") or {}
        found.append(str(one["created_by"]))
        for table, id in ((runs, one["run"]), (logged_models, origin.get("model"))):
            if id:
                maker = tx.value(sa.select(table.c.created_by).where(table.c.project == tx.project, table.c.id == id))
                found += [str(maker)] if maker else []
        found += _writers(tx, one, origin)
        copied = _COPY.match(str(origin.get("source") or ""))
        place = (copied[1], int(copied[2])) if copied else None
        if place is None or place in seen:
            break
        seen.add(place)
        where = [assets.c.project == tx.project, assets.c.kind == "model", assets.c.name == place[0], assets.c.version == place[1]]
        one = tx.row(sa.select(assets).where(*where))
    return list(dict.fromkeys(found))


def _writers(tx: Any, asset: Mapping[str, Any], origin: Mapping[str, Any]) -> list[str]:
    """Who wrote a version's files: as its manifest has it since it was registered; else those of its run and logged model that are the same still.

    UNKNOWN stands for whoever wrote a file that came from a run or logged model and of which nobody noted who: its creator is not meant by that,
    since every editor could have replaced it.
    """
    manifest = asset["manifest"]
    if "written_by" in manifest:
        return [str(one) for one in manifest["written_by"]]
    digests = {str(file["digest"]) for file in manifest.get("files") or () if not str(file["path"]).startswith("everloop/")}
    c = run_artifacts.c
    owners = [id for id in (asset["run"], origin.get("model")) if id]
    rows = tx.rows(sa.select(c.digest, c.by).where(c.project == tx.project, c.run.in_(owners))) if owners and digests else []
    by = [(row["digest"], row["by"] or UNKNOWN) for row in rows if row["digest"] in digests]
    lost = bool(origin) and not digests <= {digest for digest, _ in by}
    return sorted({name for _, name in by} | ({UNKNOWN} if lost else set()))


def _described(format: str, files: list[dict[str, Any]], read: Any, given: dict[str, Any], sample: Any) -> tuple[dict[str, Any], bytes | None]:
    from everloop.engines.base import formats
    from everloop.engines.faster import with_onnx
    from everloop.engines.signature import infer_signature

    rows = None
    if sample:
        import pandas as pd

        rows = pd.DataFrame({str(name): list(values) for name, values in sample.items()})
    signature = infer_signature(rows) if rows is not None else None
    for column in (signature or {}).get("inputs", ()):
        column["required"] = False
    made = formats.get(format)({"format": format, "files": files, "signature": signature, "flavor": {}, **given}, read)
    return with_onnx({"format": format, **made}, files, read, rows)


def _logged(files: list[dict[str, Any]], read: Any) -> tuple[dict[str, Any], bytes | None]:
    from everloop.engines.faster import with_onnx
    from everloop.engines.mlmodel import describe, example

    made = describe(files, read)
    return with_onnx(made, files, read, example(files, read)) if made.get("format") == "sklearn" else (made, None)
