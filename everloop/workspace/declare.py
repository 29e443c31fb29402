"""A project file's declarations, taken as one: all are checked, then all are written in one transaction, or none is.

What is there already and equal is left alone, so applying the same file twice changes nothing and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from everloop.assets import catalog, gates, prompts, suites
from everloop.core.errors import BadInput, EverloopError, Forbidden, NotFound
from everloop.core.limits import DECLARATIONS
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref, check_name
from everloop.evaluate import judging
from everloop.evaluate.rules import parse
from everloop.store import audit, project_settings, telemetry_retention
from everloop.store.records import Tx
from everloop.store.schema import endpoints, monitors, pipelines, schedules
from everloop.work import queue
from everloop.work.schedule import next_at
from everloop.workspace import endpoints as endpoint_rooms
from everloop.workspace import judges as judge_rooms
from everloop.workspace import monitors as monitor_rooms
from everloop.workspace import pipelines as pipeline_rooms
from everloop.workspace import retention as retention_rooms

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

ASSETS = ("code", "prompt", "policy", "suite")
ORDER = (*ASSETS, "pipeline", "schedule", "endpoint", "gate", "monitor", "judge", "retention")
"""What may be declared, in the order in which it is written: each rests only on those before it."""
CHAT = "everloop.build.release:chat"
"""The step that makes a chat release; its params say which prompt, and what fills it."""
REFERRED = ("dataset", "prompt", "policy", "suite", "index", "model")
"""Kinds whose references in a pipeline's params are looked up."""


class Declare:
    """Facade that applies declarations: [{"what", "name", "spec"}]."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def apply(self, who: Principal, items: Iterable[Mapping[str, Any]], *, dry_run: bool = False) -> dict[str, Any]:
        """Check and write all items: {"items": [{"what", "name", "ref", "change", "differences", "notes"}], "dry_run"}.

        `change` is created, changed or unchanged; `differences` are [{"field", "from", "to"}]. With `dry_run` the same is done and rolled back.
        BadInput names every item that cannot be, and nothing is written.
        """
        who.need(Role.editor, "apply declarations")
        prepared = await self._prepared(who, [dict(item) for item in items])
        made: list[dict[str, Any]] = []

        def work(tx: Tx) -> list[dict[str, Any]]:
            problems: list[dict[str, str]] = []
            for item in prepared:
                try:
                    made.append({"what": item["what"], "name": item["name"], "notes": [], **_WRITE[item["what"]](tx, item)})
                except EverloopError as error:
                    problems.append(_problem(item, error))
            _refuse(problems)
            _check_prompts(tx, prepared, made)
            for item in prepared:
                if item["what"] == "pipeline":
                    _note_missing(tx, item, next(m for m in made if m["what"] == "pipeline" and m["name"] == item["name"]))
            if dry_run:
                raise _RolledBack
            if any(m["change"] != "unchanged" for m in made):
                audit.record(tx, "declarations.apply", "declarations", **{f"{m['what']}:{m['name']}": m["change"] for m in made})
            return made

        try:
            await self.ws.records.write(who, work)
        except _RolledBack:
            return {"items": made, "dry_run": True}
        for item, result in zip(prepared, made, strict=True):
            if item["what"] == "endpoint" and result["change"] != "unchanged":
                await self.ws.endpoints.changed(who, item["name"], str(item["spec"]["release"]))
        return {"items": made, "dry_run": False}

    async def _prepared(self, who: Principal, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Every item with its full spec, in the order of writing; BadInput names all that are wrong in themselves."""
        if not items:
            raise BadInput("Nothing is declared.", "Declare a pipeline, a gate, an endpoint ... and apply again.")
        if len(items) > DECLARATIONS:
            raise BadInput(f"{len(items)} things are declared at once; at most {DECLARATIONS} are allowed.", "Apply them in parts.")
        problems, seen = [], set()
        kinds = {item.get("name"): str((item.get("spec") or {}).get("kind") or "predict") for item in items if item.get("what") == "endpoint"}
        for item in items:
            item.setdefault("spec", {})
            try:
                if item.get("what") not in ORDER:
                    raise BadInput(f"{item.get('what')!r} cannot be declared.", f"What can: {', '.join(ORDER)}.")
                check_name(str(item.get("name") or ""))
                key = (item["what"], item["name"], item["spec"].get("alias") if item["what"] == "gate" else None)
                if key in seen:
                    raise BadInput("It is declared twice.", "Keep one, or give the other a name of its own.")
                seen.add(key)
                item["spec"] = await self._full(who, item["what"], str(item["name"]), dict(item["spec"]), kinds)
            except EverloopError as error:
                problems.append(_problem(item, error))
        _refuse(problems)
        return sorted(items, key=lambda item: ORDER.index(item["what"]))

    async def _full(self, who: Principal, what: str, name: str, spec: dict[str, Any], kinds: Mapping[Any, str]) -> dict[str, Any]:
        if what in ASSETS:
            return await self.ws.assets.checked(who, what, spec)
        if what == "pipeline":
            queue.check(spec)
            if spec.get("schedule"):
                next_at(str(spec["schedule"]), self.ws.clock.now())
        elif what == "schedule":
            next_at(str(spec.get("cron") or ""), self.ws.clock.now())
            return {
                "pipeline": spec.get("pipeline") or name,
                "cron": spec["cron"],
                "params": spec.get("params") or {},
                "enabled": spec.get("enabled", True),
            }
        elif what == "gate":
            kind, alias = str(spec.pop("kind", None) or "release"), str(spec.pop("alias", None) or "champion")
            for text in spec.get("requirements") or []:
                parse(text)
            return {"kind": kind, "alias": alias, "spec": gates.full_spec(kind, name, alias, spec)}
        elif what == "endpoint":
            kind = str(spec.pop("kind", None) or "predict")
            return {"kind": kind, **endpoint_rooms.full_spec(name, kind, spec)}
        elif what == "retention":
            who.need(Role.admin, "change how long traces are kept")
            return telemetry_retention.checked(name, spec).to_json()
        elif what == "judge":
            return await asyncio.to_thread(judging.checked, spec)
        elif what == "monitor":
            from everloop.loop.watch import full_spec

            endpoint, enabled = str(spec.pop("endpoint", None) or name), bool(spec.pop("enabled", True))
            kind = kinds.get(endpoint) or await self._kind(who, endpoint)
            return {"endpoint": endpoint, "enabled": enabled, "spec": await asyncio.to_thread(full_spec, spec, kind)}
        return spec

    async def _kind(self, who: Principal, endpoint: str) -> str:
        try:
            return str((await self.ws.endpoints.get(who, endpoint))["kind"])
        except NotFound:
            return "predict"  # the monitor's own writing says that the endpoint is missing


