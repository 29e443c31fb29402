"""Bytes that are no UTF-8 in a protobuf request: the rest of it is worth keeping, so they become replacement characters.

Google's parser refuses a whole request for one broken text. The same message types with bytes in the place of strings take it; their texts are
mended, and what comes out is parsed as ever. Only a request that was refused comes this way.
"""

from __future__ import annotations

from functools import cache
from typing import Any


def repaired(body: bytes, request: Any) -> bytes:
    """A serialised message of the class `request` with its broken texts mended; the body itself where it is no such message at all."""
    from google.protobuf.message import DecodeError

    message = _lenient(request.DESCRIPTOR.file.name, request.DESCRIPTOR.full_name)()
    try:
        message.ParseFromString(body)
    except DecodeError:
        return body
    _mend(message)
    return bytes(message.SerializeToString())


@cache
def _lenient(file: str, name: str) -> Any:
    """The message class with every string a field of bytes."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool, known = descriptor_pool.DescriptorPool(), descriptor_pool.Default()
    waiting, ordered = [file], []
    while waiting:
        one = known.FindFileByName(waiting.pop())
        ordered.append(one)
        waiting += [other.name for other in one.dependencies]
    for one in reversed(ordered):
        copy = descriptor_pb2.FileDescriptorProto()
        one.CopyToProto(copy)
        for message in copy.message_type:
            _to_bytes(message)
        pool.Add(copy) if hasattr(pool, "Add") else pool.AddSerializedFile(copy.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _to_bytes(message: Any) -> None:
    from google.protobuf import descriptor_pb2

    for field in message.field:
        if field.type == descriptor_pb2.FieldDescriptorProto.TYPE_STRING:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
    for nested in message.nested_type:
        _to_bytes(nested)


def _mend(message: Any) -> None:
    """Make every field of bytes that is no UTF-8 one; ids, which are bytes by themselves, stay."""
    for field, value in message.ListFields():
        repeated = not hasattr(value, "ListFields") and not isinstance(value, (bytes, str, int, float, bool))
        if field.message_type is not None:
            for one in value if repeated else (value,):
                _mend(one)
        elif isinstance(value, bytes) and field.name not in _IDS:
            setattr(message, field.name, value.decode("utf-8", "replace").encode())


_IDS = frozenset(("trace_id", "span_id", "parent_span_id", "bytes_value"))
"""Fields that are bytes in the protocol."""
