"""`client.pipelines`, `@el.step` and `el.pipeline`: declare pipelines, start them, wait for them."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.core.errors import BadInput, EverloopError

POLL_SECONDS = 0.3
ENDED = ("finished", "failed", "killed")
REFUSED = ("BadInput: ", "TooLarge: ", "NotFound: ", "Forbidden: ", "MissingDependency: ")
"""How the error of a step begins that refused its input."""
SKIP = {"__pycache__", "node_modules", "venv", "build", "dist"}


class Pipelines:
    """Durable steps, started by hand, by schedule or by a monitor."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def put(self, name: str | Pipeline, spec: dict[str, Any] | None = None) -> dict[str, Any]:
        """Declare a pipeline by name and spec; or one made by `el.pipeline`, whose source files go along as a code asset."""
        if isinstance(name, Pipeline):
            from everloop.client.assets import Assets

            name, spec = name.name, name.spec(Assets(self._http))
        return self._http.put(f"/api/v1/pipelines/{quote(name, safe='')}", json=spec)

    def list(self) -> list[dict[str, Any]]:
        """All pipelines."""
        return self._http.get("/api/v1/pipelines")["items"]

    def get(self, name: str) -> dict[str, Any]:
        """One pipeline."""
        return self._http.get(f"/api/v1/pipelines/{quote(name, safe='')}")

    def run(self, name: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Start a run; answers it at once. `wait(run["id"])` waits."""
        return self._http.post(f"/api/v1/pipelines/{quote(name, safe='')}/runs", json={"params": params or {}})

    start = run

    def runs(self, name: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Pipeline runs, newest first."""
        return self._http.get("/api/v1/pipeline-runs", params={"pipeline": name, "limit": limit})["items"]

    def state(self, run: str) -> dict[str, Any]:
        """A run and its steps: {"run", "tasks"}."""
        return self._http.get(f"/api/v1/pipeline-runs/{quote(run)}")

    def wait(self, run: str, timeout: float = 600.0, progress: Callable[[str, str], None] | None = None) -> dict[str, Any]:
        """Wait until a run ends; `progress(step, state)` is called at each change. Answers its state.

        Raises BadInput if a step refused its input, EverloopError if it failed otherwise or took too long.
        """
        seen: dict[str, str] = {}
        until = time.monotonic() + timeout
        while True:
            now = self.state(run)
            for task in now["tasks"]:
                if progress is not None and seen.get(task["step"]) != task["state"]:
                    progress(task["step"], task["state"])
                seen[task["step"]] = task["state"]
            if now["run"]["status"] == "finished":
                return now
            if now["run"]["status"] in ENDED:
                refused = next((t for t in now["tasks"] if t["state"] == "failed" and t["error"].startswith(REFUSED)), None)
                if refused is not None:
                    raise BadInput(
                        f"The step {refused['step']!r} refused: {refused['error'].split(': ', 1)[1]}", f"See: everloop pipelines show {run}"
                    )
                raise EverloopError(f"The pipeline run {run} {now['run']['status']}: {now['run']['error']}", f"See: everloop pipelines show {run}")
            if time.monotonic() > until:
                raise EverloopError(f"The pipeline run {run} has not ended after {timeout:.0f} s.", "It goes on; wait again, or cancel it.")
            time.sleep(POLL_SECONDS)

    def cancel(self, run: str) -> dict[str, Any]:
        """End a run."""
        return self._http.post(f"/api/v1/pipeline-runs/{quote(run)}/cancel", json={})

    def schedules(self) -> list[dict[str, Any]]:
        """All schedules."""
        return self._http.get("/api/v1/schedules")["items"]

    def schedule(self, name: str, pipeline: str, cron: str, params: dict[str, Any] | None = None, enabled: bool = True) -> dict[str, Any]:
        """Start `pipeline` by cron (UTC), `@weekly` or `every 7d`."""
        body = {"pipeline": pipeline, "cron": cron, "params": params or {}, "enabled": enabled}
        return self._http.put(f"/api/v1/schedules/{quote(name, safe='')}", json=body)

    def run_schedule(self, name: str, at: float | str | None = None) -> dict[str, Any]:
        """Start what a schedule starts, as if it were `at`."""
        return self._http.post(f"/api/v1/schedules/{quote(name, safe='')}/run", json={} if at is None else {"at": at})


class Step:
    """One attempt of a step. `params`: pipeline, step and run params merged; `inputs`: results of the steps it comes after, by name.

    `client` is an SDK client that acts as the pipeline; `run` is the tracked run of this attempt (log_params, log_metrics,
    log_metric, log_artifact); `key` is the same at every attempt, for writes that must happen once; `code` is the code asset it came from.
    """

    def __init__(self, task: dict[str, Any], client: Any) -> None:
        self.name: str = task["step"]
        self.params: dict[str, Any] = task["params"]
        self.inputs: dict[str, Any] = task["inputs"]
        self.pipeline: str = task["pipeline"]
        self.attempt: int = task["attempts"]
        self.key = f"{task['run']}/{task['step']}"
        self.code: str | None = task.get("code")
        self.client = client
        self.run = client.runs.attach(task["step_run"])

    def derives(self, output: str, sources: dict[str, Any], why: str = "") -> Any:
        """Declare which rows or documents of which dataset versions `output` came from, so that `impact` can follow one; see `client.lineage.derives`."""
        return self.client.lineage.derives(output, sources, run=self.run.id, why=why)

    def environment(self) -> dict[str, str]:
        """Variables with which other clients, in a process that the step starts, speak to this server as the pipeline: everloop's and MLflow's."""
        url, key = self.client.url, self.client._http.key or ""
        return {"EVERLOOP_URL": url, "EVERLOOP_API_KEY": key, "MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_TOKEN": key}

    def log(self, text: str) -> None:
        """Add a line to the step's log (what is printed goes there too)."""
        print(text, flush=True)


class StepFunction:
    """A function marked by `@el.step`; called, it is the plain function."""

    def __init__(self, function: Callable[..., Any], after: Iterable[Any], cache: bool, params: dict[str, Any]) -> None:
        self.function, self.cache, self.params = function, cache, params
        self.name = function.__name__
        self.after = [getattr(a, "name", a) for a in after]

    def __call__(self, *args: Any, **more: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **more)


def step(function: Any = None, *, after: Iterable[Any] = (), cache: bool = False, **params: Any) -> Any:
    """Mark a function `f(step) -> dict` as a pipeline's step, after others (names or functions)."""
    if function is not None:
        return StepFunction(function, after, cache, params)
    return lambda f: StepFunction(f, after, cache, params)


class Pipeline:
    """A pipeline declared in a user's file; `client.pipelines.put(it)` registers it with its code."""

    def __init__(self, name: str, steps: list[StepFunction], schedule: str | None, params: dict[str, Any]) -> None:
        self.name, self.steps, self.schedule, self.params = name, steps, schedule, params

    def spec(self, assets: Any) -> dict[str, Any]:
        """The spec, its source files stored as a code asset of the same name."""
        file = inspect.getsourcefile(self.steps[0].function)
        if file is None:
            raise BadInput(f"The source of step {self.steps[0].name!r} cannot be found.", "Declare steps in a file.")
        root = Path(file).resolve().parent
        manifest = {"files": assets.put_files(dict(source_files(root))), "entry": Path(file).stem, "requirements": requirements(root)}
        code = assets.register("code", self.name, manifest)["ref"]
        steps = []
        for s in self.steps:
            place = Path(inspect.getsourcefile(s.function) or file).resolve()
            module = ".".join(place.relative_to(root).with_suffix("").parts)
            steps.append({"name": s.name, "call": f"{module}:{s.function.__name__}", "after": s.after, "params": s.params, "cache": s.cache})
        return {"steps": steps, "code": code, "params": self.params, **({"schedule": self.schedule} if self.schedule else {})}


def pipeline(name: str, steps: list[StepFunction], schedule: str | None = None, **params: Any) -> Pipeline:
    """Declare a pipeline of `@el.step` functions, with a schedule (cron, @weekly, every 7d) and params for all steps."""
    if not steps:
        raise BadInput(f"The pipeline {name!r} has no steps.")
    return Pipeline(name, steps, schedule, params)


def source_files(root: Path) -> list[tuple[str, Path]]:
    """Python files of a project folder, sorted by path; hidden, cache and environment folders are left out, links are not followed."""
    found = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if path.is_symlink() or any(p.startswith(".") or p in SKIP for p in inside.parts):
            continue
        found.append((inside.as_posix(), path))
    return found


def requirements(root: Path) -> list[str]:
    """What the project says it needs: requirements.txt, else the dependencies of pyproject.toml."""
    listed = root / "requirements.txt"
    if listed.is_file():
        lines = (line.split("#")[0].strip() for line in listed.read_text().splitlines())
        return [line for line in lines if line]
    project = root / "pyproject.toml"
    if project.is_file():
        import tomllib

        return list(tomllib.loads(project.read_text()).get("project", {}).get("dependencies", []))
    return []
