"""JSON-RPC 2.0 in both directions over one stream.

Each message is a uvarint length and that many bytes of JSON (UTF-8). Source: JSON-RPC 2.0
specification; batches are not part of any wallet standard and are refused.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias, cast

import trio

from handclasp.abc import Stream
from handclasp.errors import (
    ConnectionLost,
    DeadlineExceeded,
    MisuseError,
    PeerFault,
    ProtocolViolation,
    RequestFailed,
)
from handclasp.protobuf import decode_uvarint_untrusted, encode_uvarint
from handclasp.scope import Scope, open_scope

__all__ = ["MAX_MESSAGE", "JsonRpcPeer", "RequestHandler", "open_jsonrpc"]

_log = logging.getLogger(__name__)

#: Bytes of one message. Typed data and call data of large contracts stay below 256 KiB.
MAX_MESSAGE = 1024 * 1024
#: Requests of the peer that are answered at the same time; further ones get "limit exceeded".
MAX_CONCURRENT = 64
#: Seconds to wait for an answer unless told otherwise: a person reads, thinks and finds the phone.
REQUEST_TIMEOUT = 300.0

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = (
    -32700,
    -32600,
    -32601,
    -32602,
    -32603,
)
LIMIT_EXCEEDED = -32005  # EIP-1474

#: Answers one request: method and params to result. Raises `RequestFailed` to answer with an error.
RequestHandler: TypeAlias = Callable[[str, object], Awaitable[object]]


class JsonRpcPeer:
    """One end of the conversation; made by `open_jsonrpc`."""

    def __init__(self, stream: Stream, handler: RequestHandler, scope: Scope) -> None:
        self._stream = stream
        self._handler = handler
        self._scope = scope
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Call] = {}
        self._answering = 0
        self._sending = trio.Lock()
        self._closed = trio.Event()
        self._why: Exception | None = None

    async def call(self, method: str, params: object, *, timeout: float = REQUEST_TIMEOUT) -> object:  # noqa: ASYNC109 - the deadline of the peer's answer
        """Send a request and wait for its result.

        Raises:
            RequestFailed: the peer answered with an error.
            DeadlineExceeded: no answer within *timeout* seconds.
            ConnectionLost: the stream ended; the peer may or may not have acted.
        """
        number = next(self._ids)
        call = self._waiting[number] = _Call()
        try:
            await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            with trio.fail_after(timeout):
                await call.answered.wait()
        except trio.TooSlowError:
            raise DeadlineExceeded(f"no answer to {method} within {timeout:.0f} s") from None
        finally:
            del self._waiting[number]
        if call.error is not None:
            raise call.error
        return call.result

    async def notify(self, method: str, params: object) -> None:
        """Send a notification, which is not answered."""
        await self._send({"jsonrpc": "2.0", "method": method, "params": params})

    async def wait_closed(self) -> None:
        """Wait until the peer has ended the stream."""
        await self._closed.wait()

    # --- inside ---

    async def pump(self) -> None:
        """Read messages until the stream ends."""
        try:
            async for message in _messages_untrusted(self._stream):
                await self._take(message)
            self._why = ConnectionLost("the peer ended the stream")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._why = ConnectionLost(f"the stream broke: {exc}")
        except PeerFault as exc:
            self._why = exc
            await self._stream.reset()
        finally:
            self._closed.set()
            for call in self._waiting.values():
                call.fail(ConnectionLost("the stream was closed") if self._why is None else self._why)

    async def _take(self, message: object) -> None:
        if not isinstance(message, dict):
            raise ProtocolViolation("a JSON-RPC message is not an object")
        fields = cast("dict[str, object]", message)
        if fields.get("jsonrpc") != "2.0":
            raise ProtocolViolation("a JSON-RPC message does not say version 2.0")
        number = fields.get("id")
        if "method" not in fields:
            self._take_answer(number, fields)
            return
        method = fields["method"]
        if not isinstance(method, str) or not isinstance(number, int | str | None):
            raise ProtocolViolation("a JSON-RPC request has no text as method, or an id of another type")
        if self._answering >= MAX_CONCURRENT:
            await self._answer_error(number, RequestFailed(LIMIT_EXCEEDED, "too many requests at once"))
            return
        self._answering += 1
        self._scope.start_soon(self._answer, number, method, fields.get("params"))

    def _take_answer(self, number: object, fields: dict[str, object]) -> None:
        call = self._waiting.get(number) if isinstance(number, int) else None
        if call is None:
            _log.debug("an answer came for no request, or too late")
        elif "error" in fields:
            call.fail(_error_untrusted(fields["error"]))
        else:
            call.finish(fields.get("result"))

    async def _answer(self, number: int | str | None, method: str, params: object) -> None:
        try:
            try:
                result = await self._handler(method, params)
            finally:
                self._answering -= 1
            if number is not None:
                await self._send({"jsonrpc": "2.0", "id": number, "result": result})
        except RequestFailed as exc:
            await self._answer_error(number, exc)
        except (ConnectionLost, trio.ClosedResourceError):
            _log.debug("the peer left before its %s was answered", method)
        except Exception:  # noqa: BLE001 - the application's handler: its error must not end the conversation
            _log.exception("the handler of %s failed", method)
            await self._answer_error(number, RequestFailed(INTERNAL_ERROR, "internal error"))

    async def _answer_error(self, number: int | str | None, exc: RequestFailed) -> None:
        if number is None:
            return
        error: dict[str, object] = {"code": exc.code, "message": exc.message}
        if exc.data is not None:
            error["data"] = exc.data
        try:
            await self._send({"jsonrpc": "2.0", "id": number, "error": error})
        except (ConnectionLost, trio.ClosedResourceError):
            _log.debug("the peer left before it was told of an error")

    async def _send(self, message: Mapping[str, object]) -> None:
        data = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
        if len(data) > MAX_MESSAGE:
            raise MisuseError(f"a message has at most {MAX_MESSAGE} bytes, not {len(data)}")
        try:
            self._sending.acquire_nowait()  # almost always free, and a pass of the scheduler less
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            if self._why is not None:
                raise ConnectionLost("the stream is over") from self._why
            await self._stream.send_all(encode_uvarint(len(data)) + data)
        except trio.BrokenResourceError as exc:
            raise ConnectionLost("the stream broke") from exc
        finally:
            self._sending.release()


class _Call:
    """A request that waits for its answer."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.result: object = None
        self.error: Exception | None = None

    def finish(self, result: object) -> None:
        self.result = result
        self.answered.set()

    def fail(self, error: Exception) -> None:
        if not self.answered.is_set():
            self.error = error
            self.answered.set()


