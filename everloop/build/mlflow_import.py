"""`everloop import mlflow`: everything of an MLflow store, with ids and times, into a server of ours; killed in the middle, it is simply run again.

What is whole is noted at the server and skipped the next time. Of a run that was under way, metric points are taken up where they ended (a request
writes all of its points or none), and files that are there are not sent again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from urllib.parse import quote

from everloop.build.mlflow_source import Source
from everloop.core.errors import EverloopError, NotFound

POINTS, PARAMS = 1_000, 100
"""Points and params of one request, as MLflow's API has them."""
API = "/api/2.0/mlflow"
STATUSES = {1: "running", 2: "scheduled", 3: "finished", 4: "failed", 5: "killed"}
MODEL_STATUSES = {"PENDING": "pending", "READY": "ready", "FAILED": "failed"}
Say = Callable[[str], None]


class Import:
    """One import: `run` brings everything and answers what was brought and what was not."""

    def __init__(self, client: Any, source: Source, say: Say = lambda text: None) -> None:
        self._http, self.source, self.say = client._http, source, say
        self.done = set(self._http.get("/api/v1/imports", params={"source": source.where})["items"])
        self.brought: dict[str, int] = {}
        self.skipped: dict[str, int] = {}
        self.left: list[str] = []
        self._experiments: dict[str, str] = {}

    def run(self, traces: bool = True) -> dict[str, Any]:
        """{"brought": {what: n}, "already": {what: n}, "left": [what was not brought, and why]}."""
        found = self.source.experiments()
        for one in sorted(found, key=lambda one: one.experiment_id != "0"):
            self._experiments[one.experiment_id] = self._experiment(one)
        for place, one in enumerate(found, 1):
            self.say(f"experiment {place} of {len(found)}: {one.name}")
            self._each("run", self.source.runs(one.experiment_id), lambda run: run.info.run_id, self._run)
            self._each(
                "logged model",
                self._listed(partial(self.source.models, one.experiment_id), f"logged models of {one.name}"),
                lambda m: m.model_id,
                self._model,
            )
            if traces:
                self._traces(one)
        for prompts in (False, True):
            for name in self._listed(partial(self.source.names, prompts), "prompts" if prompts else "registered models"):
                self._name(name, prompts)
        for one in found:
            if one.lifecycle_stage == "deleted":
                self._put("delete", {"experiment": self._experiments[one.experiment_id]})
        self._put("mark", {"source": self.source.where, "end": True})
        return {"brought": self.brought, "already": self.skipped, "left": self.left}

    def _listed(self, ask: Callable[[], Iterable[Any]], what: str) -> list[Any]:
        """All of a list, or none where the store does not have such things; then it is said."""
        try:
            return list(ask())
        except Exception as error:
            self.left.append(f"{what}: {_first(error)}")
            return []

    def _each(self, what: str, items: Iterable[Any], id_of: Callable[[Any], str], bring: Callable[[Any], None]) -> None:
        """Bring each item that is not noted as whole, and note it."""
        for item in items:
            key = f"{what}:{id_of(item)}"
            if key in self.done:
                self.skipped[what] = self.skipped.get(what, 0) + 1
                continue
            try:
                bring(item)
            except EverloopError as error:
                self.left.append(f"{what} {id_of(item)}: {error}")
                continue
            self._put("mark", {"source": self.source.where, "keys": [key]})
            self.done.add(key)
            self.brought[what] = self.brought.get(what, 0) + 1
            if self.brought[what] % 25 == 0:
                self.say(f"  {self.brought[what]} {what}s")

    def _experiment(self, one: Any) -> str:
        body = {"id": one.experiment_id, "name": one.name, "tags": one.tags, "created_at": _seconds(one.creation_time)}
        return str(self._put("experiment", {**body, "updated_at": _seconds(one.last_update_time)})["id"])

    def _run(self, run: Any) -> None:
        info, data = run.info, run.data
        tags = {**data.tags, "everloop.client_user": info.user_id} if info.user_id and "mlflow.user" not in data.tags else dict(data.tags)
        code = {key: tags[tag] for key, tag in (("commit", "mlflow.source.git.commit"), ("entry", "mlflow.source.name")) if tags.get(tag)}
        experiment, params = self._experiments[info.experiment_id], dict(data.params)
        body = {"id": info.run_id, "experiment_id": experiment, "name": info.run_name, "status": info.status.lower(), "tags": tags, "code": code}
        body |= {"started_at": _seconds(info.start_time), "ended_at": _seconds(info.end_time), "parent": tags.get("mlflow.parentRunId")}
        made = self._put("run", {**body, "params": params})["made"]
        for key in data.metrics:
            self._metric(info.run_id, key, made)
        self._inputs(run)
        self._files(info.artifact_uri, f"{experiment}/{info.run_id}/artifacts", f"run {info.run_id}")
        if info.lifecycle_stage == "deleted":
            self._put("delete", {"run": info.run_id})

    def _metric(self, run: str, key: str, fresh: bool) -> None:
        """All points of a series after those that an earlier import brought."""
        points = sorted(self.source.history(run, key), key=lambda p: (p.timestamp, p.step))
        start = 0 if fresh else self._there(run, key)
        for at in range(start, len(points), POINTS):
            rows = [{"key": key, "value": _number(p.value), "timestamp": p.timestamp, "step": p.step} for p in points[at : at + POINTS]]
            self._http.post(f"{API}/runs/log-batch", json={"run_id": run, "metrics": rows})
        self.brought["metric points"] = self.brought.get("metric points", 0) + max(0, len(points) - start)

    def _there(self, run: str, key: str) -> int:
        """How many points of a series are here already."""
        count, token = 0, None
        while True:
            asked = {"run_id": run, "metric_key": key, "max_results": 25_000, **({"page_token": token} if token else {})}
            page = self._http.get(f"{API}/metrics/get-history", params=asked)
            count, token = count + len(page["metrics"]), page.get("next_page_token")
            if not token:
                return count

    def _inputs(self, run: Any) -> None:
        datasets, models = [], []
        for one in (run.inputs.dataset_inputs if run.inputs else None) or []:
            fields = {key: getattr(one.dataset, key) for key in ("name", "digest", "source_type", "source", "schema", "profile")}
            datasets.append({"dataset": fields, "tags": [{"key": tag.key, "value": tag.value} for tag in one.tags or []]})
        for one in getattr(run.inputs, "model_inputs", None) or []:
            models.append({"model_id": one.model_id})
        if datasets or models:
            self._http.post(f"{API}/runs/log-inputs", json={"run_id": run.info.run_id, "datasets": datasets, "models": models})
        made = [{"model_id": one.model_id, "step": one.step} for one in getattr(run.outputs, "model_outputs", None) or []]
        if made:
            self._http.post(f"{API}/runs/outputs", json={"run_id": run.info.run_id, "models": made})

    def _files(self, uri: str, to: str, what: str) -> None:
        """Copy the files below an address to a folder of the artifact proxy, those that are there already left out."""
        try:
            files = self.source.files(uri)
        except Exception as error:
            self.left.append(f"files of {what}: {_first(error)}")
            return
        there = {path for path, _ in self._kept(to)} if files else set()
        for path, _ in files:
            if path in there:
                continue
            try:
                with self.source.file(uri, path) as file, file.open("rb") as data:
                    self._http.put(f"/api/2.0/mlflow-artifacts/artifacts/{quote(f'{to}/{path}')}", data=data, timeout=600)
            except (OSError, EverloopError) as error:
                self.left.append(f"the file {path} of {what}: {_first(error)}")
                continue
            self.brought["files"] = self.brought.get("files", 0) + 1

    def _kept(self, to: str) -> list[tuple[str, int]]:
        """Files below a folder of our artifact proxy: [(path from there, size)]."""
        found, folders = [], [""]
        while folders:
            folder = folders.pop()
            listed = self._http.get("/api/2.0/mlflow-artifacts/artifacts", params={"path": f"{to}/{folder}".rstrip("/")})["files"]
            for one in listed:
                path = f"{folder}/{one['path']}".lstrip("/")
                if one["is_dir"]:
                    folders.append(path)
                else:
                    found.append((path, int(one.get("file_size") or 0)))
        return found

    def _model(self, model: Any) -> None:
        experiment = self._experiments[model.experiment_id]
        body = {"id": model.model_id, "experiment_id": experiment, "run": model.source_run_id, "name": model.name, "kind": model.model_type}
        body |= {"status": MODEL_STATUSES.get(str(getattr(model.status, "value", model.status)), "ready"), "params": model.params, "tags": model.tags}
        self._put("logged-model", {**body, "created_at": _seconds(model.creation_timestamp), "updated_at": _seconds(model.last_updated_timestamp)})
        self._files(model.artifact_location, f"{experiment}/models/{model.model_id}/artifacts", f"logged model {model.model_id}")
        rows = [
            {
                "run": m.run_id,
                "model": model.model_id,
                "key": m.key,
                "value": _number(m.value),
                "step": m.step,
                "at": m.timestamp / 1000,
                "dataset_name": m.dataset_name,
                "dataset_digest": m.dataset_digest,
            }
            for m in model.metrics or []
        ]
        if rows:
            self._http.post("/api/v1/imports/model-metrics", json={"metrics": rows})

    def _name(self, found: Any, prompts: bool) -> None:
        """A registered model or prompt with its versions and aliases."""
        what = "prompt" if prompts else "registered model"
        tags = {key: value for key, value in getattr(found, "_tags", found.tags).items() if key != "mlflow.prompt.is_prompt"}
        body = {"name": found.name, "kind": "prompt" if prompts else "model", "description": found.description, "tags": tags}
        times = {"created_at": _seconds(found.creation_timestamp), "updated_at": _seconds(found.last_updated_timestamp)}
        try:
            made = self._put("name", {**body, **times})["made"]
        except EverloopError as error:
            self.left.append(f"{what} {found.name}: {error}")
            return
        self.brought[what] = self.brought.get(what, 0) + int(made)
        versions = self.source.versions(found.name, prompts)
        self._each(f"version of {what}", versions, lambda one: f"{one.name}/{one.version}", lambda one: self._version(one, prompts))
        for alias, number in dict(found.aliases).items():
            try:
                self._http.post(f"{API}/registered-models/alias", json={"name": found.name, "alias": alias, "version": str(number)})
            except EverloopError as error:
                self.left.append(f"alias {alias} of {found.name}: {error}")

    def _version(self, one: Any, prompts: bool) -> None:
        with contextlib.suppress(NotFound):
            self._http.get(f"/api/v1/assets/{'prompt' if prompts else 'model'}/{quote(one.name, safe='')}/{one.version}")
            return
        tags = [{"key": key, "value": value} for key, value in getattr(one, "_tags", one.tags).items()]
        if str(one.current_stage or "None") != "None":
            tags.append({"key": "everloop.mlflow.stage", "value": str(one.current_stage)})
        brought: dict[str, Any] = {"number": int(one.version), "created_at": _seconds(one.creation_timestamp), "source": one.source}
        brought["updated_at"] = _seconds(one.last_updated_timestamp)
        body = {"name": one.name, "source": one.source, "run_id": one.run_id or None, "run_link": one.run_link or None, "tags": tags}
        body |= {"description": one.description or "", "model_id": getattr(one, "model_id", None) or None}
        if not prompts:
            brought["files"] = self._version_files(one)
        self._http.post(f"{API}/model-versions/create", json={**body, "everloop_import": brought}, timeout=600)

    def _version_files(self, one: Any) -> list[dict[str, Any]]:
        """The files of a version as objects here; those that a run or logged model brought are stored once."""
        try:
            uri = self.source.client.get_model_version_download_uri(one.name, one.version)
            files = self.source.files(uri)
        except Exception as error:
            self.left.append(f"files of {one.name} version {one.version}: {_first(error)}")
            return []
        made = []
        for path, _ in files:
            with self.source.file(uri, path) as file, file.open("rb") as data:
                made.append({"path": path, **self._http.post("/api/v1/objects", data=data, timeout=600)})
        return made

    def _traces(self, experiment: Any) -> None:
        from everloop.build.mlflow_traces import bring

        def one(trace: Any) -> None:
            bring(self._http, trace, self._experiments[experiment.experiment_id])

        found = self._listed(partial(self.source.traces, experiment.experiment_id), f"traces of {experiment.name}")
        self._each("trace", found, lambda trace: trace.info.trace_id, one)

    def _put(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._http.post(f"/api/v1/imports/{what}", json=body)
        return found


def _seconds(milliseconds: Any) -> float | None:
    return None if milliseconds is None else int(milliseconds) / 1000


def _number(value: float) -> float | str:
    """A metric's value as JSON carries it."""
    return (
        value
        if value == value and value not in (float("inf"), float("-inf"))
        else "NaN"
        if value != value
        else "Infinity"
        if value > 0
        else "-Infinity"
    )


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
