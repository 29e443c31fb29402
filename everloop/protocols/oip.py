"""Open Inference Protocol V2 (KServe, Triton, Seldon): an endpoint's name is a model, the live release's version its version.

Raw ASGI below /v2: JSON and the binary tensor extension both ways; errors are always {"error": text}, 400 where the client erred.
(Whether TCP_NODELAY is set is the event loop's matter; it has not been measured here.)
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import orjson
from starlette.routing import Mount, Route

import everloop
from everloop.core.clock import from_iso, new_span_id, new_trace_id
from everloop.core.errors import BadInput, EverloopError, NotFound, TooLarge
from everloop.core.limits import BODY_BYTES
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref
from everloop.core.types import Call, TraceContext
from everloop.protocols.oip_tensors import OF_SIGNATURE, batch_of, tensor_of

LENGTH = b"inference-header-content-length"
NOBODY = Principal("nobody", "", Role.viewer, kind="anonymous")
"""Who a public probe is for: in no project, so that nothing but health can be seen."""
EXTENSIONS = ["binary_tensor_data", "model_repository"]
rights = {
    "public": ("GET /v2/health/live", "GET /v2/health/ready"),
    "any": (
        "GET /v2",
        "GET /v2/models/{name}",
        "GET /v2/models/{name}/ready",
        "GET /v2/models/{name}/versions/{version}",
        "GET /v2/models/{name}/versions/{version}/ready",
        "POST /v2/repository/index",
    ),
    "call": ("POST /v2/models/{name}/infer", "POST /v2/models/{name}/versions/{version}/infer"),
    "editor": ("POST /v2/repository/models/{name}/load", "POST /v2/repository/models/{name}/unload"),
}
"""Who may use which route: see web/rights.py."""
error_shapes = {"/v2": lambda error: {"error": str(error)}}


def mount(app: Any, ws: Any) -> None:
    """Serve /v2 before all other routes."""
    served = Oip(ws)
    app.router.routes.insert(0, Mount("/v2", app=served))
    app.router.routes.insert(0, Route("/v2", served))  # a mount alone answers /v2/


class Oip:
    """The protocol as an ASGI app."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self._models: dict[tuple[str, str], dict[str, Any]] = {}  # versions never change, so they are read once

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers: list[tuple[bytes, bytes]] = []
        try:
            path = scope["path"][len(scope.get("root_path", "")) :] if scope["path"].startswith(scope.get("root_path", "")) else scope["path"]
            parts = [unquote(part) for part in path.strip("/").removeprefix("v2").strip("/").split("/") if part]
            status, body, length = await self._answer(scope, parts, receive)
            if length is not None:
                headers.append((LENGTH, str(length).encode()))
        except EverloopError as error:
            status, body, length = error.status, orjson.dumps({"error": str(error)}), None
        kind = b"application/json" if length is None else b"application/octet-stream"
        headers += [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Any, parts: list[str], receive: Any) -> tuple[int, bytes, int | None]:
        who: Principal = scope.get("everloop.who") or NOBODY  # the two health probes are public
        method = scope["method"]
        if parts[:1] == ["models"] and len(parts) > 1:
            name, rest = parts[1], parts[2:]
            version = None
            if rest[:1] == ["versions"] and len(rest) > 1:
                version, rest = rest[1], rest[2:]
            if rest == ["infer"] and method == "POST":
                return await self._infer(who, name, version, dict(scope["headers"]), await _body(receive))
            if method == "GET" and rest in ([], ["ready"]):
                found = await self._metadata(who, name, version)
                return 200, orjson.dumps({"name": name, "ready": True} if rest else found), None
        elif parts == ["repository", "index"] and method == "POST":
            return 200, orjson.dumps(await self._index(who)), None
        elif parts[:2] == ["repository", "models"] and len(parts) == 4 and method == "POST":
            return await self._repository(who, parts[2], parts[3])
        elif method == "GET":
            plain = {
                "": {"name": "everloop", "version": everloop.__version__, "extensions": EXTENSIONS},
                "health/live": {"live": True},
                "health/ready": {"ready": bool(self.ws.started), "live": True},
            }
            found_plain = plain.get("/".join(parts))
            if found_plain is not None:
                return 200 if found_plain.get("ready", True) else 503, orjson.dumps(found_plain), None
        raise NotFound(f"The Open Inference Protocol has no {method} /v2/{'/'.join(parts)}.", "POST /v2/models/NAME/infer predicts.")

    async def _model(self, who: Principal, name: str, version: str | None) -> tuple[Ref, dict[str, Any]]:
        """The live release behind an endpoint and its model's manifest; NotFound for another version than a live one. No records are read again."""
        kind, refs = await self.ws.endpoints.live(who, name)
        if kind != "predict":
            raise BadInput(f"The endpoint {name!r} is for chat.", "Call it at /v1/chat/completions.")
        live = [Ref.parse(ref) for ref in refs]
        found = next((ref for ref in live if version in (None, ref.at)), None)
        if found is None:
            raise NotFound(f"The model {name!r} has no live version {version or ''}.", f"Live: {', '.join(r.at for r in live) or 'none'}.")
        key = (who.project, str(found))
        if key not in self._models:
            pins = (await self.ws.assets.get(who.reading(), str(found)))["manifest"]["pins"]
            self._models[key] = (await self.ws.assets.get(who.reading(), pins["model"]))["manifest"]
        return found, self._models[key]

    async def _metadata(self, who: Principal, name: str, version: str | None) -> dict[str, Any]:
        ref, model = await self._model(who, name, version)
        inputs = [{"name": i["name"], "datatype": OF_SIGNATURE.get(i.get("type"), "BYTES"), "shape": [-1]} for i in model["signature"]["inputs"]]
        outputs = [{"name": "prediction", "datatype": "FP64" if model.get("task") == "regression" else "BYTES", "shape": [-1]}]
        outputs = [{**o, "datatype": OF_SIGNATURE.get(_output(model, "prediction"), o["datatype"])} for o in outputs]
        outputs += [{"name": f"probability_{c}", "datatype": "FP64", "shape": [-1]} for c in model.get("classes") or ()]
        return {"name": name, "versions": [ref.at], "platform": f"everloop_{model.get('engine', 'onnx')}", "inputs": inputs, "outputs": outputs}

    async def _index(self, who: Principal) -> list[dict[str, Any]]:
        items = [e for e in (await self.ws.endpoints.list(who))["items"] if e["kind"] == "predict"]
        return [
            {"name": e["name"], "version": Ref.parse(p["ref"]).at if p["ref"] else "", "state": "READY" if p["ref"] else "UNAVAILABLE", "reason": ""}
            for e in items
            for p in e["live"]
        ]

    async def _repository(self, who: Principal, name: str, verb: str) -> tuple[int, bytes, int | None]:
        ref, _ = await self._model(who, name, None)
        if verb == "load":
            await self.ws.endpoints.warm(who, str(ref))
            return 200, b"{}", None
        raise BadInput("An endpoint is not unloaded by its clients.", "Traffic follows a release's alias: move or remove that.")

    async def _infer(self, who: Principal, name: str, version: str | None, headers: dict[bytes, bytes], body: bytes) -> tuple[int, bytes, int | None]:
        ask, tail = _parse(headers, body)
        ref, model = await self._model(who, name, version)
        batch = batch_of(ask["inputs"], tail, [str(i["name"]) for i in model["signature"]["inputs"]])
        params = ask.get("parameters") or {}
        at = from_iso(str(params["at"])) if "at" in params else self.ws.clock.now()
        trace = TraceContext(new_trace_id(), new_span_id(), at=at)
        call = Call(name, batch, who, trace, params={"user": str(params.get("user", "")), "session": str(params.get("session", ""))})
        answer = await self.ws.endpoints.serve(call)
        columns = answer.outputs.columns
        wishes = ask.get("outputs") or [{"name": column} for column in columns]
        everything = bool(params.get("binary_data_output"))
        outputs, raw = [], b""
        for wish in wishes:
            if wish.get("name") not in columns:
                raise BadInput(f"There is no output {wish.get('name')!r}.", f"Outputs: {', '.join(columns)}.")
            tensor, data = tensor_of(wish["name"], columns[wish["name"]], (wish.get("parameters") or {}).get("binary_data", everything))
            outputs.append(tensor)
            raw += data
        shown = {"model_name": name, "model_version": answer.release.at if answer.release else ref.at, "id": ask.get("id") or trace.trace_id}
        head = orjson.dumps(
            {**shown, "parameters": {"trace_id": trace.trace_id, "release": str(answer.release)}, "outputs": outputs},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        binary = any("data" not in tensor for tensor in outputs)
        return 200, head + raw, len(head) if binary else None


def _output(model: dict[str, Any], name: str) -> str:
    return next((str(o.get("type")) for o in model["signature"].get("outputs") or () if o.get("name") == name), "")


def _parse(headers: dict[bytes, bytes], body: bytes) -> tuple[dict[str, Any], bytes]:
    """The request's JSON and the binary tensors behind it."""
    length = headers.get(LENGTH)
    try:
        cut = len(body) if length is None else int(length)
        ask = orjson.loads(body[:cut])
    except ValueError as error:
        raise BadInput(f"The body is not an inference request in JSON: {error}.") from None
    tensors = ask.get("inputs") if isinstance(ask, dict) else None
    if not isinstance(tensors, list) or not tensors or not all(isinstance(t, dict) for t in tensors):
        raise BadInput("The request has no list 'inputs' of tensors.", '{"inputs": [{"name", "shape", "datatype", "data"}]}')
    return ask, body[cut:]


async def _body(receive: Any) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_BYTES:
            raise TooLarge(f"The body is over {BODY_BYTES} bytes.", "Send fewer rows at once.")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
