"""Reading an MLflow server, folder or database with MLflow's own client: everything that it shows, page by page."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from everloop.core.errors import BadInput, MissingDependency, NotFound

PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"
PAGE = 200


class Source:
    """An MLflow store to read from: `http(s)://...`, a folder (`mlruns`), or a database (`sqlite:///...`)."""

    def __init__(self, where: str) -> None:
        try:
            os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
            os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            import mlflow
        except ImportError:
            raise MissingDependency("mlflow", "to read an MLflow store") from None
        self.where = address(where)
        self._mlflow = mlflow
        mlflow.set_tracking_uri(self.where)
        mlflow.set_registry_uri(self.where)
        self.client = mlflow.MlflowClient(self.where, self.where)

    def experiments(self) -> list[Any]:
        """All experiments, deleted ones too. BadInput where the store cannot be read."""
        try:
            return list(_pages(lambda token: self.client.search_experiments(view_type=_ALL, max_results=PAGE, page_token=token)))
        except Exception as error:
            raise BadInput(
                f"{self.where} cannot be read as an MLflow store: {error}", "Give http(s)://HOST, a folder with mlruns, or sqlite:///FILE."
            ) from error

    def runs(self, experiment: str) -> Iterator[Any]:
        """All runs of an experiment, deleted ones too, oldest first."""
        more = {"run_view_type": _ALL, "order_by": ["attributes.start_time ASC"]}
        yield from _pages(lambda token: self.client.search_runs([experiment], max_results=PAGE, page_token=token, **more))

    def history(self, run: str, key: str) -> list[Any]:
        """All points of one metric of a run."""
        return list(self.client.get_metric_history(run, key))

    def models(self, experiment: str) -> Iterator[Any]:
        """All logged models of an experiment that are not deleted."""
        yield from _pages(lambda token: self.client.search_logged_models([experiment], max_results=100, page_token=token))

    def names(self, prompts: bool) -> Iterator[Any]:
        """All registered models, or all prompts."""
        yield from _pages(lambda token: self.client.search_registered_models(PROMPTS if prompts else None, max_results=100, page_token=token))

    def versions(self, name: str, prompts: bool) -> list[Any]:
        """All versions of a name, oldest first."""
        wanted = "name = '{}'".format(name.replace("'", "''")) + (f" AND {PROMPTS}" if prompts else "")
        found = _pages(lambda token: self.client.search_model_versions(wanted, max_results=1000, page_token=token))
        return sorted((one for one in found if one.name == name), key=lambda one: int(one.version))

    def traces(self, experiment: str) -> Iterator[Any]:
        """All traces of an experiment with their spans and assessments."""
        yield from _pages(lambda token: self.client.search_traces(locations=[experiment], max_results=100, page_token=token))

    def files(self, uri: str) -> list[tuple[str, int]]:
        """All files below an artifact address: [(path, size)]."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository, found, folders = get_artifact_repository(uri), [], [""]
        while folders:
            folder = folders.pop()
            for one in repository.list_artifacts(folder or None):
                if one.is_dir:
                    folders.append(one.path)
                else:
                    found.append((one.path, int(one.file_size or 0)))
        return sorted(found)

    @contextmanager
    def file(self, uri: str, path: str) -> Iterator[Path]:
        """One file below an artifact address, on this disk for a while."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with tempfile.TemporaryDirectory(prefix="everloop-import-") as folder:
            got = Path(get_artifact_repository(uri).download_artifacts(path, dst_path=folder))
            if not got.is_file():
                raise NotFound(f"{uri} has no file {path!r}.")
            yield got


_ALL = 3
"""MLflow's view of what is active and what is deleted."""


def address(where: str) -> str:
    """What MLflow's client takes; a folder becomes its path, and the folder above `mlruns` that one. BadInput for what is neither."""
    if "://" in where:
        return where
    folder = Path(where).expanduser()
    if (folder / "mlruns").is_dir():
        folder = folder / "mlruns"
    if folder.is_file() and folder.suffix in (".db", ".sqlite", ".sqlite3"):
        return f"sqlite:///{folder.resolve()}"
    if not folder.is_dir():
        raise BadInput(f"There is no folder {where}.", "Give http(s)://HOST, a folder with mlruns, or sqlite:///FILE.")
    return folder.resolve().as_uri()


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return
