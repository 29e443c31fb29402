"""The workspace: all stores of one home, and the facades over them. Protocols, web and cli call facades and nothing below.

Facades and stores are made at first use, so a start pays only for what it needs.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everloop.core.clock import Clock, SystemClock
from everloop.core.errors import BadInput, TooLarge
from everloop.core.limits import UPLOAD_BYTES
from everloop.core.principal import DEFAULT_PROJECT, SYSTEM
from everloop.core.settings import Settings
from everloop.engines import reach
from everloop.engines.prices import cost
from everloop.store import moving
from everloop.store.files import write_error
from everloop.store.objects import Objects
from everloop.store.records import Records
from everloop.store.schema import projects

if TYPE_CHECKING:
    from everloop.store.telemetry import Telemetry
    from everloop.workspace.actions import Actions
    from everloop.workspace.assets import Assets
    from everloop.workspace.data import Data
    from everloop.workspace.declare import Declare
    from everloop.workspace.endpoints import Endpoints
    from everloop.workspace.erasure import Erasure
    from everloop.workspace.eval_sets import EvalSets
    from everloop.workspace.exports import Exports
    from everloop.workspace.gates import Gates
    from everloop.workspace.govern import Govern
    from everloop.workspace.identity import Identity
    from everloop.workspace.imports import Imports
    from everloop.workspace.judges import Judges
    from everloop.workspace.labels import Labels
    from everloop.workspace.models import Models
    from everloop.workspace.monitors import Monitors
    from everloop.workspace.otel import Otel
    from everloop.workspace.overview import Overview
    from everloop.workspace.pipelines import Pipelines
    from everloop.workspace.redaction import Redaction
    from everloop.workspace.registry import Registry
    from everloop.workspace.reports import Reports
    from everloop.workspace.retention import Retention
    from everloop.workspace.runs import Runs
    from everloop.workspace.tail import Tail
    from everloop.workspace.trace_infos import TraceInfos
    from everloop.workspace.trace_lines import TraceLines
    from everloop.workspace.traces import Traces
    from everloop.workspace.uploads import Uploads
    from everloop.workspace.webhooks import Webhooks

STARTED = ("identity", "redaction", "endpoints", "pipelines", "monitors", "webhooks", "retention", "judges", "erasure")
"""Facades with something to start or stop (`on_start`, `on_stop`), in order."""
KEPT_AT_RESET = ("server.lock", "server.log", "secret")


class Workspace:
    """State and verbs of one home. `start` before use; `stop` finishes what was acknowledged and closes."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.started = False
        self.draining = False
        """The server was told to stop: nobody is kept waiting for news any more."""
        self.background: set[asyncio.Task[Any]] = set()

    @property
    def home(self) -> Path:
        """The folder of all state."""
        return Path(self.settings.home)

    async def start(self) -> Workspace:
        """Open the stores and start the facades' loops; BadInput if the home cannot be used."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"The home {self.home} cannot be made: {error.strerror}.", "Choose another with --home DIR.") from error
        try:
            await self._open()
        except BaseException:
            await self._abandon()
            raise
        self.started = True
        return self

    async def _open(self) -> None:
        reach.configure(self.settings)
        await asyncio.to_thread(self.objects.check)
        await asyncio.to_thread(self.records.open)
        await self.records.write(SYSTEM, default_project)
        await asyncio.to_thread(self.telemetry.open)
        for name in STARTED:
            hook = getattr(getattr(self, name), "on_start", None)
            if hook is not None:
                await hook()
        await asyncio.to_thread(self.telemetry.wait_open)

    async def _abandon(self) -> None:
        """Close what a start that failed had opened; what cannot be closed is told in the log, the first error is the one that counts."""
        try:
            await self.stop()
        except Exception:
            logging.getLogger("everloop.workspace").debug("closing after a failed start", exc_info=True)

    async def stop(self) -> None:
        """Stop loops, wait for writes under way, close the stores."""
        self.started = False
        for name in reversed(STARTED):
            hook = getattr(self.__dict__.get(name), "on_stop", None)
            if hook is not None:
                await hook()
        for task in list(self.background):
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        if "telemetry" in self.__dict__:
            await asyncio.to_thread(self.telemetry.close)
        await asyncio.to_thread(self.records.close)

    async def reset(self) -> None:
        """Drop all state of all projects and start anew (`settings.test_reset` alone lets anyone ask for it). The secret and the log stay."""
        if not self.settings.test_reset:
            raise BadInput("State is dropped only where the server was started with EVERLOOP_TEST_RESET=1.")
        await self.stop()
        for name in [name for name, value in vars(type(self)).items() if isinstance(value, cached_property)]:
            self.__dict__.pop(name, None)
        await asyncio.to_thread(self._drop_state)
        await self.start()

    def _drop_state(self) -> None:
        if self.settings.records_url:
            self.records.drop()
            self.__dict__.pop("records")
        for path in self.home.iterdir():
            if path.name in KEPT_AT_RESET:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def scratch(self) -> Path:
        """The folder of the home for temporary files."""
        folder = self.home / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def incoming(self) -> Any:
        """A temporary file in the home (so that it can be renamed into a store), removed when the context ends."""
        folder = self.home / "incoming"
        try:
            return tempfile.NamedTemporaryFile(dir=self.scratch())
        except OSError as error:
            raise write_error(error, folder) from error

    @asynccontextmanager
    async def received(self, pieces: AsyncIterator[bytes], limit: int = UPLOAD_BYTES) -> AsyncIterator[Path]:
        """An upload written to a temporary file piece by piece, never all in memory. TooLarge over `limit` bytes."""
        with self.incoming() as file:
            size = 0
            async for piece in pieces:
                size += len(piece)
                if size > limit:
                    raise TooLarge(f"The upload is over {limit} bytes.")
                _written(file, piece)
            _written(file, b"")
            yield Path(file.name)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine in the background until it ends or the workspace stops."""
        task = asyncio.get_running_loop().create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task

    @cached_property
    def records(self) -> Records:
        """The relational store."""
        if self.settings.records_url:
            return Records(self.settings.records_url, clock=self.clock, fsync=self.settings.fsync)
        return Records.at(self.home, clock=self.clock, fsync=self.settings.fsync)

    @cached_property
    def objects(self) -> Objects:
        """The content-addressed bytes."""
        root = self.home / "objects"
        return Objects(root, fsync=self.settings.fsync, place=moving.place(self.settings.objects, root, self.settings.fsync))

    @cached_property
    def telemetry(self) -> Telemetry:
        """Spans, predictions and their scores."""
        from everloop.store.telemetry import Telemetry
        from everloop.store.telemetry_archive import Archive

        archive = Archive(lambda: self.objects.place, self.objects.key, self.home / "archive-cache")
        return Telemetry(self.home, clock=self.clock, fsync=self.settings.fsync, price=cost, archive=archive)

    @cached_property
    def identity(self) -> Identity:
        """Who: keys, users, projects."""
        from everloop.workspace.identity import Identity

        return Identity(self)

    @cached_property
    def assets(self) -> Assets:
        """The catalogue and its objects."""
        from everloop.workspace.assets import Assets

        return Assets(self)

    @cached_property
    def labels(self) -> Labels:
        """Annotation queues."""
        from everloop.workspace.labels import Labels

        return Labels(self)

    @cached_property
    def trace_lines(self) -> TraceLines:
        """The filter line of traces, its histogram and completion; saved views."""
        from everloop.workspace.trace_lines import TraceLines

        return TraceLines(self)

    @cached_property
    def imports(self) -> Imports:
        """Other trackers' records."""
        from everloop.workspace.imports import Imports

        return Imports(self)

    @cached_property
    def models(self) -> Models:
        """Formats of models, and who is trusted."""
        from everloop.workspace.models import Models

        return Models(self)

    @cached_property
    def data(self) -> Data:
        """Tables and documents."""
        from everloop.workspace.data import Data

        return Data(self)

    @cached_property
    def runs(self) -> Runs:
        """Experiments and runs."""
        from everloop.workspace.runs import Runs

        return Runs(self)

    @cached_property
    def exports(self) -> Exports:
        """Selections of traces as files."""
        from everloop.workspace.exports import Exports

        return Exports(self)

    @cached_property
    def reports(self) -> Reports:
        """Figures over traces: by model, user, endpoint or release; sessions."""
        from everloop.workspace.reports import Reports

        return Reports(self)

    @cached_property
    def traces(self) -> Traces:
        """What happened in production."""
        from everloop.workspace.traces import Traces

        return Traces(self)

    @cached_property
    def actions(self) -> Actions:
        """What is done with many traces at once."""
        from everloop.workspace.actions import Actions

        return Actions(self)

    @cached_property
    def judges(self) -> Judges:
        """A share of live traces, judged as they come."""
        from everloop.workspace.judges import Judges

        return Judges(self)

    @cached_property
    def tail(self) -> Tail:
        """Traces as they come."""
        from everloop.workspace.tail import Tail

        return Tail(self)

    @cached_property
    def otel(self) -> Otel:
        """Metrics and logs of OpenTelemetry clients."""
        from everloop.workspace.otel import Otel

        return Otel(self)

    @cached_property
    def retention(self) -> Retention:
        """How long traces are kept, and where."""
        from everloop.workspace.retention import Retention

        return Retention(self)

    @cached_property
    def erasure(self) -> Erasure:
        """Users who are forgotten."""
        from everloop.workspace.erasure import Erasure

        return Erasure(self)

    @cached_property
    def redaction(self) -> Redaction:
        """What traces lose before they are written."""
        from everloop.workspace.redaction import Redaction

        return Redaction(self)

    @cached_property
    def trace_infos(self) -> TraceInfos:
        """What clients tell of whole traces, and search over it."""
        from everloop.workspace.trace_infos import TraceInfos

        return TraceInfos(self)

    @cached_property
    def eval_sets(self) -> EvalSets:
        """Evaluation data sets and scorers of MLflow's clients."""
        from everloop.workspace.eval_sets import EvalSets

        return EvalSets(self)

    @cached_property
    def gates(self) -> Gates:
        """What must hold before an alias moves."""
        from everloop.workspace.gates import Gates

        return Gates(self)

    @cached_property
    def endpoints(self) -> Endpoints:
        """What users call."""
        from everloop.workspace.endpoints import Endpoints

        return Endpoints(self)

    @cached_property
    def pipelines(self) -> Pipelines:
        """Durable steps."""
        from everloop.workspace.pipelines import Pipelines

        return Pipelines(self)

    @cached_property
    def declare(self) -> Declare:
        """What a project file declares, applied as one."""
        from everloop.workspace.declare import Declare

        return Declare(self)

    @cached_property
    def monitors(self) -> Monitors:
        """Checks over live windows."""
        from everloop.workspace.monitors import Monitors

        return Monitors(self)

    @cached_property
    def overview(self) -> Overview:
        """The state of everything at once, and search."""
        from everloop.workspace.overview import Overview

        return Overview(self)

    @cached_property
    def uploads(self) -> Uploads:
        """Uploads in parts that are under way."""
        from everloop.workspace.uploads import Uploads

        return Uploads(self)

    @cached_property
    def webhooks(self) -> Webhooks:
        """Who is told when models and prompts change."""
        from everloop.workspace.webhooks import Webhooks

        return Webhooks(self)

    @cached_property
    def registry(self) -> Registry:
        """Names of models and prompts, as clients of a model registry think of them."""
        from everloop.workspace.registry import Registry

        return Registry(self)

    @cached_property
    def govern(self) -> Govern:
        """Lineage questions and the audit record."""
        from everloop.workspace.govern import Govern

        return Govern(self)


def _written(file: Any, piece: bytes) -> None:
    try:
        file.write(piece)
        if not piece:
            file.flush()
    except OSError as error:
        raise write_error(error, Path(file.name).parent) from error


def default_project(tx: Any) -> None:
    """Make the default project where it is missing."""
    tx.upsert(projects, {"name": DEFAULT_PROJECT, "created_at": tx.now, "created_by": tx.who.name, "settings": {}}, update=[])