@asynccontextmanager
async def open_jsonrpc(stream: Stream, handler: RequestHandler | None = None) -> AsyncGenerator[JsonRpcPeer]:
    """Speak JSON-RPC on *stream* while the block runs; afterwards the stream is closed.

    Args:
        stream: nothing else uses it.
        handler: answers the peer's requests; without one each is answered "method not found".
    """
    async with stream, open_scope() as scope:
        peer = JsonRpcPeer(stream, handler or _no_methods, scope)
        scope.start_soon(peer.pump)
        yield peer


async def _no_methods(method: str, params: object) -> object:  # noqa: ARG001 - a RequestHandler
    raise RequestFailed(METHOD_NOT_FOUND, f"there is no method {method[:100]}")


async def _messages_untrusted(stream: Stream) -> AsyncGenerator[object]:
    buffer = bytearray()
    async for data in stream:
        buffer += data
        while (message := _cut_message_untrusted(buffer)) is not None:
            try:
                value: object = json.loads(message)
            except (ValueError, RecursionError):
                raise ProtocolViolation("a JSON-RPC message is not JSON") from None
            yield value


def _cut_message_untrusted(buffer: bytearray) -> bytes | None:
    decoded = decode_uvarint_untrusted(buffer)
    if decoded is None:
        return None
    length, start = decoded
    if length > MAX_MESSAGE:
        raise ProtocolViolation(f"a JSON-RPC message is longer than {MAX_MESSAGE} bytes")
    if len(buffer) < start + length:
        return None
    message = bytes(buffer[start : start + length])
    del buffer[: start + length]
    return message


def _error_untrusted(error: object) -> RequestFailed:
    if isinstance(error, dict):
        fields = cast("dict[str, object]", error)
        code, message = fields.get("code"), fields.get("message")
        if isinstance(code, int) and isinstance(message, str):
            return RequestFailed(code, message[:1_000], fields.get("data"))
    return RequestFailed(INTERNAL_ERROR, "the peer answered with a malformed error")