class _RolledBack(Exception):
    """Ends a dry run's transaction, so that nothing of it stays."""


def _asset(tx: Tx, item: dict[str, Any]) -> dict[str, Any]:
    kind, name = item["what"], item["name"]
    before = _latest(tx, kind, name)
    made = catalog.register(tx, kind, name, item["spec"], description=str(item.get("description") or ""), reads=item.get("reads") or ())
    if kind == "suite":
        suites.link(tx, made)
    if before is None:
        return {"ref": made["ref"], "change": "created", "differences": []}
    if made["version"] > before["version"]:
        return {"ref": made["ref"], "change": "changed", "differences": _differences(before["manifest"], made["manifest"])}
    notes = [] if made["version"] == before["version"] else [f"it is what {made['ref']} is; the latest version is {before['version']}"]
    return {"ref": made["ref"], "change": "unchanged", "differences": [], "notes": notes}


def _pipeline(tx: Tx, item: dict[str, Any]) -> dict[str, Any]:
    spec = item["spec"]
    if spec.get("code"):
        spec["code"] = str(catalog.resolve(tx, Ref.parse(spec["code"], "code")))
    before = _row(tx, pipelines, item["name"])
    return _kept(item, before and before["spec"], spec, lambda: pipeline_rooms.put(tx, item["name"], spec))


def _schedule(tx: Tx, item: dict[str, Any]) -> dict[str, Any]:
    spec, before = item["spec"], _row(tx, schedules, item["name"])
    held = {key: before[key] for key in spec} if before else None
    _need(tx, pipelines, spec["pipeline"], "pipeline")
    put = lambda: pipeline_rooms.put_schedule(tx, item["name"], spec["pipeline"], spec["cron"], spec["params"], spec["enabled"])
    return _kept(item, held, spec, put)


