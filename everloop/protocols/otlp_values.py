"""OTLP's attributes and values, in protobuf and in JSON, as plain values."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import orjson

from everloop.core.errors import BadInput
from everloop.protocols.otlp_repair import repaired
from everloop.store.objects import digest_of

NS_MAX = 2**63
"""Times are below this: nanoseconds up to the year 2262."""


def from_protobuf(request: Any, body: bytes) -> None:
    """Read a body into a protobuf message, broken texts in it mended; BadInput where it is none."""
    from google.protobuf.message import DecodeError

    try:
        try:
            request.ParseFromString(body)
        except DecodeError:
            request.ParseFromString(repaired(body, type(request)))
    except DecodeError as error:
        raise BadInput(f"The body is not an {type(request).__name__} in protobuf: {error}.", "Send OTLP/HTTP; JSON needs its content type.") from None


def from_json(request: Any, body: bytes, prepare: Callable[[Any], None]) -> None:
    """Read OTLP's JSON into a protobuf message, after `prepare` has put the decoded JSON in order; BadInput where it is none."""
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        found = orjson.loads(body)
        if not isinstance(found, dict):
            raise ValueError("it is no object")
        prepare(found)
        ParseDict(found, request, ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"The body is not an {type(request).__name__} in JSON: {str(error)[:300]}.", "See the OTLP/HTTP specification, JSON protobuf encoding."
        ) from None


def identity(parts: Any) -> str:
    """A short name for what something is: equal parts have equal names, whatever the order of their keys."""
    return digest_of(orjson.dumps(parts, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS))[:24]


def pairs(items: Any) -> dict[str, Any]:
    """A protobuf list of KeyValue as a dict."""
    found = {}
    for item in items:
        value = item.value
        found[item.key] = value.string_value or any_value(value)  # most are texts, and asking which one it is costs more than looking
    return found


def any_value(value: Any) -> Any:
    """A protobuf AnyValue as a plain value; bytes as base64."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    found = getattr(value, which)
    if which == "array_value":
        return [any_value(item) for item in found.values]
    if which == "kvlist_value":
        return pairs(found.values)
    if which == "bytes_value":
        return base64.b64encode(found).decode()
    return found


def json_pairs(items: Any) -> dict[str, Any]:
    """A list of KeyValue in OTLP's JSON as a dict."""
    return {str(item["key"]): _json_any(item.get("value") or {}) for item in items or ()}


def _json_any(value: dict[str, Any]) -> Any:
    for which, found in value.items():
        if which == "intValue":
            return int(found)
        if which == "doubleValue":
            return float(found)
        if which == "arrayValue":
            return [_json_any(item) for item in found.get("values") or ()]
        if which == "kvlistValue":
            return json_pairs(found.get("values"))
        if which == "bytesValue":
            try:
                base64.b64decode(found, validate=True)
            except binascii.Error:
                raise ValueError("an attribute's bytesValue is not base64") from None
        return found
    return None
