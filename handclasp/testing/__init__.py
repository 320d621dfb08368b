"""What tests of your own program need: a service to talk to, and the contract suites.

========================  ==========================================================================
`open_service`            a real signaling service on a free port, in a process of its own
`check_stream`            the suite for `handclasp.abc.Stream`
========================  ==========================================================================
"""

from .service import open_service
from .stream import check_stream

__all__ = ["check_stream", "open_service"]
