"""`el.Project`: one file of the user's own that declares data, pipeline, gate, endpoint, monitor ...; `everloop apply` registers it.

    import everloop as el

    project = el.Project("churn")
    project.dataset("customers", "customers.csv", target="churned")

    @project.step
    def train(step): ...

    project.pipeline(dataset="dataset:customers")
    project.gate(["auc >= 0.7", "auc >= champion - 0.01"])
    project.endpoint()
    project.monitor(retrain="churn")

The file is run where it is applied and again in workers (for its steps), so it must only declare: files beside it are read when it is applied.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from everloop.client.pipelines import StepFunction, requirements, source_files
from everloop.core.errors import BadInput, EverloopError


class Declare:
    """`client.declare.apply(project)`: register what a project declares."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def apply(self, project: Project, *, dry_run: bool = False) -> dict[str, Any]:
        """Register all that `project` declares: {"project", "items": [{"what", "name", "ref", "change", "differences", "notes"}], "dry_run"}.

        First everything is checked, then data are loaded, then the rest is written in one transaction; a second time says `unchanged`.
        BadInput names every declaration that cannot be, and nothing is registered. A dry run registers nothing either.
        """
        loads, items = project.loads, project.items(self._http)
        planned = self._send(items, True)["items"] if items else []
        known = {f"dataset:{load['name']}" for load in loads}
        for one in planned:
            one["notes"] = [note for note in one["notes"] if not any(f'"{ref}"' in note for ref in known)]
        if dry_run:
            waiting = [{"what": "dataset", "name": load["name"], "change": "not loaded", "from": project.shown(load["source"])} for load in loads]
            done = [{"ref": f"dataset:{one['name']}", "differences": [], "notes": [], **one} for one in waiting]
            return {"project": project.name, "items": done + planned, "dry_run": True}
        done = []
        for load in loads:
            try:
                done.append(self._load(load))
            except EverloopError as error:
                kept = [one["ref"] for one in done if one["change"] != "unchanged"]
                error.what = f"dataset {load['name']}: {error.what}"
                error.hint = f"{error.hint} {'Loaded before it: ' + ', '.join(kept) + '.' if kept else ''} Nothing else was registered.".strip()
                raise
        made = self._send(items, False)["items"] if items else []
        project.applied = True
        return {"project": project.name, "items": done + made, "dry_run": False}

    def _send(self, items: list[dict[str, Any]], dry_run: bool) -> dict[str, Any]:
        return self._http.post("/api/v1/apply", json={"items": items, "dry_run": dry_run}, timeout=300)

    def _load(self, load: dict[str, Any]) -> dict[str, Any]:
        from everloop.client.assets import Assets
        from everloop.client.data import Data
        from everloop.core.errors import NotFound

        data = Data(self._http)
        try:
            before = Assets(self._http).versions("dataset", load["name"])[0]["version"]
        except NotFound:
            before = 0
        add = data.add_documents if load["what"] == "documents" else data.add
        made = add(load["name"], load["source"], **load["more"])
        change = "unchanged" if made["version"] <= before else "changed" if before else "created"
        notes = [str(note) for note in made["manifest"].get("notes") or ()]
        notes += [f"left out {one['path']}: {one['why']}" for one in made["manifest"].get("skipped") or ()]
        return {"what": "dataset", "name": load["name"], "ref": made["ref"], "change": change, "differences": [], "notes": notes, "size": _size(made)}


