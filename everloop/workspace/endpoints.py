"""Endpoints: names that users call, the releases behind them, and the calls themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from everloop.assets import catalog, gates
from everloop.core.clock import new_span_id, new_trace_id
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import SPAN_ROWS
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref, check_alias, check_name
from everloop.core.types import Answer, Batch, Call, Chat, Serve, TraceContext
from everloop.serve.embed import embedded
from everloop.serve.limit import limit
from everloop.serve.record import record, row_of
from everloop.serve.spans import span
from everloop.serve.split import split
from everloop.serve.streams import begun
from everloop.store import audit
from everloop.store.schema import endpoints

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

_logger = logging.getLogger("everloop.endpoints")
LIMITS: dict[str, dict[str, float]] = {"predict": {"timeout_s": 30, "concurrency": 64}, "chat": {"timeout_s": 120, "concurrency": 64}}
"""An endpoint's bounds by its kind, where its spec says nothing."""


class Endpoints:
    """Facade over endpoints' records and the loaded releases. A release is loaded once, and before traffic comes to it."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._releases: dict[tuple[str, str], asyncio.Task[Serve]] = {}
        self._served: dict[tuple[str, str], Serve] = {}
        self._specs: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        self._live: dict[tuple[str, str], dict[str, tuple[str, Serve]]] = {}
        self._opening: dict[tuple[str, str], asyncio.Lock] = {}
        self._filling: dict[tuple[str, str], asyncio.Lock] = {}

    async def on_stop(self) -> None:
        """Let go of the connections to LLM providers."""
        from everloop.engines import http

        await http.close()

    async def put(self, who: Principal, name: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Declare or change an endpoint. BadInput for a spec that cannot be."""
        who.need(Role.editor, "declare an endpoint")
        check_name(name)
        full = full_spec(name, kind, spec)

        await self.ws.records.write(who, lambda tx: put(tx, name, kind, full))
        await self.changed(who, name, str(full["release"]))
        return await self.get(who, name)

    async def changed(self, who: Principal, name: str, release: str) -> None:
        """Serve an endpoint by its new spec from now on."""
        self._served.pop((who.project, name), None)
        await self._fill(who, release)

    async def live(self, who: Principal, name: str) -> tuple[str, list[str]]:
        """(kind, exact releases behind the endpoint in the order of its split), from memory, as calls are served: no records are read."""
        who.need(Role.caller)
        if (who.project, name) not in self._served:
            await self._open(who.reading(), name)
        kind, spec = self._specs[who.project, name]
        held = self._live.get((who.project, spec["release"]), {})
        return kind, [held[part["alias"]][0] for part in spec["split"] if part["alias"] in held]

    async def list(self, who: Principal) -> dict[str, Any]:
        """All endpoints of the project with what is live: {"items", "next"}."""
        statement = sa.select(endpoints).where(endpoints.c.project == who.project).order_by(endpoints.c.name)
        rows = await self.ws.records.read(who.need(Role.caller), lambda tx: [_shown(tx, row) for row in tx.rows(statement)])
        return {"items": rows, "next": None}

    async def get(self, who: Principal, name: str) -> dict[str, Any]:
        """One endpoint with `live`: [{"alias", "ref", "weight"}]; NotFound lists those there are."""

        def work(tx: Any) -> dict[str, Any]:
            row = tx.row(sa.select(endpoints).where(endpoints.c.project == tx.project, endpoints.c.name == name))
            if row is None:
                names = [r["name"] for r in tx.rows(sa.select(endpoints.c.name).where(endpoints.c.project == tx.project).limit(50))]
                raise NotFound(f"There is no endpoint {name!r} in project {tx.project!r}.", f"There are: {', '.join(sorted(names)) or 'none yet'}.")
            return _shown(tx, row)

        return await self.ws.records.read(who.need(Role.caller), work)

    async def serve(self, call: Call) -> Answer:
        """The hot path: one call to an endpoint of the caller's project, split, bounded and recorded. Needs the role caller, or editor."""
        call.principal.need_call()
        found = self._served.get((call.project, call.endpoint))
        if found is None:
            found = await self._open(call.principal.reading(), call.endpoint)
        return await found(call)

    async def predict(
        self,
        who: Principal,
        name: str,
        batch: Batch,
        *,
        at: float | None = None,
        user: str = "",
        session: str = "",
        trace_id: str | None = None,
        partial: bool = False,
    ) -> dict[str, Any]:
        """Rows through an endpoint: {"predictions": [{..., "prediction_id"}], "release", "trace_id"}. `at` is event time.

        `release:NAME@AT` as the name asks that release itself; such calls are recorded under `batch:NAME`. With `partial`, rows that do not fit the
        model's signature are answered None and listed in "refused" ([{"row", "column", "why"}]); the others are predicted.
        """
        refused: list[dict[str, Any]] = []
        keep, n = list(range(batch.n)), batch.n
        if partial:
            batch, keep, refused = await self._fitting(who, name, batch)
        if not keep:
            return {"predictions": [None] * n, "release": "", "trace_id": "", "refused": refused}
        trace = TraceContext(trace_id or new_trace_id(), new_span_id(), at=self.ws.clock.now() if at is None else float(at))
        call = Call(name, batch, who, trace, params={"user": user, "session": session})
        answer = await (self._serve_release(call) if name.startswith("release:") else self.serve(call))
        shown = answer.outputs
        if not hasattr(shown, "columns"):
            raise BadInput(f"The endpoint {name!r} is for chat.", "Call it at /v1/chat/completions.")
        rows: list[Any] = [{**row_of(shown.columns, i), "prediction_id": f"{trace.trace_id}-{i}"} for i in range(shown.n)]
        said = {"predictions": rows, "release": str(answer.release), "trace_id": trace.trace_id}
        if partial:
            answers = dict(zip(keep, rows, strict=True))
            said |= {"predictions": [answers.get(i) for i in range(n)], "refused": refused}
        return said

    async def _serve_release(self, call: Call) -> Answer:
        """A call to a release itself, recorded, beside the endpoints' traffic."""
        call.principal.need(Role.editor, "ask a release without an endpoint")
        exact = await self.ws.assets.resolve(call.principal, Ref.parse(call.endpoint, "release"))
        inner = await self._load(call.principal, str(exact))
        call.trace.attributes["everloop.release"] = str(exact)
        return await record(inner, self._write)(call.replace(endpoint=f"batch:{exact.name}"))

    async def _fitting(self, who: Principal, name: str, batch: Batch) -> tuple[Batch, list[int], list[dict[str, Any]]]:
        """(the rows that fit what the name's release takes, their places, the others with why)."""
        from everloop.engines.fit import as_wanted, fitting

        ref = name
        if not name.startswith("release:"):
            found = await self.get(who, name)
            ref = next((p["ref"] for p in found["live"] if p["ref"]), "")
            if not ref:
                raise NotFound(f"Nothing is live behind the endpoint {name!r}.", f"Promote a version of release:{found['spec']['release']}.")
        release = await self.ws.assets.get(who, Ref.parse(ref, "release"))
        if "model" not in release["manifest"]["pins"]:
            raise BadInput(f"{release['ref']} is a chat release; it predicts nothing from rows.", "Call it at /v1/chat/completions.")
        signature = (await self.ws.assets.get(who, release["manifest"]["pins"]["model"]))["manifest"]["signature"]
        kinds = {i["name"]: i["type"] for i in signature["inputs"]}

        def work() -> tuple[Batch, list[int], list[dict[str, Any]]]:
            columns = {c: as_wanted(values, kinds[c]) for c, values in batch.columns.items() if c in kinds}
            keep, refused = fitting(columns, batch.n, signature)
            return Batch({c: [values[i] for i in keep] for c, values in columns.items()}, len(keep)), keep, refused

        return await asyncio.to_thread(work)

    async def chat(self, who: Principal, name: str, chat: Chat, *, user: str = "", session: str = "") -> tuple[Answer, str]:
        """A chat through an endpoint: its Answer (a stream if `chat.stream`, to be read or closed) and the trace id.

        A stream's first chunk is there already, so what fails before it is raised here. BadInput for an endpoint that predicts.
        """
        trace = TraceContext(new_trace_id(), new_span_id(), at=self.ws.clock.now())
        answer = await self.serve(Call(name, chat, who, trace, params={"user": user, "session": session}))
        if answer.streams:
            answer = answer.replace(outputs=await begun(answer.outputs))
        return answer, trace.trace_id

    async def embed(self, who: Principal, model: str, texts: Sequence[str], dimensions: int | None = None) -> tuple[Any, str, int]:
        """(vectors of length 1 as float32 rows, the index's exact reference, words embedded) of texts, by the embedder of `index:NAME[@at]`.

        `dimensions` keeps the first so many, as the embedder orders them. NotFound for an unknown index, BadInput for what cannot be embedded.
        """
        asset = await self.ws.assets.get(who.need_call("embed texts").reading(), str(Ref.parse(model, "index")))
        if asset["kind"] != "index":
            raise BadInput(f"{asset['ref']} is no index.", "Name an index: index:NAME.")
        trace = TraceContext(new_trace_id(), new_span_id(), at=self.ws.clock.now())
        tokens = sum(len(text.split()) for text in texts)
        with span(trace, "embed", "EMBEDDING") as made:
            made.attributes.update({"embedding.model_name": asset["ref"], "llm.token_count.prompt": tokens, "everloop.principal": who.name})
            vectors = await asyncio.to_thread(embedded, self.ws.objects, who.project, asset, list(texts), dimensions)
        made.span_id, made.parent_id = trace.span_id, None
        await self._write(who, trace.spans, [])
        return vectors, asset["ref"], tokens

    async def run_release(self, who: Principal, ref: str | Ref) -> Serve:
        """An exact release as a callable, without an endpoint; what it answers is not recorded among production traces."""
        exact = await self.ws.assets.resolve(who.need(Role.viewer), Ref.parse(str(ref), "release"))
        return await self._load(who, str(exact))

    async def warm(self, who: Principal, ref: str, alias: str = "") -> None:
        """Load a release before traffic comes to it, so that moving an alias fails no request."""
        await self.run_release(who, ref)

    async def refresh(self, project: str, release: str) -> None:
        """An alias of `release` moved: load what it means now, then switch in one step."""
        from everloop.core.principal import SYSTEM

        await self._fill(SYSTEM.in_project(project), release)

    def forget(self, project: str) -> None:
        """Let go of everything that is loaded in a project; it is opened anew at the next call."""
        for held in (self._releases, self._served, self._live):
            for key in [key for key in held if key[0] == project]:
                held.pop(key, None)

    async def _open(self, who: Principal, name: str) -> Serve:
        async with self._opening.setdefault((who.project, name), asyncio.Lock()):
            if (who.project, name) in self._served:
                return self._served[who.project, name]
            found = await self.get(who, name)
            spec = found["spec"]
            release, bounds = spec["release"], {**LIMITS[found["kind"]], **spec["limits"]}
            if (who.project, release) not in self._live:
                await self._fill(who, release)
            live = lambda: self._live.get((who.project, release), {})
            chosen = split(name, spec["split"], live, spec["shadow"], self.ws.spawn, self._write)
            bounded = limit(chosen, name, int(bounds["concurrency"]), float(bounds["timeout_s"]))
            self._specs[who.project, name] = (found["kind"], spec)
            self._served[who.project, name] = record(bounded, self._write)
            return self._served[who.project, name]

    async def _fill(self, who: Principal, release: str) -> None:
        """Load what the aliases that endpoints follow mean now; the table is replaced in one step, when all is loaded."""

        def work(tx: Any) -> dict[str, int]:
            specs = [r["spec"] for r in tx.rows(sa.select(endpoints.c.spec).where(endpoints.c.project == tx.project))]
            followed = {a for s in specs if s["release"] == release for a in [*(p["alias"] for p in s["split"]), s["shadow"]]}
            return {alias: version for alias, version in catalog.aliases_of(tx, "release", release).items() if alias in followed}

        async with self._filling.setdefault((who.project, release), asyncio.Lock()):  # what was read last is what stays
            found = await self.ws.records.read(who, work)
            refs = {alias: f"release:{release}@{version}" for alias, version in found.items()}
            loaded = await asyncio.gather(*(self._load(who, ref) for ref in refs.values()), return_exceptions=True)
            failures = [f"{ref}: {found}" for ref, found in zip(refs.values(), loaded, strict=True) if isinstance(found, BaseException)]
            if failures and len(failures) == len(refs):
                raise next(found for found in loaded if isinstance(found, BaseException))
            for failure in failures:  # its share of the calls fails; it keeps no other from being served
                _logger.error("project %s cannot serve %s", who.project, failure)
            table = {
                alias: (ref, self._later(who, ref) if isinstance(serve, BaseException) else serve)
                for (alias, ref), serve in zip(refs.items(), loaded, strict=True)
            }
            self._live[who.project, release] = table

    def _later(self, who: Principal, ref: str) -> Serve:
        """A release that could not be loaded, tried again at each call."""

        async def serve(call: Call) -> Answer:
            return await (await self._load(who, ref))(call)

        return serve

    async def _load(self, who: Principal, ref: str) -> Serve:
        key = (who.project, ref)
        if key not in self._releases:
            self._releases[key] = asyncio.get_running_loop().create_task(self._build(who, ref))
        try:
            return await asyncio.shield(self._releases[key])
        except Exception:
            self._releases.pop(key, None)
            raise

    async def _build(self, who: Principal, ref: str) -> Serve:
        from everloop.serve.runtime import build

        release = await self.ws.assets.get(who, ref)
        manifest = release["manifest"]
        pins = {role: await self.ws.assets.get(who, pin) for role, pin in manifest["pins"].items()}
        for pin in pins.values():
            await self.ws.models.allow(who, pin)
        policy = await self.ws.assets.get(who, manifest["policy"]) if manifest.get("policy") else None
        return await asyncio.to_thread(build, self.ws, who.project, release, pins, policy)

    async def _write(self, who: Principal, spans: list[Any], predictions: list[dict[str, Any]]) -> None:
        if len(predictions) > SPAN_ROWS or self.ws.telemetry.cleans(who.project):
            await asyncio.to_thread(self.ws.traces.record, who, spans, predictions)
        else:
            self.ws.traces.record(who, spans, predictions)


