"""/invocations and /ping as MLflow's scoring server and SageMaker have them; the endpoint is ?endpoint= or the only one that predicts."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from everloop.core.errors import BadInput, EverloopError
from everloop.core.types import Batch

router = APIRouter(tags=["invocations"])
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


@router.get("/ping")
async def ping() -> Response:
    """200 when the server answers."""
    return Response(b"\n")


@router.post("/invocations")
async def invocations(request: Request, endpoint: str | None = None) -> Response:
    """Predictions for one of dataframe_split, dataframe_records, instances, inputs (JSON), or CSV with a header: {"predictions": [...]}."""
    ws, who = request.app.state.workspace, request.scope["everloop.who"]
    try:
        if endpoint is None:
            names = [e["name"] for e in (await ws.endpoints.list(who))["items"] if e["kind"] == "predict"]
            if len(names) != 1:
                raise BadInput(
                    "Several endpoints could be meant, or none.", f"Say which: /invocations?endpoint=NAME ({', '.join(names) or 'none yet'})."
                )
            endpoint = names[0]
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
        batch = batch_of(kind, await request.body())
        answer = await ws.endpoints.predict(who, endpoint, batch)
    except EverloopError as error:
        return Response(orjson.dumps(_shape(error)), error.status, media_type="application/json")
    headers = {"x-everloop-trace": answer["trace_id"], "x-everloop-release": answer["release"]}
    body = {"predictions": [p["prediction"] for p in answer["predictions"]]}
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


def batch_of(kind: str, raw: bytes) -> Batch:
    """A body of one of the formats as a batch; BadInput says what was wanted."""
    if kind == "text/csv":
        try:
            rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInput(f"The body is not CSV in UTF-8: {error}.") from None
        return _records([{name: _value(v) for name, v in row.items() if name is not None} for row in rows])
    try:
        body = orjson.loads(raw)
    except ValueError as error:
        raise BadInput(f"The body is not JSON: {error}.") from None
    given = [form for form in FORMS if isinstance(body, dict) and form in body]
    if len(given) != 1:
        raise BadInput(f"The body has {len(given)} of the fields it needs one of.", f"One of: {', '.join(FORMS)}.")
    data = body[given[0]]
    if given[0] == "dataframe_split":
        if not isinstance(data, dict) or not isinstance(data.get("columns"), list) or not isinstance(data.get("data"), list):
            raise BadInput("dataframe_split needs lists 'columns' and 'data'.")
        names = [str(name) for name in data["columns"]]
        if not all(isinstance(row, list) and len(row) == len(names) for row in data["data"]):
            raise BadInput(f"Each row of dataframe_split.data needs {len(names)} values.")
        return _records([dict(zip(names, row, strict=True)) for row in data["data"]])
    if isinstance(data, dict) and given[0] == "inputs":
        columns = {name: values if isinstance(values, list) else [values] for name, values in data.items()}
        sizes = {len(values) for values in columns.values()}
        if len(sizes) != 1:
            raise BadInput("The columns of 'inputs' are not equally long.")
        return Batch(columns, sizes.pop())
    return _records(data)


def _records(rows: Any) -> Batch:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput("The rows must be a list of objects with named columns, at least one.", '[{"age": 41, "income": 3200}]')
    names = dict.fromkeys(name for row in rows for name in row)
    return Batch({name: [row.get(name) for row in rows] for name in names}, len(rows))


def _value(text: str | None) -> Any:
    if text is None or text == "":
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _shape(error: EverloopError) -> dict[str, str]:
    code = "BAD_REQUEST" if error.status == 400 else error.code.upper().replace("-", "_")
    return {"error_code": code, "message": str(error)}


error_shapes = {"/invocations": _shape}
rights = {"public": ("GET /ping",), "call": ("POST /invocations",)}
"""Who may use which route: see web/rights.py."""
