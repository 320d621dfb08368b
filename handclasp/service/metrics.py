"""The numbers of the service for Prometheus, at an address of their own: they are the operator's and nobody else's.

Counting is adding to plain integers (`counts`); names, types and labels come in only when somebody asks. A snapshot
is what goes from a worker to its supervisor: labels have few values, and none is an id, an address or a topic.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from handclasp.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from .app import SignalingApp

_PATIENCE = 5.0  # seconds for a request's next bytes


class Family(NamedTuple):
    """One metric, without ``handclasp_`` before it."""

    name: str
    is_counter: bool
    about: str
    labels: tuple[str, ...] = ()


FAMILIES = (
    Family("sockets", False, "WebSockets that are open.", ("protocol",)),
    Family("sockets_opened", True, "WebSockets since the start.", ("protocol",)),
    Family("frames", True, "Frames that clients sent (in) and were sent (out).", ("protocol", "direction")),
    Family("answers", True, "HTTP answers by status.", ("status",)),
    Family(
        "refused", True, "Requests and sockets refused for their address's rate, or their origin.", ("why",)
    ),
    Family("faults", True, "Errors of the service itself; each is in the log."),
    Family("mailboxes", False, "Mailboxes that exist in this service's own memory."),
    Family("peers", False, "Peers that are connected."),
    Family("stored_characters", False, "Characters of message bodies that are kept."),
    Family("cpu_seconds", True, "Processor time of the service's processes."),
    Family("workers", False, "Processes that serve."),
    Family("worker_restarts", True, "Processes that ended by themselves and were replaced."),
)

#: Family to label values, joined by commas, to number.
Snapshot: TypeAlias = dict[str, dict[str, float]]


def take_snapshot(app: SignalingApp) -> Snapshot:
    """The numbers of this process. May be called from another thread."""
    counts = app.counts
    traffic = {path.strip("/").replace("ws", "mailbox"): each for path, each in counts.traffic.items()}
    mailboxes, peers, stored = app.population()
    return {
        "sockets": {name: each.sockets for name, each in traffic.items()},
        "sockets_opened": {name: each.opened for name, each in traffic.items()},
        "frames": {
            f"{name},{direction}": number
            for name, each in traffic.items()
            for direction, number in (("in", each.frames_in), ("out", each.frames_out))
        },
        "answers": {str(status): number for status, number in dict(counts.answers).items()},
        "refused": {"address": counts.refused_addresses, "origin": counts.refused_origins},
        "faults": {"": counts.faults},
        "mailboxes": {"": mailboxes},
        "peers": {"": peers},
        "stored_characters": {"": stored},
        "cpu_seconds": {"": time.process_time()},
        "workers": {"": 1},
        "worker_restarts": {"": 0},
    }


def add_up(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The numbers of all processes together."""
    total: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for snapshot in snapshots:
        for name, values in snapshot.items():
            for labels, number in values.items():
                total[name][labels] += number
    return {name: dict(values) for name, values in total.items()}


def expose(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """The page that Prometheus reads, and its content type, in the form that its ``Accept`` header asks for."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector

    class Numbers(Collector):
        def collect(self) -> Iterable[Metric]:
            return _metrics(snapshot)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Numbers())
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _metrics(snapshot: Snapshot) -> Generator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for family in FAMILIES:
        kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
        metric = kind(f"handclasp_{family.name}", family.about, labels=family.labels)
        for labels, number in snapshot.get(family.name, {}).items():
            metric.add_metric(labels.split(",") if family.labels else [], number)
        yield metric


@contextmanager
def open_metrics(
    address: tuple[str, int], snapshot: Callable[[], Snapshot], is_ready: Callable[[], bool]
) -> Generator[int]:
    """Answer ``/metrics``, ``/health`` and ``/ready`` at an address while the block runs; yields the port.

    In a thread of its own, so that it answers while the service is busy, and also where there is no event loop.

    Raises:
        ConfigurationError: the extra is missing, or the address cannot be listened on.
    """
    try:
        import prometheus_client as _  # noqa: F401 - so that its absence is told now
    except ImportError:
        raise ConfigurationError("metrics need the extra: pip install 'handclasp[metrics]'") from None
    try:
        server = _Listener(address, _Handler)
    except OSError as exc:
        raise ConfigurationError(f"metrics: cannot listen on {address[0]} port {address[1]}: {exc}") from exc
    server.pages = {
        "/metrics": lambda accept: (200, *expose(snapshot(), accept)),
        "/health": lambda _: _say(yes=True),
        "/ready": lambda _: _say(yes=is_ready()),
    }
    thread = threading.Thread(target=server.serve_forever, name="handclasp metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _say(*, yes: bool) -> tuple[int, bytes, str]:
    return 200 if yes else 503, json.dumps({"ok": yes}).encode(), "application/json"


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    pages: Mapping[str, Callable[[str], tuple[int, bytes, str]]]

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            import socket

            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """Answer one of the pages."""
        page = cast("_Listener", self.server).pages.get(self.path.partition("?")[0])
        if page is None:
            status, content, content_type = 404, b'{"ok": false}', "application/json"
        else:
            status, content, content_type = page(self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Requests are not logged anywhere in the service."""
