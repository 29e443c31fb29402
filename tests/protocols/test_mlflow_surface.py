"""What of MLflow's API is answered, kept true: every call that its own definitions name is either a route here or named on the page as missing."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.protocols.mlflow import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "protocols.md"
SERVICES = ("MlflowService", "ModelRegistryService", "WebhookService")
"""Those that MLflow's open-source server answers; the others are of one vendor's cloud."""


def calls() -> Iterator[tuple[str, str]]:
    """(method, path below /mlflow/) of every call that MLflow's definitions name."""
    import mlflow.protos
    from mlflow.protos import databricks_pb2

    for module in pkgutil.iter_modules(mlflow.protos.__path__):
        if module.name.endswith("_pb2"):
            found = importlib.import_module(f"mlflow.protos.{module.name}").DESCRIPTOR.services_by_name
            for service in (found[name] for name in SERVICES if name in found):
                for method in service.methods:
                    for endpoint in method.GetOptions().Extensions[databricks_pb2.rpc].endpoints:
                        yield endpoint.method, endpoint.path.strip("/").removeprefix("mlflow/")


@pytest.mark.client
def test_each_call_is_answered_or_named_as_missing() -> None:
    def flat(path: str) -> str:
        return re.sub(r"\{[^}]*\}", "{}", path)

    answered = {(method, flat(path)) for method, path, _ in TABLE}
    all_calls = {(method, flat(path)) for method, path in calls()}
    listed = PAGE.read_text().split("<!-- mlflow: not answered -->")[1].split("<!-- end -->")[0]
    named = set(re.findall(r"`([a-z/_A-Z-]+)`", listed))
    missing = {path for method, path in all_calls - answered}
    unnamed = {path for path in missing if not any(path == name or path.startswith(name + "/") for name in named)}
    assert not unnamed, "neither answered nor named in docs/reference/protocols.md"
    idle = {name for name in named if not any(path == name or path.startswith(name + "/") for path in missing)}
    assert not idle, "named as missing in docs/reference/protocols.md, and answered"
    assert len(all_calls & answered) >= 100
