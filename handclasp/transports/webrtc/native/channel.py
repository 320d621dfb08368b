"""A data channel of libwebrtc."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

import trio
import webrtc  # wrtc's module, not ours of the same name

from handclasp.transports.webrtc.engine import DataChannel
from handclasp.transports.webrtc.loop import InlineLoop

_log = logging.getLogger(__name__)

#: Bytes in libwebrtc's queue at which a channel reports that it drained.
LOW_WATER = 64 * 1024


class ChannelOwner(Protocol):
    """The peer connection, as its channels see it."""

    def opened(self, channel: NativeChannel) -> None:
        """A channel came to be."""

    def closed(self, channel: NativeChannel) -> None:
        """A channel is no more."""

    def stir(self) -> None:
        """Something left a queue."""

    def received(self, size: int) -> None:
        """Bytes arrived, and wait for a reader."""

    def consumed(self, size: int) -> None:
        """Bytes were read."""


class NativeChannel(DataChannel):
    """A channel; `attach` gives it what wrtc calls one."""

    def __init__(self, loop: InlineLoop, owner: ChannelOwner, label: str) -> None:
        super().__init__()
        self.unread = 0
        self._loop = loop
        self._owner = owner
        self._label = label
        self._channel: webrtc.RTCDataChannel | None = None
        self._open = False
        self._closing = False
        self._over = False
        self._waiting: list[bytes] = []  # until the channel is open
        self._waiting_size = 0
        self._held: list[Callable[[], object]] | None = None

    # --- trio side ---

    @property
    def label(self) -> str:
        """See `DataChannel.label`."""
        return self._label

    @property
    def buffered(self) -> int:
        """See `DataChannel.buffered`."""
        return self._waiting_size + (self._channel.buffered_amount if self._channel is not None else 0)

    def send(self, message: bytes) -> None:
        """See `DataChannel.send`."""
        if self._open:
            self._hand_over(message)
        elif not self._over:
            self._waiting.append(message)
            self._waiting_size += len(message)

    def consumed(self, size: int) -> None:
        """See `DataChannel.consumed`."""
        self.unread -= size
        self._owner.consumed(size)

    def close(self) -> None:
        """See `DataChannel.close`."""
        self._closing = True
        if self._open and self._channel is not None:
            self._channel.close()

    @contextmanager
    def callbacks_held(self) -> Generator[None]:
        """Keep callbacks back during the block and the current step of the program: nobody has set them yet."""
        self._held = []
        yield
        if self._held:
            trio.lowlevel.current_trio_token().run_sync_soon(self._release)
        else:
            self._held = None

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for call in held:
            self._loop.deliver(call)

    def report_drained_at(self, low_water: int) -> None:
        """Choose how many bytes in libwebrtc's queue count as drained."""
        if self._channel is not None:
            self._channel.buffered_amount_low_threshold = low_water

    def give_up(self, reason: str) -> None:
        """Close at once, and tell the owner at once."""
        _log.warning("a data channel is closed: %s", reason)
        if self._channel is not None:
            self._channel.close()
        self.over()

    def over(self) -> None:
        """The channel is no more, or never came to be."""
        if self._over:
            return
        self._over, self._open = True, False
        self._waiting.clear()
        self._waiting_size = 0
        self._owner.closed(self)
        self._deliver(lambda: self.on_close())  # noqa: PLW0108 - read when it is called

    def _hand_over(self, message: bytes) -> None:
        assert self._channel is not None  # noqa: S101 - it is open
        try:
            self._channel.send(message)
        except webrtc.InvalidStateError:
            return  # the channel closes, which on_close is about to tell
        except webrtc.OperationError:
            self.give_up("16 MiB wait to be sent in it")

    def _deliver(self, call: Callable[[], object]) -> None:
        if self._held is None:
            self._loop.deliver(call)
        else:
            self._held.append(call)

    # --- asyncio side ---

    def attach(self, channel: webrtc.RTCDataChannel) -> None:
        """Take over what wrtc calls a channel."""
        self._channel = channel
        self._owner.opened(self)
        channel.buffered_amount_low_threshold = LOW_WATER
        channel.on("open", self._opened)
        channel.on("message", self._received)
        channel.on("bufferedamountlow", self._drained)
        channel.on("close", self._closed)

    def _opened(self, _: webrtc.Event) -> None:
        self._open = True
        self._deliver(lambda: self.on_open())  # noqa: PLW0108 - read when it is called
        waiting, self._waiting, self._waiting_size = self._waiting, [], 0
        for message in waiting:
            self._hand_over(message)
        if self._closing and self._channel is not None:
            self._channel.close()

    def _received(self, event: webrtc.MessageEvent) -> None:
        data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
        self.unread += len(data)
        self._owner.received(len(data))
        self._deliver(lambda: self.on_message(data))

    def _drained(self, _: webrtc.Event) -> None:
        self._deliver(lambda: self.on_drain())  # noqa: PLW0108 - read when it is called
        self._owner.stir()

    def _closed(self, _: webrtc.Event) -> None:
        self.over()