def _endpoint(tx: Tx, item: dict[str, Any]) -> dict[str, Any]:
    before = _row(tx, endpoints, item["name"])
    spec = {key: value for key, value in item["spec"].items() if key != "kind"}
    held = {"kind": before["kind"], **before["spec"]} if before else None
    return _kept(item, held, item["spec"], lambda: endpoint_rooms.put(tx, item["name"], item["spec"]["kind"], spec))


def _gate(tx: Tx, item: dict[str, Any]) -> dict[str, Any]:
    kind, alias, spec = item["spec"]["kind"], item["spec"]["alias"], item["spec"]["spec"]
    before = gates.gate_for(tx, kind, item["name"], alias)
    found = _kept(item, before and before["spec"], spec, lambda: gates.declare(tx, kind, item["name"], alias, spec))
    found["ref"] = f"{kind}:{item['name']}@{alias}"
    if not spec["suite"]:
        raise BadInput("The gate names no suite.", 'Give it one: suite="suite:NAME".')
    suite = Ref.parse(spec["suite"], "suite")
    try:
        catalog.resolve(tx, suite)
    except NotFound:
        if suite.at:
            raise
        found["notes"] = [f"{suite} is not there yet: once a pipeline has made it, versions can pass this gate"]
    return found


def _monitor(tx: Tx, item: dict[str, Any]) -> dict[str, Any]:
    spec, before = item["spec"], _row(tx, monitors, item["name"])
    _need(tx, endpoints, spec["endpoint"], "endpoint")
    if spec["spec"]["on_fail"]:
        _need(tx, pipelines, spec["spec"]["on_fail"]["pipeline"], "pipeline")
    held = {"endpoint": before["endpoint"], "enabled": before["enabled"], **before["spec"]} if before else None
    full = {"endpoint": spec["endpoint"], "enabled": spec["enabled"], **spec["spec"]}
    return _kept(item, held, full, lambda: monitor_rooms.put(tx, item["name"], spec["endpoint"], spec["spec"], spec["enabled"]))


def _judge(tx: Tx, item: dict[str, Any]) -> dict[str, Any]:
    return _kept(item, judge_rooms.rule(tx, item["name"]), item["spec"], lambda: judge_rooms.put(tx, item["name"], item["spec"]))


def _retention(tx: Tx, item: dict[str, Any]) -> dict[str, Any]:
    before = next((one for one in project_settings.get(tx, retention_rooms.SETTING) or [] if one["name"] == item["name"]), None)
    rule = telemetry_retention.checked(item["name"], item["spec"])
    return _kept(item, before, rule.to_json(), lambda: retention_rooms.keep(tx, rule))


_WRITE: dict[str, Callable[[Tx, dict[str, Any]], dict[str, Any]]] = {
    **dict.fromkeys(ASSETS, _asset),
    "pipeline": _pipeline,
    "schedule": _schedule,
    "endpoint": _endpoint,
    "gate": _gate,
    "monitor": _monitor,
    "judge": _judge,
    "retention": _retention,
}


def _kept(item: dict[str, Any], before: dict[str, Any] | None, now: dict[str, Any], write: Callable[[], Any]) -> dict[str, Any]:
    """Write what is new or different; what was done."""
    ref = f"{item['what']}:{item['name']}"
    if before is not None and before == now:
        return {"ref": ref, "change": "unchanged", "differences": []}
    write()
    return {"ref": ref, "change": "created" if before is None else "changed", "differences": _differences(before, now) if before else []}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields whose values differ: [{"field", "from", "to"}]; files by path, steps by name."""
    found = []
    for field in sorted({*before, *now}):
        old, new = before.get(field), now.get(field)
        key = {"files": "path", "steps": "name"}.get(field)
        if old == new:
            continue
        if key and isinstance(old, list) and isinstance(new, list):
            olds, news = {part[key]: part for part in old}, {part[key]: part for part in new}
            names = [name for name in {**olds, **news} if olds.get(name) != news.get(name)]
            found += [{"field": f"{field[:-1]} {n}", "from": _state(olds.get(n)), "to": _state(news.get(n), n in olds)} for n in names]
            if not names:
                found.append({"field": f"order of {field}", "from": [*olds], "to": [*news]})
        else:
            found.append({"field": field, "from": old, "to": new})
    return found


def _state(part: Any, changed: bool = False) -> str:
    return "absent" if part is None else "changed" if changed else "there"


def _note_missing(tx: Tx, item: dict[str, Any], made: dict[str, Any]) -> None:
    """Note every reference in a pipeline's params to something that is not there (a pipeline may make it, or it is a typing error)."""
    params = [item["spec"].get("params") or {}, *(step.get("params") or {} for step in item["spec"]["steps"])]
    for value in (value for group in params for value in group.values()):
        kind, colon, _ = str(value).partition(":")
        if not isinstance(value, str) or not colon or kind not in REFERRED:
            continue
        try:
            catalog.resolve(tx, Ref.parse(value))
        except EverloopError as error:
            made["notes"].append(f"{error.what} {error.hint}".strip())


