"""OTLP over gRPC, for exporters that speak nothing else: the same three services as otlp.py, kept and answered the same way (extra `grpc`).

Where a request cannot be taken now the status is RESOURCE_EXHAUSTED with RetryInfo, which tells an exporter to send it again; what it never can be
is INVALID_ARGUMENT. No TLS: put a proxy before it where others than this machine send.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from everloop.core.errors import BadInput, Busy, EverloopError, MissingDependency
from everloop.core.limits import OTLP_CALLS, OTLP_MESSAGE_BYTES
from everloop.protocols.otlp import SIGNALS, Signal, answer_of, take, varint

SignedIn = Callable[[str, Mapping[str, str], str], Awaitable[Any]]
"""The principal of a call to a path, by its metadata (names in small letters) and the address that it came from; raises why it may not."""
STOP_SECONDS = 10.0
_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 413: "INVALID_ARGUMENT"}
_log = logging.getLogger("everloop.otlp")


class Receiver:
    """The gRPC server beside the HTTP one. `start` answers the port it listens on; `stop` lets calls under way finish."""

    def __init__(self, ws: Any, sign_in: SignedIn) -> None:
        self.ws, self.sign_in = ws, sign_in
        self._server: Any = None

    async def start(self, host: str, port: int) -> int:
        """Listen; MissingDependency without grpcio, BadInput where the port cannot be had."""
        try:
            import grpc
        except ImportError:
            raise MissingDependency("grpcio", "to take OTLP over gRPC", "grpc") from None
        options = [("grpc.max_receive_message_length", OTLP_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=OTLP_CALLS, compression=grpc.Compression.NoCompression)
        for name, signal in SIGNALS.items():
            service = f"opentelemetry.proto.collector.{signal.package}.v1.{signal.package.title()}Service"
            handlers = {"Export": grpc.unary_unary_rpc_method_handler(self._handler(f"/v1/{name}", signal))}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError:
            bound = 0
        if not bound:
            raise BadInput(f"Port {port} of {host} cannot be had for OTLP over gRPC.", "Stop what uses it, or choose another: --otlp-grpc PORT.")
        await self._server.start()
        return int(bound)

    async def stop(self) -> None:
        """Take no more calls, and wait for those under way."""
        if self._server is not None:
            await self._server.stop(STOP_SECONDS)

    def _handler(self, path: str, signal: Signal) -> Any:
        async def export(body: bytes, context: Any) -> bytes:
            try:
                metadata = {key.lower(): value for key, value in context.invocation_metadata() if isinstance(value, str)}
                who = await self.sign_in(path, metadata, address_of(context.peer()))
                with self.ws.telemetry.intake.room(len(body)):
                    found = await take(self.ws, who, signal, body)
                return answer_of(signal, found)
            except EverloopError as error:
                await _abort(context, error)
            except Exception as error:  # a bug: grpc would tell its text to the caller
                _log.exception("OTLP over gRPC")
                await _abort(context, EverloopError(f"Something went wrong in the server: {type(error).__name__}."))
            raise AssertionError("unreachable")

        return export


def address_of(peer: str) -> str:
    """The IP address of grpc's name for who calls: `ipv4:127.0.0.1:5`, `ipv6:%5B::1%5D:5`."""
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    return host if kind in ("ipv4", "ipv6") else ""


async def _abort(context: Any, error: EverloopError) -> None:
    import grpc

    if not isinstance(error, Busy):
        await context.abort(getattr(grpc.StatusCode, _STATUS.get(error.status, "INTERNAL")), str(error))
    retry = _field(1, b"\x08" + varint(max(1, round(error.retry_after))))
    any_retry = _field(1, b"type.googleapis.com/google.rpc.RetryInfo") + _field(2, retry)
    status = b"\x08" + varint(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]) + _field(2, str(error).encode()) + _field(3, any_retry)
    trailing = (("grpc-status-details-bin", status), ("google.rpc.retryinfo-bin", retry))
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), trailing)


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes in protobuf."""
    return varint(number << 3 | 2) + varint(len(data)) + data
