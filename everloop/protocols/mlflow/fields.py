"""What requests must look like: which fields a route needs and of which type, refused in the words that MLflow's own server uses.

A field's kind: `text`, `int`, `number`, `list`, `texts` (a list of text); with `!` it is required. Numbers may come as text, as protobuf's JSON writes
64-bit ones. A field that a route does not know is ignored.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from everloop.core.errors import BadInput

SEE = " See the API docs for more information about request parameters."
KEY_CHARS, PARAM_CHARS, TAG_CHARS, EXPERIMENT_TAG_CHARS = 250, 6_000, 8_000, 20_000
BATCH_METRICS, BATCH_PARAMS, BATCH_TAGS, BATCH_ALL = 1_000, 100, 100, 1_000
_NAME = re.compile(r"[/\w.\- :]*")

_RUN = {"run_id": "text!"}
_EXPERIMENT = {"experiment_id": "text!"}
FIELDS: dict[str, dict[str, str]] = {
    "experiments/create": {"name": "text!", "artifact_location": "text", "tags": "list"},
    "experiments/get": _EXPERIMENT,
    "experiments/get-by-name": {"experiment_name": "text!"},
    "experiments/search": {"view_type": "", "max_results": "int", "order_by": "list", "filter": "text", "page_token": "text"},
    "experiments/update": {**_EXPERIMENT, "new_name": "text!"},
    "experiments/delete": _EXPERIMENT,
    "experiments/restore": _EXPERIMENT,
    "experiments/set-experiment-tag": {**_EXPERIMENT, "key": "text!", "value": "text"},
    "experiments/delete-experiment-tag": {**_EXPERIMENT, "key": "text!"},
    "runs/create": {"experiment_id": "text", "start_time": "int", "run_name": "text", "tags": "list"},
    "runs/get": _RUN,
    "runs/update": {**_RUN, "end_time": "int", "run_name": "text"},
    "runs/delete": _RUN,
    "runs/restore": _RUN,
    "runs/log-metric": {
        **_RUN,
        "key": "text!",
        "value": "number!",
        "timestamp": "int!",
        "step": "int",
        "model_id": "text",
        "dataset_name": "text",
        "dataset_digest": "text",
    },
    "runs/log-parameter": {**_RUN, "key": "text!", "value": "text"},
    "runs/set-tag": {**_RUN, "key": "text!", "value": "text"},
    "runs/delete-tag": {**_RUN, "key": "text!"},
    "runs/log-batch": {**_RUN, "metrics": "list", "params": "list", "tags": "list"},
    "runs/log-inputs": {**_RUN, "datasets": "list", "models": "list"},
    "runs/outputs": {**_RUN, "models": "list!"},
    "runs/log-model": {**_RUN, "model_json": "text!"},
    "runs/search": {"experiment_ids": "list", "filter": "text", "max_results": "int", "order_by": "texts"},
    "metrics/get-history": {**_RUN, "metric_key": "text!", "page_token": "text"},
    "metrics/get-history-bulk-interval": {"run_ids": "texts!", "metric_key": "text!", "start_step": "int", "end_step": "int", "max_results": "int"},
    "webhooks": {"max_results": "int", "page_token": "text"},
    "artifacts/list": {**_RUN, "path": "text", "page_token": "text"},
}
"""By path below /mlflow/, the fields in the order in which they are looked at."""


def check(path: str, body: dict[str, Any], query: bool = False) -> None:
    """BadInput where a field that the route needs is missing, or one has the wrong type. `run_uuid` stands in for `run_id`.

    `query`: the fields came in the URL, where a list of one is written as its item; it is made a list.
    """
    for name, kind in FIELDS.get(path, {}).items():
        value = body.get(name)
        if query and value is not None and kind.startswith(("list", "texts")) and not isinstance(value, list):
            value = body[name] = [value]
        if value is None and name == "run_id":
            value = body.get("run_uuid")
        if kind.endswith("!") and (value is None or value == "" or value == []):
            raise missing(name)
        if value is not None and not _FITS[kind.rstrip("!")](value):
            raise invalid(name, value, f" Hint: Value was of type '{type(value).__name__}'.{SEE}")


def missing(name: str) -> BadInput:
    """The error for a required field that is not there."""
    return BadInput(f"Missing value for required parameter '{name}'.{SEE}")


def invalid(name: str, value: Any, why: str = "") -> BadInput:
    """The error for a value that cannot be used; it is shown as JSON, cut where it is long."""
    shown = orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS).decode()
    shown = shown if len(shown) <= 1_000 else shown[:1_000] + "..."
    return BadInput(f"Invalid value {shown} for parameter '{name}' supplied{': ' + why if why else '.'}")


def too_long(name: str, most: int) -> BadInput:
    """The error for a text that is over its limit."""
    return BadInput(f"'{name}' exceeds the maximum length of {most} characters")


def check_name(path: str, name: str) -> None:
    """BadInput where a param, metric or tag cannot be called so: other characters than MLflow's, or a name that as a path would be another one.

    `path` says where in the request the name stands.
    """
    why = _wrong_name(name)
    if why:
        raise invalid(path, name, why)


def check_param(path: str, key: str, value: str) -> str:
    """The value of a param, cut to PARAM_CHARS as MLflow cuts it; BadInput for its key."""
    check_name(path, key)
    if len(key) > KEY_CHARS:
        raise too_long("Param key", KEY_CHARS)
    return value[:PARAM_CHARS]


def check_tag(path: str, key: str, value: str) -> str:
    """The value of a run's tag, cut to TAG_CHARS as MLflow cuts it; BadInput for its key."""
    check_name(path, key)
    if len(key) > KEY_CHARS:
        raise too_long(path, KEY_CHARS)
    return value[:TAG_CHARS]


def check_experiment_tag(key: str, value: str) -> None:
    """BadInput for a tag of an experiment that is too long, or whose key cannot be used."""
    check_name("key", key)
    if len(key) > KEY_CHARS:
        raise too_long("key", KEY_CHARS)
    if len(value) > EXPERIMENT_TAG_CHARS:
        raise too_long("value", EXPERIMENT_TAG_CHARS)


def check_sizes(metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
    """BadInput for a batch with more metrics, params or tags than one request may hold."""
    total = len(metrics) + len(params) + len(tags)
    for what, found, most in (
        ("metrics", len(metrics), BATCH_METRICS),
        ("params", len(params), BATCH_PARAMS),
        ("tags", len(tags), BATCH_TAGS),
        ("metrics, params, and tags", total, BATCH_ALL),
    ):
        if found > most:
            raise BadInput(
                f"A batch logging request can contain at most {most} {what}. Got {found} {what}. "
                f"Please split up {what} across multiple requests and try again."
            )


@lru_cache(maxsize=10_000)
def _wrong_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        return "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
    norm = posixpath.normpath(name)
    if norm != name or norm == "." or norm.startswith(("..", "/")):
        return (
            f"Names may be treated as files in certain cases, and must not resolve to other names when treated as such. "
            f"This name would resolve to {norm!r}"
        )
    return ""


def _is_int(value: Any) -> bool:
    try:
        int(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


_FITS: Mapping[str, Any] = {
    "": lambda value: True,
    "text": lambda value: isinstance(value, str),
    "int": _is_int,
    "number": _is_number,
    "list": lambda value: isinstance(value, list),
    "texts": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
}