class Project:
    """What belongs together under one name. Each method declares one thing; nothing is sent before `apply`."""

    def __init__(self, name: str) -> None:
        from everloop.core.refs import check_name

        self.name = check_name(name, "project's name")
        caller = sys._getframe(1).f_globals
        file = caller.get("__file__")
        self.file = Path(file).resolve() if file else None
        self.root = self.file.parent if self.file else Path.cwd()
        self.applied = False
        self.loads: list[dict[str, Any]] = []
        self._steps: list[StepFunction] = []
        self._declared: list[tuple[str, str, Callable[[Any], dict[str, Any]]]] = []
        if caller.get("__name__") == "__main__" and self.file is not None:
            atexit.register(self._say_what_to_do)

    def dataset(self, name: str, file: str | Path, **roles: Any) -> None:
        """Load a CSV or Parquet file as `dataset:NAME`; roles: target, time, positive, protected, id (see `client.data.add`)."""
        self.loads.append({"what": "dataset", "name": name, "source": self.root / file, "more": roles})

    def documents(self, name: str, folder: str | Path, **more: Any) -> None:
        """Load a folder of PDF, HTML, Markdown and text as `dataset:NAME`."""
        self.loads.append({"what": "documents", "name": name, "source": self.root / folder, "more": more})

    def step(self, function: Any = None, *, after: Iterable[Any] | Any = None, cache: bool = False, **params: Any) -> Any:
        """Mark `f(step) -> dict` as a step. It comes after the step above it, or after those named in `after` (`after=()`: at once)."""

        def mark(f: Callable[..., Any]) -> StepFunction:
            before = self._steps[-1:] if after is None else [after] if isinstance(after, str | StepFunction) else [*after]
            self._steps.append(StepFunction(f, before, cache, params))
            return self._steps[-1]

        return mark(function) if function is not None else mark

    def pipeline(
        self,
        name: str | None = None,
        steps: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        schedule: str | None = None,
        code: bool = False,
        **params: Any,
    ) -> None:
        """Declare a pipeline (default: the project's name, of all steps marked so far). `schedule`: cron, @weekly, every 7d.

        `steps`: marked functions, "module:function" of everloop's own, specs {"name", "call", "after", "params"}, or a whole spec such as
        `everloop.build.tabular.PIPELINE`. `code`: send this folder's Python files along even where no step is one's own. `params` go to every
        step; `name` among them is the pipeline's name.
        """
        chosen = [*(self._steps if steps is None else steps["steps"] if isinstance(steps, Mapping) else steps)]
        held = dict(steps.get("params") or {}) if isinstance(steps, Mapping) else {}
        named = name or self.name

        def made(http: Any) -> dict[str, Any]:
            if not chosen:
                raise BadInput(f"The pipeline {named!r} has no steps.", "Mark functions with @project.step above it, or give steps=[...].")
            specs, own = self._step_specs(chosen)
            spec: dict[str, Any] = {"steps": specs, "params": {**held, "name": named, **params}}
            return {**spec, **({"code": f"code:{self.name}"} if own or code else {}), **({"schedule": schedule} if schedule else {})}

        self._add("pipeline", named, made)

    def schedule(self, name: str, cron: str, *, pipeline: str | None = None, **params: Any) -> None:
        """Start a pipeline (default: the project's) by cron (UTC), @weekly or `every 7d`, with params."""
        spec = {"pipeline": pipeline or self.name, "cron": cron, "params": params}
        self._add("schedule", name, lambda http: spec)

    def prompt(self, name: str, messages: str | Path | Sequence[Mapping[str, Any]], **more: Any) -> None:
        """A prompt: a system text (or a Path to one), or messages; more: settings, parameters, defaults, syntax (see `client.prompts.put`)."""

        def made(http: Any) -> dict[str, Any]:
            from everloop.client.prompts import Prompts

            text = self._read(messages) if isinstance(messages, Path) else messages
            return _captured(http, lambda recorder: Prompts(recorder).put(name, text, **more))

        self._add("prompt", name, made)

    def policy(self, name: str, rules: Sequence[Mapping[str, Any]] | Callable[[], Sequence[Mapping[str, Any]]], **more: Any) -> None:
        """A policy: rules {"check", "stage", "action", "params"}, or a function that gives them when they are applied (such as from documents); more:
        stream, refusal (see `client.policies.put`)."""

        def made(http: Any) -> dict[str, Any]:
            from everloop.client.policies import Policies

            return _captured(http, lambda recorder: Policies(recorder).put(name, rules() if callable(rules) else rules, **more))

        self._add("policy", name, made)

    def suite(self, name: str, cases: str | Path | Iterable[Mapping[str, Any]] | None = None, **more: Any) -> None:
        """A suite: questions (a list, or a file of JSON lines), or dataset= and target= (see `client.suites.put`)."""

        def made(http: Any) -> dict[str, Any]:
            from everloop.client.suites import Suites

            given = self.root / cases if isinstance(cases, str | Path) else cases
            return _captured(http, lambda recorder: Suites(recorder).put(name, given, **more))

        self._add("suite", name, made)

    def gate(
        self,
        requirements: Sequence[str],
        *,
        name: str | None = None,
        suite: str | None = None,
        alias: str = "champion",
        kind: str = "release",
        confidence: float = 0.95,
        approval: str = "never",
        expires_days: float = 7.0,
    ) -> None:
        """What must hold before `alias` moves, e.g. ["auc >= 0.7", "auc >= champion - 0.01"]; `approval`: never, always, not_first.

        Name and suite are the project's own unless given.
        """
        named = name or self.name
        spec = {"kind": kind, "alias": alias, "suite": suite or f"suite:{named}", "requirements": list(requirements)}
        spec |= {"confidence": confidence, "approval": approval, "expires_days": expires_days}
        self._add("gate", named, lambda http: spec)

    def endpoint(self, name: str | None = None, kind: str = "predict", *, release: str | None = None, **spec: Any) -> None:
        """What users call: the champion of `release` (default: of its own name). `kind`: predict or chat; spec: split, shadow, limits."""
        named = name or self.name
        self._add("endpoint", named, lambda http: {"kind": kind, "release": release or named, **spec})

    def monitor(
        self,
        name: str | None = None,
        *,
        endpoint: str | None = None,
        checks: Sequence[str | Mapping[str, Any]] | None = None,
        retrain: str | None = None,
        params: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> None:
        """Checks over windows of an endpoint's traffic; `retrain` names the pipeline that a failing look starts, with `params`.

        A check is a name ("decay"), a rule ("latency_p95_ms <= 200") or {"check", "params"}; without any, those that suit the endpoint. More: window_days, label_window_days, every, min_rows, cooldown_days, retrain_on.
        """
        named = name or self.name
        full: dict[str, Any] = {"endpoint": endpoint or named, **spec}
        if checks is not None:
            full["checks"] = [{"check": one} if isinstance(one, str) and one.isidentifier() else one for one in checks]
        if retrain:
            full["on_fail"] = {"pipeline": retrain, "params": dict(params or {})}
        self._add("monitor", named, lambda http: full)

    def judge(self, name: str, checks: Sequence[str | Mapping[str, Any]], *, endpoint: str | None = None, rate: float = 0.1, **rule: Any) -> None:
        """A share of an endpoint's live traces (default: of the project's name), judged by checks or an LLM; more: budget, per_day (see
        `client.judges.put`)."""
        spec = {"checks": [*checks], "endpoint": endpoint or self.name, "rate": rate, **rule}
        self._add("judge", name, lambda http: spec)

    def retention(self, name: str, older: str, action: str = "archive", **narrowed: Any) -> None:
        """What becomes of telemetry older than `older` (90d, 36h, 10m): archive or delete. More: of, endpoint, kind, status (see
        `client.retention.set`). Applying it needs an admin."""
        spec = {"older": older, "action": action, **narrowed}
        self._add("retention", name, lambda http: spec)

    def items(self, http: Any) -> list[dict[str, Any]]:
        """The declarations as the server takes them; the bytes of code and suites are put into its objects first."""
        made = [{"what": what, "name": name, "spec": build(http)} for what, name, build in self._declared]
        if any(item["what"] == "pipeline" and item["spec"].get("code") for item in made):
            made.insert(0, {"what": "code", "name": self.name, "spec": self._code(http)})
        return made

    def apply(self, url: str | None = None, key: str | None = None, *, dry_run: bool = False) -> dict[str, Any]:
        """Register everything with the server at `url` (EVERLOOP_URL; else the local one, which is started) and print what changed.

        At the end of the project's own file it acts when the file is run, and not when `everloop apply` or a worker loads it (then it answers {}).
        """
        from everloop.client.base import connect

        caller = sys._getframe(1).f_globals
        if caller.get("__name__") != "__main__" and self.file is not None and Path(str(caller.get("__file__"))).resolve() == self.file:
            return {}
        self.applied = True  # it was tried: what went wrong is told by the error
        client = connect(url, key)
        done: dict[str, Any] = client.declare.apply(self, dry_run=dry_run)
        for one in done["items"]:
            print(f"{one['change']:<10} {one['what']:<9} {one['name']}")
        return done

    def shown(self, path: Path) -> str:
        """A path as the project's file names it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def _add(self, what: str, name: str, build: Callable[[Any], dict[str, Any]]) -> None:
        self._declared.append((what, name, build))

    def _read(self, path: Path) -> str:
        try:
            return (self.root / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"The file {path} cannot be read: {error}.", "Give a text file (UTF-8) beside the project's file.") from None

    def _code(self, http: Any) -> dict[str, Any]:
        from everloop.client.assets import Assets

        assert self.file is not None
        return {"files": Assets(http).put_files(dict(source_files(self.root))), "entry": self.file.stem, "requirements": requirements(self.root)}

    def _step_specs(self, chosen: Sequence[Any]) -> tuple[list[dict[str, Any]], bool]:
        """Steps as the server takes them, and whether any is the user's own code."""
        specs: list[dict[str, Any]] = []
        own = False
        for one in chosen:
            before = [specs[-1]["name"]] if specs else []
            if isinstance(one, StepFunction):
                specs.append({"name": one.name, "call": self._call(one), "after": one.after, "params": one.params, "cache": one.cache})
                own = True
            elif isinstance(one, Mapping):
                specs.append({"after": before, **one})
            elif isinstance(one, str):
                specs.append({"name": one.rpartition(":")[2], "call": one, "after": before})
            else:
                raise BadInput(f"{one!r} is not a step.", 'Mark the function with @project.step, or write "module:function".')
        return specs, own

    def _call(self, step: StepFunction) -> str:
        import inspect

        file = inspect.getsourcefile(step.function)
        place = Path(file).resolve() if file else None
        if place is None or self.file is None or not place.is_relative_to(self.root):
            raise BadInput(f"The step {step.name!r} is not in a file of {self.root}.", "Put it into the project's file, or into one beside it.")
        return f"{'.'.join(place.relative_to(self.root).with_suffix('').parts)}:{step.function.__name__}"

    def _say_what_to_do(self) -> None:
        if not self.applied and self.file is not None:
            print(f"Declared, not registered: run `everloop apply {self.file.name}`, or end the file with project.apply().", file=sys.stderr)


class _Recorder:
    """Stands for the server while an SDK call builds a manifest: objects go through, the registration is kept instead of sent."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self.manifest: dict[str, Any] = {}

    def post(self, path: str, json: Any = None, data: Any = None) -> Any:
        """Keep the manifest of an asset; send anything else on."""
        if path != "/api/v1/assets":
            return self._http.post(path, data=data)
        self.manifest = json["manifest"]
        return json


def _captured(http: Any, put: Callable[[Any], Any]) -> dict[str, Any]:
    recorder = _Recorder(http)
    put(recorder)
    return recorder.manifest


def _size(asset: Mapping[str, Any]) -> str:
    manifest = asset["manifest"]
    return f"{manifest['rows']:,} rows" if "rows" in manifest else f"{len(manifest.get('documents') or ()):,} documents"
