"""Several processes at one port of one machine: started, replaced when they die, asked for numbers, and stopped.

Each worker has a listening socket of its own at the same port (``SO_REUSEPORT``), so that the kernel deals connections
out evenly; the supervisor keeps all of them open, so that what waits for a worker that died waits for the next one
and is not reset. Where the kernel does not deal (anything but Linux), all workers share one socket.

SIGTERM and SIGINT stop all workers in good order, a second one at once. SIGHUP replaces them one by one.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from handclasp.errors import ConfigurationError

from .configuration import Configuration
from .metrics import Snapshot, add_up, open_metrics
from .server import GRACEFUL_SHUTDOWN, listen, url_of

_logger = logging.getLogger("handclasp.service")
_STABLE = 5.0  # seconds after which a worker that ends has not failed to start
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds before a worker that could not stay is started again
_MOST_FAILURES = (
    5  # starts in a row that fail before the supervisor gives up: who runs it may know what to do
)
_ANSWER_WITHIN = 1.0  # seconds for a worker's numbers; a busy one is left out
_MARGIN = 5.0  # seconds beyond those that a worker may take to stop


class Worker:
    """One process; the place in the line of sockets is `slot`."""

    def __init__(self, configuration: Configuration, slot: int, listener: socket.socket) -> None:
        from .worker import encode

        self.slot = slot
        self.is_ready = self.is_told = False
        self.started_at = time.monotonic()
        self._asking = threading.Lock()
        self.control, theirs = socket.socketpair()
        with theirs:
            handed_over = (listener.fileno(), theirs.fileno())
            # A new interpreter and no fork: the supervisor may have threads by now.
            self.process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "handclasp.service.worker", *map(str, handed_over)],
                pass_fds=handed_over,
                stdin=subprocess.DEVNULL,
            )
        self.control.settimeout(_ANSWER_WITHIN)
        with suppress(OSError):  # then it is dead, and whoever waits for it learns that
            self.control.sendall(encode(configuration))

    def hear(self) -> None:
        """Take in that it is ready; only before that anything comes by itself."""
        with suppress(OSError):
            self.is_ready = self.control.recv(6) == b"ready\n"

    def ask(self) -> Snapshot | None:
        """Its numbers, or None when it does not answer in time. May be called from another thread."""
        import json

        answer = b""
        with self._asking:
            try:
                self.control.sendall(b"?\n")
                while not answer.endswith(b"\n"):
                    data = self.control.recv(65_536)
                    if not data:
                        return None
                    answer += data
            except OSError:
                return None
        # A late answer to an earlier question comes first.
        snapshot: Snapshot = json.loads(answer.splitlines()[-1])
        return snapshot

    def stop(self) -> None:
        """Tell it to stop; harmless when it has."""
        if not self.is_told:
            self.is_told = True
            self.process.terminate()

    def close(self) -> None:
        """Let go of a process that has ended."""
        self.control.close()


class Supervisor:
    """Keeps a worker in each slot; `run` returns when all have stopped."""

    def __init__(self, configuration: Configuration, listeners: list[socket.socket], news: int) -> None:
        self._configuration = configuration
        self._listeners = listeners
        self._news = news
        self._workers: dict[int, Worker] = {}
        self._retiring: list[Worker] = []
        self._to_replace: list[int] = []
        self._failures = 0
        self._pause_until = 0.0
        self._restarts = 0
        self._signals: list[int] = []
        self._stopping = False
        self._announced = False

    @property
    def is_ready(self) -> bool:
        """Whether connections are accepted. Those of a worker that died wait for the next one."""
        return not self._stopping and any(worker.is_ready for worker in self._everybody())

    @property
    def _is_complete(self) -> bool:
        workers = self._workers.values()
        return len(workers) == len(self._listeners) and all(worker.is_ready for worker in workers)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take note of a signal; `run` is woken by it."""
        self._signals.append(number)

    def snapshot(self) -> Snapshot:
        """The numbers of all workers together. For another thread."""
        asked = [worker.ask() for worker in list(self._workers.values()) if worker.is_ready]
        total = add_up(answer for answer in asked if answer is not None)
        total["worker_restarts"] = {"": self._restarts}
        return total

    def run(self, ready: Callable[[], None]) -> int:
        """Supervise until a signal ends it; the signal.

        Raises:
            ConfigurationError: workers end as soon as they start.
        """
        try:
            while True:
                for number in self._take_signals():
                    if number == signal.SIGHUP:
                        self._to_replace = [slot for slot in self._workers if slot not in self._to_replace]
                    else:
                        return self._stop(number)
                self._bury()
                self._fill()
                if self._is_complete and not self._announced:
                    self._announced = True
                    ready()
                if self._is_complete and not self._retiring and self._to_replace:
                    self._replace(self._to_replace.pop(0))
                self._wait()
        finally:
            for worker in self._everybody():
                worker.process.kill()
                worker.process.wait()
                worker.close()

    # --- inside ---

    def _everybody(self) -> list[Worker]:
        return [*self._workers.values(), *self._retiring]

    def _take_signals(self) -> list[int]:
        taken, self._signals = self._signals, []
        return [number for number in taken if number != signal.SIGCHLD]

    def _fill(self) -> None:
        for slot, listener in enumerate(self._listeners):
            if slot not in self._workers and time.monotonic() >= self._pause_until:
                self._workers[slot] = Worker(self._configuration, slot, listener)

    def _replace(self, slot: int) -> None:
        """Start another one at the same socket; the one before stops once that is ready."""
        self._retiring.append(self._workers.pop(slot))

    def _bury(self) -> None:
        for worker in self._everybody():
            if worker.process.poll() is None:
                continue
            worker.close()
            if worker in self._retiring:
                self._retiring.remove(worker)
                continue
            del self._workers[worker.slot]
            self._restarts += 1
            _logger.error("worker %d ended with status %d", worker.slot, worker.process.returncode)
            if time.monotonic() - worker.started_at < _STABLE:
                self._failures += 1
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._failures)
                self._pause_until = time.monotonic() + pause
            else:
                self._failures = 0
            if self._failures >= _MOST_FAILURES:
                raise ConfigurationError("workers end as soon as they start: the log says why")
        for worker in self._retiring:
            successor = self._workers.get(worker.slot)
            if successor is not None and successor.is_ready:
                worker.stop()

    def _wait(self) -> None:
        """Wait for a signal, a worker that becomes ready, or one that is to be started again."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._news, selectors.EVENT_READ)
            for worker in self._workers.values():
                if not worker.is_ready:
                    selector.register(worker.control, selectors.EVENT_READ, worker)
            pause = (
                self._pause_until - time.monotonic() if len(self._workers) < len(self._listeners) else None
            )
            if self._signals:
                pause = 0
            for key, _ in selector.select(pause):
                if isinstance(key.data, Worker):
                    key.data.hear()
                else:
                    os.read(self._news, 4096)

    def _stop(self, number: int) -> int:
        self._stopping = True
        began = time.monotonic()
        settings = self._configuration.settings
        deadline = began + self._configuration.drain + settings.close_within + GRACEFUL_SHUTDOWN + _MARGIN
        for worker in self._everybody():
            worker.stop()
        while any(worker.process.poll() is None for worker in self._everybody()):
            now = time.monotonic()
            if now >= deadline or self._take_signals():
                break  # `run` kills what is left
            draining = began + self._configuration.drain - now
            if draining <= 0:
                for listener in self._listeners:  # whoever waits to be accepted is better off elsewhere
                    listener.close()
            with selectors.DefaultSelector() as selector:
                selector.register(self._news, selectors.EVENT_READ)
                if selector.select(draining if draining > 0 else deadline - now):
                    os.read(self._news, 4096)
        return number


def supervise(configuration: Configuration, *, ready: Callable[[str], None] | None = None) -> None:
    """Run ``configuration.workers`` processes until SIGINT or SIGTERM; as `serve` otherwise.

    Raises:
        ConfigurationError: the address cannot be listened on, workers cannot be here, or end as soon as they start.
    """
    if sys.platform == "win32":
        raise ConfigurationError("workers: more than one need a Unix system")
    with ExitStack() as stack:
        listeners = _listeners(configuration)
        for listener in listeners:
            stack.enter_context(listener)
        url = url_of(listeners[0])
        news, woken = os.pipe()
        for descriptor in (news, woken):
            stack.callback(os.close, descriptor)
            os.set_blocking(descriptor, False)
        supervisor = Supervisor(configuration, listeners, news)
        stack.enter_context(_signals(supervisor, woken))
        if configuration.metrics:
            address = configuration.metrics_address()
            stack.enter_context(open_metrics(address, supervisor.snapshot, lambda: supervisor.is_ready))
        _logger.warning("peers (/peers) find each other only when they are at the same worker")
        ended_by = supervisor.run(lambda: None if ready is None else ready(url))
    if ended_by != signal.SIGINT:  # as a single process does
        os.kill(os.getpid(), ended_by)


def _listeners(configuration: Configuration) -> list[socket.socket]:
    deals = sys.platform == "linux"
    first = listen(configuration.host, configuration.port, shared=deals)
    port = first.getsockname()[1]
    if deals:
        return [
            first,
            *(listen(configuration.host, port, shared=True) for _ in range(configuration.workers - 1)),
        ]
    return [first, *(first.dup() for _ in range(configuration.workers - 1))]


@contextmanager
def _signals(supervisor: Supervisor, woken: int) -> Generator[None]:
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    before = {number: signal.signal(number, supervisor.handle) for number in wanted}
    wakeup = signal.set_wakeup_fd(woken)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