def _check_prompts(tx: Tx, prepared: list[dict[str, Any]], made: list[dict[str, Any]]) -> None:
    """BadInput where a prompt has a variable that nothing fills in the release that a declared pipeline, or a chat endpoint of its name, makes of
    it. A prompt that neither uses only gets a note: a program of the user's own may fill it."""
    results = {(m["what"], m["name"]): m for m in made}
    uses = [use for item in prepared if item["what"] == "pipeline" for use in _prompts_of(item)]
    used = {str(manifest["ref"]) for ref, _, _ in uses if (manifest := _there(tx, ref))}
    problems = []
    for ref, given, item in uses:
        asset = _there(tx, ref)
        owner = {"what": "prompt", "name": asset["name"]} if asset and ("prompt", asset["name"]) in results else item
        problems += _unfilled(owner, asset, given) if asset else []
    chats = {str(item["spec"]["release"]) for item in prepared if item["what"] == "endpoint" and item["spec"]["kind"] == "chat"}
    for item in prepared:
        asset = _there(tx, f"prompt:{item['name']}") if item["what"] == "prompt" else None
        if asset is None or asset["ref"] in used:
            continue
        found = _unfilled(item, asset, {})
        if item["name"] in chats:
            problems += found
        else:
            results["prompt", item["name"]]["notes"] += [one["why"] for one in found]
    _refuse([one for i, one in enumerate(problems) if one not in problems[:i]])


def _prompts_of(item: dict[str, Any]) -> list[tuple[str, Mapping[str, Any], dict[str, Any]]]:
    """(the prompt, what its variables get, the pipeline) of each step that makes a chat release."""
    found = []
    for step in item["spec"]["steps"]:
        params = {**(item["spec"].get("params") or {}), **(step.get("params") or {})}
        if step.get("call") == CHAT and (params.get("prompt") or params.get("name")):
            given = params.get("variables")
            found.append((str(params.get("prompt") or f"prompt:{params['name']}"), given if isinstance(given, Mapping) else {}, item))
    return found


def _unfilled(item: Mapping[str, Any], asset: Mapping[str, Any], given: Mapping[str, Any]) -> list[dict[str, str]]:
    try:
        prompts.check_filled(asset["manifest"], given)
    except BadInput as error:
        return [_problem(item, error)]
    return []


def _there(tx: Tx, ref: str) -> dict[str, Any] | None:
    try:
        return catalog.get(tx, Ref.parse(ref, "prompt"))
    except EverloopError:
        return None


def _latest(tx: Tx, kind: str, name: str) -> dict[str, Any] | None:
    try:
        return catalog.get(tx, Ref(kind, name))
    except NotFound:
        return None


def _row(tx: Tx, table: Any, name: str) -> dict[str, Any] | None:
    return tx.row(sa.select(table).where(table.c.project == tx.project, table.c.name == name))


def _need(tx: Tx, table: Any, name: str, what: str) -> None:
    if _row(tx, table, name) is None:
        there = [row["name"] for row in tx.rows(sa.select(table.c.name).where(table.c.project == tx.project).order_by(table.c.name).limit(20))]
        raise NotFound(f"There is no {what} {name!r}, and none is declared.", f"There are: {', '.join(there) or 'none yet'}.")


def _problem(item: Mapping[str, Any], error: EverloopError) -> dict[str, str]:
    return {"what": str(item.get("what")), "name": str(item.get("name")), "why": error.what, "hint": error.hint, "code": error.code}


def _refuse(problems: list[dict[str, str]]) -> None:
    if not problems:
        return
    told = " ".join(f"{p['what']} {p['name']}: {p['why']}" + (f" {p['hint']}" if p["hint"] else "") for p in problems)
    refused = all(p["code"] == Forbidden.code for p in problems)
    raise (Forbidden if refused else BadInput)(told, "Nothing was registered.", problems=problems)
