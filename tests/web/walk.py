"""What the walk over every route needs: a project with something of every kind in it, a request for any route, and what a request changed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from starlette.testclient import TestClient

from everloop.core.principal import SYSTEM
from everloop.store.schema import metadata

NAME = "zqname"
"""What everything in the seeded project is called; error messages may repeat it."""
SECRET = "zqsecret"
"""What only that project's contents hold; nobody else may ever see it."""
CSV = "a,b,note,label\n" + "".join(f"{i % 7},{i % 5},{SECRET},{int(i % 7 > i % 5)}\n" for i in range(120))
OWN_TABLES = {"audit", "sessions"}
"""Tables that a refused request or a sign-in may rightly add to."""


@dataclass
class Seeded:
    """Headers of an admin of the project, and ids of what was made in it, by the piece of a path that comes before them."""

    headers: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)

    def fill(self, path: str) -> str:
        """A path with its parameters filled in from what was made."""
        before, pieces = "", []
        for piece in path.split("/"):
            match = re.fullmatch(r"\{(\w+)(?::path)?\}", piece)
            if match:
                piece = self.ids.get(f"{before}/{match[1]}") or self.ids.get(match[1]) or NAME
            else:
                before = piece
            pieces.append(piece)
        return "/".join(pieces)


def key(client: TestClient, project: str, role: str, name: str = "") -> dict[str, str]:
    """A key of a project with a role, as the header that carries it; the project is made where it is missing."""
    client.post("/api/v1/projects", json={"name": project})
    made = client.post("/api/v1/keys", json={"name": name or f"walk-{role}", "role": role}, headers={"x-everloop-project": project})
    assert made.status_code == 201, made.text
    return {"authorization": f"Bearer {made.json()['key']}"}


def model_bytes() -> bytes:
    """A logistic regression on a and b, as ONNX."""
    import numpy as np
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    trained = LogisticRegression().fit(x, (x[:, 0] > x[:, 1]).astype(int))
    return bytes(to_onnx(trained, x[:1], options={"zipmap": False}).SerializeToString())


