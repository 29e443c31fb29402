"""From a model's manifest to something that predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput, EverloopError
from everloop.engines.base import Predictor, Read, engines


def load_model(manifest: Mapping[str, Any], read: Read) -> Predictor:
    """The model that `manifest` describes, loaded by the engine it names; `read` gets an object's bytes by digest.

    BadInput if the manifest names no engine or the file is not there; NotFound for an unknown engine; Corrupt if the bytes cannot be loaded.
    """
    name = manifest.get("engine")
    if not isinstance(name, str) or not name:
        raise BadInput("The model's manifest names no engine.", f"Engines: {', '.join(engines.names())}.")
    load = engines.get(name)
    try:
        return load(manifest, read)
    except EverloopError:
        raise
    except Exception as error:
        raise BadInput(f"The {name} engine cannot load this model: {type(error).__name__}: {error}") from error


NOT_MODELS = ("input_example.json", "serving_input_example.json", "requirements.txt")
"""Files that MLflow's client puts beside a model, whose endings could be a model's."""


def model_file(manifest: Mapping[str, Any], ending: str | tuple[str, ...], read: Read) -> bytes:
    """The bytes of the manifest's first file whose path ends so (or in one of several ways); BadInput lists what there is."""
    files = manifest.get("files") or ()
    for file in files:
        path = str(file.get("path", ""))
        if path.endswith(ending) and path not in NOT_MODELS:
            return read(str(file["digest"]))
    wanted = ending if isinstance(ending, str) else " or ".join(ending)
    raise BadInput(f"The model has no {wanted} file.", f"Files: {', '.join(str(f.get('path')) for f in files) or 'none'}.")
