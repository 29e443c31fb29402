"""Tracking's verbs: experiments, runs, metrics, files of runs."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from everloop.assets import experiments, logged_models, run_links, run_metrics, run_search, run_series, run_table, runs
from everloop.core.errors import BadInput
from everloop.core.limits import CHART_POINTS, HISTORY_POINTS, RUNS_CHANGED
from everloop.core.principal import Principal, Role

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


class Runs:
    """Facade over experiments and runs."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def create(
        self,
        who: Principal,
        name: str = "",
        kind: str = "custom",
        experiment: str = "default",
        parent: str | None = None,
        *,
        experiment_id: str | None = None,
        pipeline: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        code: dict[str, Any] | None = None,
        environment: dict[str, Any] | None = None,
        started_at: float | None = None,
        status: str = "running",
        id: str | None = None,
    ) -> dict[str, Any]:
        """Start a run; answers it. See `assets.runs.create`."""
        who.need(Role.editor, "start a run")

        def work(tx: Any) -> dict[str, Any]:
            row = runs.create(
                tx,
                name,
                kind,
                experiment=experiment,
                experiment_id=experiment_id,
                parent=parent,
                pipeline=pipeline,
                params=params,
                tags=tags,
                code=code,
                environment=environment,
                started_at=started_at,
                status=status,
                id=id,
            )
            return runs.get(tx, row["id"])

        return await self.ws.records.write(who, work)

    async def get(self, who: Principal, id: str, points: bool = False) -> dict[str, Any]:
        """A run with params, latest metrics and tags (and with `points` the latest point of each series)."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: runs.get(tx, id, points))

    async def finish(self, who: Principal, id: str, status: str = "finished", error: str = "", ended_at: float | None = None) -> dict[str, Any]:
        """End a run as finished, failed (with `error`) or killed; answers it."""
        return await self.update(who, id, status=status, error=error, ended_at=ended_at)

    async def update(self, who: Principal, id: str, **changes: Any) -> dict[str, Any]:
        """Change status, ended_at, name or error of a run; answers it."""
        who.need(Role.editor, "change a run")

        def work(tx: Any) -> dict[str, Any]:
            runs.update(tx, id, **changes)
            return runs.get(tx, id)

        return await self.ws.records.write(who, work)

    async def log(
        self,
        who: Principal,
        id: str,
        params: Mapping[str, Any] | None = None,
        metrics: list[dict[str, Any]] | dict[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        series: Mapping[str, Any] | None = None,
    ) -> None:
        """Add params (set once), metric points ([{"key", "value", "step"?, "at"?}] or {key: value}) and tags, all or nothing.

        `series` are points by column: {key: {"value": [...], "step": [...], "at": [...]}}.
        """
        points = run_metrics.points_of(metrics, self.ws.clock.now()) if metrics else []
        columns = run_metrics.columns_of(points)
        if series:
            columns = run_metrics.joined(columns, run_metrics.series_of(series))
        await self.log_entry(who, runs.Entry(id, columns, params or {}, tags or {}))

    async def log_points(
        self,
        who: Principal,
        id: str,
        points: list[run_metrics.Point] | None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """`log` with points that are made already."""
        await self.log_entry(who, runs.Entry(id, run_metrics.columns_of(points or []), params or {}, tags or {}))

    async def log_entry(self, who: Principal, entry: runs.Entry) -> None:
        """`log` of what is checked already: what protocols on the hot path call. Requests that wait at the same moment are one write."""
        who.need(Role.editor, "log to a run")
        await self.ws.records.gather(who, runs.log_many, entry)

    async def delete_tag(self, who: Principal, id: str, key: str) -> None:
        """Remove a tag of a run."""
        who.need(Role.editor, "change a run")
        await self.ws.records.write(who, lambda tx: runs.delete_tag(tx, id, key))

    async def delete(self, who: Principal, id: str) -> None:
        """Put a run out of sight; `restore` brings it back."""
        who.need(Role.editor, "delete a run")
        await self.ws.records.write(who, lambda tx: runs.delete(tx, id))

    async def restore(self, who: Principal, id: str) -> None:
        """Bring a deleted run back."""
        who.need(Role.editor, "restore a run")
        await self.ws.records.write(who, lambda tx: runs.restore(tx, id))

    async def history(self, who: Principal, id: str, key: str, limit: int = HISTORY_POINTS, cursor: str | None = None) -> dict[str, Any]:
        """A metric's series by time: {"items": [{"value", "step", "at"}], "next"}. The run must exist."""
        points, after = await self.history_points(who, id, key, limit, cursor)
        return {"items": [{"value": value, "step": step, "at": at} for value, step, at in points], "next": after}

    async def history_points(
        self, who: Principal, id: str, key: str, limit: int = HISTORY_POINTS, cursor: str | None = None
    ) -> tuple[list[tuple[float | str, int, float]], str | None]:
        """`history` as plain (value, step, at) and the next cursor: what protocols on the hot path call."""
        start = _decode(cursor)
        limit = max(1, min(limit, HISTORY_POINTS))

        def work(tx: Any) -> Any:
            runs.must_exist(tx, id)
            return run_metrics.history(tx, id, key, limit, tuple(start) if start else None)

        points, after = await self.ws.records.read(who.need(Role.viewer), work)
        return points, _encode(after) if after else None

    async def sampled(
        self, who: Principal, ids: list[str], key: str, most: int, low: int | None = None, high: int | None = None
    ) -> dict[str, list[tuple[float | str, int, float]]]:
        """Of each run's series at most `most` points, evenly, as (value, step, at); NotFound for a run that is not there."""

        def work(tx: Any) -> Any:
            for id in ids:
                runs.must_exist(tx, id)
            return {id: run_metrics.sampled(tx, id, key, most, low, high) for id in dict.fromkeys(ids)}

        found: dict[str, list[tuple[float | str, int, float]]] = await self.ws.records.read(who.need(Role.viewer), work)
        return found

    async def chart(self, who: Principal, id: str, key: str, points: int, low: int | None = None, high: int | None = None) -> dict[str, Any]:
        """A series for a chart: {"items": [{"step", "at", "value", "min", "max", "n"}], "total", "next": None}, see `assets.run_series.thin`. The run must exist.

        `low` and `high` bound the steps. A value that is not finite is the text "NaN", "Infinity" or "-Infinity".
        """

        def work(tx: Any) -> Any:
            runs.must_exist(tx, id)
            return run_series.thin(tx, id, key, max(1, min(points, CHART_POINTS)), low, high), run_series.count(tx, id, key)

        items, total = await self.ws.records.read(who.need(Role.viewer), work)
        return {"items": run_metrics.finite(items), "total": total, "next": None}

    async def latest(self, who: Principal, id: str) -> list[tuple[str, float | str, int, float]]:
        """The latest point of every series of a run: [(key, value, step, at)]."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_metrics.latest_points(tx, id))

    async def search(
        self, who: Principal, filter: str = "", experiment: str | None = None, limit: int = 100, cursor: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Runs that fit MLflow's filter grammar, newest first: {"items", "next"}. `more`: experiment_ids, view, order_by, parent, kind, text."""
        offset = int((_decode(cursor) or [0])[0])

        def work(tx: Any) -> Any:
            return run_search.search(tx, filter, experiment=experiment, limit=limit, offset=offset, **more)

        items, left = await self.ws.records.read(who.need(Role.viewer), work)
        return {"items": items, "next": _encode([offset + len(items)]) if left else None}

    async def count(self, who: Principal, filter: str = "", experiment: str | None = None, **more: Any) -> int:
        """How many runs fit: as `search`, without order and page."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_table.count(tx, filter, experiment=experiment, **more))

    async def keys(self, who: Principal, filter: str = "", experiment: str | None = None, **more: Any) -> dict[str, list[dict[str, Any]]]:
        """Keys of metrics, params and tags that runs which fit have: see `assets.run_table.keys`."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_table.keys(tx, filter, experiment=experiment, **more))

    async def groups(
        self, who: Principal, by: str, metrics: Sequence[str] = (), filter: str = "", experiment: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Runs that fit in groups, with mean, least and greatest value of metrics: see `assets.run_table.groups`."""
        work = lambda tx: run_table.groups(tx, by, metrics, filter, experiment=experiment, **more)
        return await self.ws.records.read(who.need(Role.viewer), work)

    async def values(
        self, who: Principal, columns: Sequence[tuple[str, str]], limit: int, filter: str = "", ids: Sequence[str] | None = None, **more: Any
    ) -> list[dict[str, Any]]:
        """A few params, metrics and tags of many runs: see `assets.run_table.values`."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_table.values(tx, columns, limit, filter, ids, **more))

    async def many(self, who: Principal, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Runs by id, in the order asked; NotFound for one that is not there."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_table.many(tx, ids))

    async def tree(self, who: Principal, id: str, limit: int) -> list[dict[str, Any]]:
        """The runs in a run, of all levels: see `assets.run_table.tree`."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_table.tree(tx, id, limit))

    async def series_counts(self, who: Principal, ids: Sequence[str], key: str | None = None) -> dict[str, int]:
        """How many points each metric (or one) of some runs has: {key: points}."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_series.counts(tx, ids, key))

    async def series_heads(self, who: Principal, ids: Sequence[str], key: str) -> list[dict[str, Any]]:
        """Where some runs' series of a metric end: see `assets.run_table.heads`."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_table.heads(tx, ids, key))

    async def thinned(self, who: Principal, ids: Sequence[str], key: str, buckets: int) -> dict[str, list[dict[str, Any]]]:
        """A metric's series of some runs for a chart: {run: pieces}, at most `buckets` of a run: see `assets.run_series.thin`."""

        def work(tx: Any) -> dict[str, list[dict[str, Any]]]:
            return {id: run_series.thin(tx, id, key, buckets) for id in ids}

        return await self.ws.records.read(who.need(Role.viewer), work)

    async def change_many(self, who: Principal, ids: Sequence[str], *, tags: Mapping[str, Any] | None = None, deleted: bool | None = None) -> None:
        """Tag, delete or restore several runs, all or none; NotFound for one that is not there."""
        who.need(Role.editor, "change runs")
        if not 1 <= len(ids) <= RUNS_CHANGED:
            raise BadInput(f"{len(ids)} runs are named.", f"Name 1 to {RUNS_CHANGED}.")

        def work(tx: Any) -> None:
            for id in ids:
                if tags:
                    runs.log(tx, id, tags=tags)
                if deleted is not None:
                    (runs.delete if deleted else runs.restore)(tx, id)

        await self.ws.records.write(who, work)

    async def artifacts(self, who: Principal, id: str, under: str = "") -> list[dict[str, Any]]:
        """Files of a run (below a folder): [{"path", "digest", "size", "at", "by"}]; `by` is who wrote it, None where that was not kept yet."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: runs.artifacts(tx, id, under))

    async def put_artifact(self, who: Principal, id: str, path: str, data: bytes | Path) -> dict[str, Any]:
        """Store bytes (or a file's) under a name in a run, replacing what was called so."""
        who.need(Role.editor, "log to a run")
        runs.check_path(path)
        await self.get(who, id)
        digest, size = await asyncio.to_thread(self.ws.objects.put, who.project, data)
        return await self.ws.records.write(who, lambda tx: runs.put_artifact(tx, id, path, digest, size))

    async def name_artifact(self, who: Principal, owner: str, path: str, digest: str, size: int, owned: bool = True) -> dict[str, Any]:
        """Name an object that is stored already as a file of a run, or (`owned` False) of another folder (see `put_in_folder`)."""
        who.need(Role.editor, "store a file")
        return await self.ws.records.write(who, lambda tx: runs.put_artifact(tx, owner, path, digest, size, owned=owned))

    async def artifact_file(self, who: Principal, id: str, path: str) -> tuple[dict[str, Any], Path]:
        """One file of a run, and where its bytes lie on this machine (to be read, never changed); NotFound if the run has none such."""
        found = await self.ws.records.read(who.need(Role.viewer), lambda tx: runs.artifact(tx, id, path))
        return found, await asyncio.to_thread(self.ws.objects.path, who.project, found["digest"])

    async def get_artifact(self, who: Principal, id: str, path: str) -> bytes:
        """The bytes of one file of a run; NotFound if the run has none such."""
        found = await self.ws.records.read(who.need(Role.viewer), lambda tx: runs.artifact(tx, id, path))
        return await asyncio.to_thread(self.ws.objects.get, who.project, found["digest"])

    async def delete_artifacts(self, who: Principal, id: str, path: str) -> int:
        """Forget a file of a run, or all below a folder."""
        who.need(Role.editor, "change a run")
        return await self.ws.records.write(who, lambda tx: runs.delete_artifacts(tx, id, path))

    async def log_inputs(self, who: Principal, id: str, datasets: list[dict[str, Any]], models: list[tuple[str, int]]) -> None:
        """Note data sets and logged models that a run read."""
        who.need(Role.editor, "log to a run")

        def work(tx: Any) -> None:
            run_links.put_inputs(tx, id, datasets)
            run_links.put_models(tx, id, models, "input")

        await self.ws.records.write(who, work)

    async def read(self, who: Principal, id: str, refs: list[str]) -> list[str]:
        """Note asset versions that a run read; answers the exact references."""
        who.need(Role.editor, "log to a run")
        return await self.ws.records.write(who, lambda tx: run_links.read(tx, id, refs))

    async def log_outputs(self, who: Principal, id: str, models: list[tuple[str, int]]) -> None:
        """Note logged models that a run made."""
        who.need(Role.editor, "log to a run")
        await self.ws.records.write(who, lambda tx: run_links.put_models(tx, id, models, "output"))

    async def links(self, who: Principal, ids: list[str]) -> dict[str, Any]:
        """Data sets and logged models that runs read and made, by run id."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_links.of(tx, ids))

    async def datasets(self, who: Principal, experiment_ids: list[str]) -> list[dict[str, Any]]:
        """Data sets that the runs of these experiments read."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: run_links.datasets(tx, experiment_ids))

    async def log_model_metrics(self, who: Principal, id: str, points: list[tuple[str, run_metrics.Point, str, str]]) -> None:
        """Log metric points to a run and tie them to logged models: [(model, point, data set's name, its digest)]."""
        who.need(Role.editor, "log to a run")

        def work(tx: Any) -> None:
            runs.log(tx, id, points=[point for _, point, _, _ in points])
            logged_models.put_metrics(tx, id, points)

        await self.ws.records.write(who, work)

    async def create_model(self, who: Principal, experiment: str, name: str, **more: Any) -> dict[str, Any]:
        """A new logged model, pending: `more` is kind, run, params, tags."""
        who.need(Role.editor, "log a model")
        return await self.ws.records.write(who, lambda tx: logged_models.create(tx, experiment, name, **more))

    async def model(self, who: Principal, id: str) -> dict[str, Any]:
        """One logged model."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: logged_models.get(tx, id))

    async def change_model(self, who: Principal, id: str, **changes: Any) -> dict[str, Any]:
        """Change a logged model's status, tags or params; answers it."""
        who.need(Role.editor, "change a logged model")
        return await self.ws.records.write(who, lambda tx: logged_models.update(tx, id, **changes))

    async def delete_model(self, who: Principal, id: str) -> None:
        """Put a logged model out of sight."""
        who.need(Role.editor, "delete a logged model")
        await self.ws.records.write(who, lambda tx: logged_models.delete(tx, id))

    async def search_models(
        self, who: Principal, experiment_ids: list[str], limit: int = 100, cursor: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Logged models of these experiments that fit: {"items", "next"}. `more`: filter, order_by, datasets."""
        offset = int((_decode(cursor) or [0])[0])
        items, left = await self.ws.records.read(
            who.need(Role.viewer), lambda tx: logged_models.search(tx, experiment_ids, limit=limit, offset=offset, **more)
        )
        return {"items": items, "next": _encode([offset + len(items)]) if left else None}

    async def folder(self, who: Principal, owner: str, under: str = "") -> list[dict[str, Any]]:
        """Files of a folder that is not a run's (a logged model's, or a client's own), as `artifacts`."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: runs.artifacts(tx, owner, under, owned=False))

    async def put_in_folder(self, who: Principal, owner: str, path: str, data: bytes | Path) -> dict[str, Any]:
        """Store bytes as a file of such a folder."""
        who.need(Role.editor, "store a file")
        runs.check_path(path)
        digest, size = await asyncio.to_thread(self.ws.objects.put, who.project, data)
        return await self.ws.records.write(who, lambda tx: runs.put_artifact(tx, owner, path, digest, size, owned=False))

    async def experiments(
        self, who: Principal, filter: str = "", limit: int = 100, cursor: str | None = None, view: str = "active", order_by: list[str] | None = None
    ) -> dict[str, Any]:
        """Experiments, last changed first: {"items": [{"id", "name", "tags", "created_at", "updated_at", "deleted_at"}], "next"}."""
        offset = int((_decode(cursor) or [0])[0])
        limit = max(1, limit)
        await self._default(who)
        found = await self.ws.records.read(
            who.need(Role.viewer), lambda tx: experiments.search(tx, filter, view, order_by, limit=limit + 1, offset=offset)
        )
        return {"items": found[:limit], "next": _encode([offset + limit]) if len(found) > limit else None}

    async def experiment(self, who: Principal, id: str | None = None, name: str | None = None) -> dict[str, Any] | None:
        """One experiment by id (NotFound if there is none) or by exact name (None if there is none)."""
        await self._default(who)
        if name is not None:
            return await self.ws.records.read(who.need(Role.viewer), lambda tx: experiments.find(tx, name))
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: experiments.get(tx, str(id)))

    async def create_experiment(self, who: Principal, name: str, tags: dict[str, str] | None = None) -> dict[str, Any]:
        """A new experiment."""
        who.need(Role.editor, "make an experiment")
        return await self.ws.records.write(who, lambda tx: experiments.create(tx, name, tags))

    async def change_experiment(
        self, who: Principal, id: str, *, name: str | None = None, tags: dict[str, str | None] | None = None, deleted: bool | None = None
    ) -> dict[str, Any]:
        """Rename, tag (None removes a tag), delete or restore an experiment; answers it."""
        who.need(Role.editor, "change an experiment")

        def work(tx: Any) -> dict[str, Any]:
            if name is not None:
                experiments.rename(tx, id, name)
            if tags:
                experiments.tag(tx, id, tags)
            if deleted is not None:
                (experiments.delete if deleted else experiments.restore)(tx, id)
            return experiments.get(tx, id)

        return await self.ws.records.write(who, work)

    async def _default(self, who: Principal) -> None:
        """The default experiment is there for whoever looks, viewers too."""
        if not await self.ws.records.read(who, experiments.has_default):
            await self.ws.records.write(who, experiments.ensure_default)


def _encode(position: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode()


def _decode(cursor: str | None) -> list[Any] | None:
    if not cursor:
        return None
    try:
        position = orjson.loads(base64.urlsafe_b64decode(cursor.encode()))
    except ValueError:
        position = None
    if not isinstance(position, list) or not all(isinstance(x, (int, float)) for x in position) or not position:
        raise BadInput(f"{cursor!r} is not a cursor of this list.", "Use the `next` of an earlier answer.")
    return position