def seed(client: TestClient, project: str) -> Seeded:
    """Put something of every kind into a project, all called NAME and holding SECRET."""
    made = Seeded(key(client, project, "admin", "owner"))

    def send(method: str, path: str, body: Any = None, **more: Any) -> Any:
        answer = client.request(method, path, json=body, headers=made.headers, **more)
        assert answer.status_code < 300, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    put = client.post("/api/v1/objects", content=SECRET.encode(), headers=made.headers).json()
    more = {"data": {"name": NAME, "description": SECRET, "roles": json.dumps({"target": "label"})}, "files": {"file": ("a.csv", CSV.encode())}}
    assert client.post("/api/v1/datasets", headers=made.headers, **more).status_code == 201
    assets = {
        "policy": {"rules": [{"name": SECRET, "check": "pii", "stage": "output", "action": "flag"}]},
        "prompt": {"messages": [{"role": "user", "content": SECRET + " {{ question }}"}], "syntax": "jinja2", "variables": ["question"]},
        "suite": {"task": "binary", "dataset": f"dataset:{NAME}@1", "target": "label", "protected": [], "cases": None, "count": 120},
        "code": {"files": [{"path": "m.py", **put}], "entry": "m", "requirements": [], "source": "0" * 64},
    }
    model = client.post("/api/v1/objects", content=model_bytes(), headers=made.headers).json()
    inputs = [{"name": n, "type": "number", "required": True} for n in ("a", "b")]
    signature = {"inputs": inputs, "outputs": [{"name": "prediction", "type": "integer"}]}
    files = {"format": "sklearn", "engine": "onnx", "files": [{"path": "model.onnx", **model}]}
    assets["model"] = {**files, "task": "binary", "classes": [0, 1], "positive": 1, "signature": signature}
    for kind, manifest in assets.items():
        send("POST", "/api/v1/assets", {"kind": kind, "name": NAME, "manifest": manifest, "description": SECRET, "tags": {"t": SECRET}})
    send("POST", "/api/v1/releases", {"name": NAME, "kind": "predict", "pins": {"model": f"model:{NAME}@1"}, "description": SECRET})
    send("PUT", f"/api/v1/assets/dataset/{NAME}/aliases/zqalias", {"version": 1, "why": SECRET})
    send("PUT", f"/api/v1/gates/release/{NAME}/champion", {"suite": f"suite:{NAME}", "requirements": ["auc >= 0.1"], "approval": "always"})
    decision = send("POST", "/api/v1/gates/evaluate", {"ref": f"release:{NAME}@1", "alias": "champion"})["id"]
    approver = key(client, project, "approver", "judge")
    assert client.post(f"/api/v1/decisions/{decision}/approve", json={"why": SECRET}, headers=approver).status_code == 200
    waiting = send("POST", "/api/v1/gates/evaluate", {"ref": f"release:{NAME}@1", "alias": "champion"})["id"]
    send("PUT", f"/api/v1/endpoints/{NAME}", {"kind": "predict", "spec": {"release": NAME}})
    answer = send("POST", f"/api/v1/endpoints/{NAME}/predict", {"rows": [{"a": 1, "b": 0, "note": SECRET}], "user": SECRET, "session": SECRET})
    trace = answer["trace_id"]
    send("POST", "/api/v1/scores", {"subject": trace, "name": "thumbs", "value": 1, "why": SECRET})
    rubric = [{"name": "risky", "classes": ["no", "yes"]}, {"name": "points", "type": "score"}, {"name": "why", "type": "text"}]
    send("PUT", f"/api/v1/queues/{NAME}", {"source": f"dataset:{NAME}", "rubric": rubric, "instructions": SECRET, "limit": 5})
    send("POST", f"/api/v1/queues/{NAME}/labels", {"item": "3", "answers": {"risky": "no", "points": 2, "why": SECRET}, "comment": SECRET})
    step = {"name": "one", "call": "everloop.build.credit:week", "params": {"p": SECRET}}
    send("PUT", f"/api/v1/pipelines/{NAME}", {"steps": [step]})
    send("PUT", f"/api/v1/schedules/{NAME}", {"pipeline": NAME, "cron": "@weekly", "params": {"p": SECRET}})
    started = send("POST", f"/api/v1/pipelines/{NAME}/runs", {"params": {"q": SECRET}})["id"]
    monitor = {"checks": [{"check": "drift"}], "on_fail": {"pipeline": NAME, "params": {"p": SECRET}}}
    send("PUT", f"/api/v1/monitors/{NAME}", {"endpoint": NAME, "spec": monitor, "enabled": False})
    run = send("POST", "/api/v1/runs", {"name": NAME, "kind": "training", "experiment": NAME, "params": {"p": SECRET}, "tags": {"t": SECRET}})["id"]
    send("POST", f"/api/v1/runs/{run}/log", {"metrics": [{"key": NAME, "value": 1.0, "step": 0, "at": 1.0}]})
    assert client.put(f"/api/v1/runs/{run}/artifacts/f.txt", content=SECRET.encode(), headers=made.headers).status_code < 300
    experiment = next(e["id"] for e in send("GET", "/api/v1/experiments")["items"] if e["name"] == NAME)
    logged = send("POST", "/api/2.0/mlflow/logged-models", {"experiment_id": experiment, "name": SECRET, "source_run_id": run})
    kept = send("POST", "/api/v1/keys", {"name": SECRET, "role": "viewer"})["id"]
    client.portal.call(client.app.state.workspace.traces.ws.telemetry.flush)  # type: ignore[union-attr, attr-defined]
    made.ids = {
        "kind": "dataset",
        "at": "1",
        "version": "1",
        "alias": "zqalias",
        "digest": put["digest"],
        "id": run,
        "user": "zquser",
        "users/name": "zquser",
        "keys/id": kept,
        "decisions/id": waiting,
        "runs/id": run,
        "pipeline-runs/id": started,
        "experiments/id": experiment,
        "logged-models/id": logged["model"]["info"]["model_id"],
        "why/id": f"dataset:{NAME}@1",
        "metrics/key": NAME,
        "tags/key": "t",
        "run_id": run,
        "run": run,
        "trace_id": trace,
        "mlflow-artifacts/path": f"{experiment}/{run}/artifacts/f.txt",
        "artifacts/path": "f.txt",
    }
    return made


