"""What the tests of a backend, or of a program, need: contract suites, and a service to talk to.

========================  ==========================================================================
`check_stream`            the suite for `handclasp.abc.Stream`
`check_connection`        … for `Connection`
`check_transport`         … for `Transport` and `Listener`
`check_signaling`         … for `Signaling` and `SignalingChannel`
`check_discovery`         … for `Discovery`
`open_connections`        makes pairs of connections of a transport, for `check_connection`
`open_streams`            makes pairs of streams of a connection, for `check_stream`
`cancel_everywhere`       cancels your code at each of its awaits and looks what it left behind
`Leftovers`               counts tasks, threads, sockets and files
`open_service`            a real signaling service on a free port, in a process of its own
========================  ==========================================================================

A suite is an async function that raises AssertionError; any test runner will do::

    async def test_my_transport_keeps_the_contract() -> None:
        await check_transport(my_transport)
"""

from .cancellation import cancel_everywhere
from .connection import check_connection
from .discovery import check_discovery
from .leftovers import Leftovers
from .peers import open_connections, open_streams
from .service import open_service
from .signaling import check_signaling
from .stream import check_stream
from .transport import check_transport

__all__ = [
    "Leftovers",
    "cancel_everywhere",
    "check_connection",
    "check_discovery",
    "check_signaling",
    "check_stream",
    "check_transport",
    "open_connections",
    "open_service",
    "open_streams",
]