def put(tx: Any, name: str, kind: str, full: Mapping[str, Any]) -> None:
    """Keep an endpoint's full spec. Forbidden where it would lead users round a gate (see gates.need_to_reroute)."""
    before = tx.row(sa.select(endpoints.c.spec).where(endpoints.c.project == tx.project, endpoints.c.name == name))
    if before is not None:
        gates.need_to_reroute(tx, f"the endpoint {name}", before["spec"], dict(full))
    row = {"project": tx.project, "name": name, "kind": kind, "spec": dict(full)}
    row.update(created_at=tx.now, updated_at=tx.now, updated_by=tx.who.name)
    tx.upsert(endpoints, row, update=["kind", "spec", "updated_at", "updated_by"])
    audit.record(tx, "endpoint.put", f"endpoint:{name}", kind=kind, spec=dict(full))


def full_spec(name: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """An endpoint's spec with its defaults; BadInput says what cannot be."""
    if kind not in ("predict", "chat"):
        raise BadInput(f"An endpoint of kind {kind!r} cannot be.", "Kinds: predict, chat.")
    unknown = set(spec) - {"release", "split", "shadow", "limits"}
    if unknown:
        raise BadInput(f"An endpoint has no setting {', '.join(sorted(unknown))}.", "Settings: release, split, shadow, limits.")
    parts = [{"alias": check_alias(str(p["alias"])), "weight": float(p.get("weight", 100))} for p in spec.get("split") or [{"alias": "champion"}]]
    if any(p["weight"] < 0 for p in parts) or not sum(p["weight"] for p in parts):
        raise BadInput("The weights of a split are numbers from 0 up, at least one of them above it.")
    release = Ref.parse(str(spec.get("release") or name), "release").name
    return {"release": release, "split": parts, "shadow": spec.get("shadow"), "limits": {**LIMITS[kind], **(spec.get("limits") or {})}}


def _shown(tx: Any, row: dict[str, Any]) -> dict[str, Any]:
    spec = row["spec"]
    found = catalog.aliases_of(tx, "release", spec["release"])
    live = [{**part, "ref": f"release:{spec['release']}@{found[part['alias']]}" if part["alias"] in found else None} for part in spec["split"]]
    return {**{k: row[k] for k in ("name", "kind", "spec", "created_at", "updated_at", "updated_by")}, "live": live}