def request(client: TestClient, method: str, path: str, made: Seeded, headers: dict[str, str]) -> Any:
    """Send a request to a route, its path filled in and its query and body naming what is in the seeded project."""
    filled = made.fill(path)
    if "mlflow-artifacts/artifacts/{path:path}" in path:
        filled = path.replace("{path:path}", made.ids["mlflow-artifacts/path"])
    body = attack(made)
    query = {k: str(v) for k, v in body.items() if isinstance(v, str | int)} if method in ("GET", "DELETE") else None
    if query is not None:
        query |= {
            "name": NAME,
            "metric_key": NAME,
            "limit": "50",
            "filter": "",
            "since": "2020-01-01",
            "edges_ms": "10",
            "kind": "",
            "seconds": "0.1",
        }
        query = {k: v for k, v in query.items() if k not in ("status", "view", "text", "experiment", "user", "id", "parent") and v != ""}
    more = {"json": body} if query is None else {}
    return client.request(method, filled, headers=headers, params=query, follow_redirects=False, **more)


def attack(made: Seeded) -> dict[str, Any]:
    """A body with every field that some route might take, all naming what is not the sender's."""
    run, experiment = made.ids["runs/id"], made.ids["experiments/id"]
    return {
        "name": NAME,
        "kind": "dataset",
        "role": "admin",
        "project": "mine",
        "manifest": {"format": "files", "files": [{"path": "data.txt", "digest": made.ids["digest"], "size": 8}]},
        "pins": {"model": f"model:{NAME}@1"},
        "ref": f"dataset:{NAME}@1",
        "alias": "zqalias",
        "at": 1,
        "version": "1",
        "why": "mine now",
        "description": "mine now",
        "tags": {"t": "mine now"},
        "params": {"p": "mine now"},
        "metrics": [{"key": "m", "value": 9.0, "step": 0, "at": 1.0}],
        "status": "failed",
        "experiment": NAME,
        "experiment_id": experiment,
        "experiment_ids": [experiment],
        "run_id": run,
        "run_uuid": run,
        "run": run,
        "parent": run,
        "id": run,
        "owner": "me",
        "key": "t",
        "value": "mine now",
        "subject": made.ids["trace_id"],
        "scores": [{"subject": made.ids["trace_id"], "name": "n", "value": 1}],
        "endpoint": NAME,
        "model": NAME,
        "pipeline": NAME,
        "cron": "@daily",
        "steps": [{"name": "one", "call": "everloop.build.credit:week"}],
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 10,
        "input": "hello",
        "rows": [{"a": 1, "b": 2}],
        "inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1.0]}, {"name": "b", "shape": [1], "datatype": "FP64", "data": [1.0]}],
        "spec": {"release": NAME, "checks": [{"check": "drift"}]},
        "suite": f"suite:{NAME}",
        "requirements": ["auc >= 0.0"],
        "password": "a long password",
        "new": "a long password",
    }


def state(client: TestClient, project: str | None = None) -> dict[str, Any]:
    """All that is kept (of a project): rows of every table, what objects there are, how much telemetry."""
    ws = client.app.state.workspace  # type: ignore[attr-defined]
    found: dict[str, Any] = {}

    def work(tx: Any) -> None:
        for table in metadata.sorted_tables:
            if table.name in OWN_TABLES or (project and "project" not in table.c):
                continue
            wanted = sa.select(table).where(table.c.project == project) if project else sa.select(table)
            found[table.name] = sorted(json.dumps(row, default=str, sort_keys=True) for row in tx.rows(wanted))

    ws.records.read_sync(SYSTEM, work)
    folder = ws.home / "objects"
    found["objects"] = sorted(str(p.relative_to(folder)) for p in (folder / project if project else folder).rglob("*") if p.is_file())
    client.portal.call(ws.telemetry.flush)  # type: ignore[union-attr]
    for table in ("spans", "predictions", "scores"):
        wanted = f"select count(*) from {table}" + (" where project = ?" if project else "")
        found[f"telemetry {table}"] = ws.telemetry.query_sync(lambda con, q=wanted: con.execute(q, [project] if project else []).fetchall())
    return found


def own_shape(path: str, answer: Any) -> bool:
    """Whether a refusal has the shape of its protocol."""
    if path in ("/v1/traces", "/v1/metrics", "/v1/logs"):
        return answer.headers["content-type"] in ("application/x-protobuf", "application/json")
    body = answer.json()
    if "/mlflow" in path or path in ("/invocations", "/get-artifact", "/model-versions/get-artifact"):
        return set(body) == {"error_code", "message"}
    if path.startswith("/v2"):
        return set(body) == {"error"} and isinstance(body["error"], str)
    if path.startswith("/v1/"):
        return isinstance(body["error"], dict) and bool(body["error"]["message"])
    return answer.headers["content-type"] == "application/problem+json" and body["status"] == answer.status_code and bool(body["detail"])
