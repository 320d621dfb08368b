"""JSON-RPC 2.0 in both directions over one stream.

Each message is a uvarint length and that many bytes of JSON (UTF-8). Source: JSON-RPC 2.0
specification; batches are not part of any wallet standard and are refused.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
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
from handclasp.jsontext import parse_json_untrusted
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
_LONGEST_ID = 128  # characters: an answer repeats the id, and has to fit into a message with it

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

        Cancelling leaves the conversation usable, unless half of the request was out: then it is over.

        Raises:
            RequestFailed: the peer answered with an error.
            DeadlineExceeded: no answer within *timeout* seconds, or the peer did not take the request.
            ConnectionLost: the stream ended; the peer may or may not have acted.
        """
        number = next(self._ids)
        call = self._waiting[number] = _Call()
        try:
            with trio.fail_after(timeout):
                await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
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
            async with aclosing(_messages_untrusted(self._stream)) as messages:
                async for message in messages:
                    await self._take(message)
            self._why = ConnectionLost("the peer ended the stream")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._why = self._why or ConnectionLost(f"the stream broke: {exc}")
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
        if not isinstance(method, str) or not _is_id(number):
            raise ProtocolViolation("a JSON-RPC request has no text as method, or an impossible id")
        if self._answering >= MAX_CONCURRENT:
            await self._reply(number, _error(RequestFailed(LIMIT_EXCEEDED, "too many requests at once")))
            return
        self._answering += 1
        self._scope.start_soon(self._answer, number, method, fields.get("params"))

    def _take_answer(self, number: object, fields: dict[str, object]) -> None:
        call = self._waiting.get(number) if isinstance(number, int) and _is_id(number) else None
        if call is None:
            _log.debug("an answer came for no request, or too late")
        elif "error" in fields:
            call.fail(_error_untrusted(fields["error"]))
        else:
            call.finish(fields.get("result"))

    async def _answer(self, number: object, method: str, params: object) -> None:
        try:
            await self._reply(number, await self._outcome(method, params))
        finally:
            self._answering -= 1  # only now: answers that the peer does not take count, too

    async def _outcome(self, method: str, params: object) -> dict[str, object]:
        """What the handler makes of a request, as it stands in the answer."""
        try:
            return {"result": await self._handler(method, params)}
        except RequestFailed as exc:
            return _error(exc)
        except Exception:  # noqa: BLE001 - the application's handler: its error must not end the conversation
            _log.exception("the handler of %.100r failed", method)
            return _error(RequestFailed(INTERNAL_ERROR, "internal error"))

    async def _reply(self, number: object, outcome: dict[str, object]) -> None:
        if number is None:  # a notification
            return
        try:
            try:
                await self._send({"jsonrpc": "2.0", "id": number, **outcome})
            except (MisuseError, TypeError, ValueError, RecursionError):
                _log.exception("the handler's answer is too long or cannot be written as JSON")
                failed = RequestFailed(INTERNAL_ERROR, "internal error")
                await self._send({"jsonrpc": "2.0", "id": number, **_error(failed)})
        except (ConnectionLost, trio.ClosedResourceError):
            _log.debug("the peer left before it was answered")

    async def _send(self, message: Mapping[str, object]) -> None:
        data = _ENCODER.encode(message).encode()
        if len(data) > MAX_MESSAGE:
            raise MisuseError(f"a message has at most {MAX_MESSAGE} bytes, not {len(data)}")
        try:
            self._sending.acquire_nowait()  # almost always free, and a pass of the scheduler less
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            if self._why is not None:
                raise ConnectionLost("the stream is over") from self._why
            await trio.lowlevel.checkpoint_if_cancelled()  # the last moment at which that harms nothing
            await self._send_whole(encode_uvarint(len(data)) + data)
        finally:
            self._sending.release()

    async def _send_whole(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as exc:
            raise ConnectionLost("the stream broke") from exc
        except trio.Cancelled:
            # Half of it may be out, and nothing can follow that.
            self._why = ConnectionLost("a message was cut short")
            with trio.CancelScope(shield=True):
                await self._stream.reset()
            raise


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
                value = parse_json_untrusted(message)
            except ValueError:
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


# In ASCII: texts that came from a peer may hold lone surrogates, which UTF-8 cannot.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _is_id(number: object) -> bool:
    """Whether *number* can be the id of a request: a number, a short text, or None in a notification."""
    if isinstance(number, str):
        return len(number) <= _LONGEST_ID
    return number is None or (isinstance(number, int) and not isinstance(number, bool))


def _error(exc: RequestFailed) -> dict[str, object]:
    error: dict[str, object] = {"code": exc.code, "message": exc.message}
    if exc.data is not None:
        error["data"] = exc.data
    return {"error": error}


def _error_untrusted(error: object) -> RequestFailed:
    if isinstance(error, dict):
        fields = cast("dict[str, object]", error)
        code, message = fields.get("code"), fields.get("message")
        if isinstance(code, int) and isinstance(message, str):
            return RequestFailed(code, message[:1_000], fields.get("data"))
    return RequestFailed(INTERNAL_ERROR, "the peer answered with a malformed error")
